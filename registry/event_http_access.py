"""Who may use the EPCIS interface: bearer tokens (RFC 6750) out of a file that the operator keeps."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import Final

from starlette.requests import Request

from idtrace.errors import InputError, Reason
from idtrace.serving.keyfile import load_secret
from registry.event_http_problems import ProblemError, Standard, refuse

# What `openssl rand -base64 24` gives; what is shorter is guessed.
TOKEN_CHARS_MIN: Final = 32
TOKEN_CHARS_MAX: Final = 512
# A token each for the systems of one site; each is compared with every request.
TOKENS_MAX: Final = 64
# RFC 6750 section 2.1: b64token
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")


class Access:
    """The tokens of one interface, as digests: a token itself is kept nowhere."""

    def __init__(self, tokens: tuple[str, ...], *, reading_open: bool) -> None:
        self._digests = tuple(_digest(token) for token in tokens)
        self._reading_open = reading_open

    @classmethod
    def read(cls, path: Path | None, *, reading_open: bool) -> Access:
        """Read the file: a token a line; empty lines and lines that begin with ``#`` are not looked at.

        Raises:
            InputError: FIELD_MALFORMED, with the field ``events.tokens``; KEY_MALFORMED where the file cannot be read,
                or where others can read it too. No message shows a token.
        """
        if path is None:
            return cls((), reading_open=reading_open)
        data = load_secret(path, least=TOKEN_CHARS_MIN)
        if not data.isascii():
            raise _unusable("is no text of ASCII")
        numbered = [(number, line.strip()) for number, line in enumerate(data.decode().splitlines(), start=1)]
        tokens = tuple(token for number, token in numbered if _is_token(number, token))
        if not 0 < len(tokens) <= TOKENS_MAX:
            raise _unusable(f"has {len(tokens)} tokens; there are 1 to {TOKENS_MAX}")
        return cls(tokens, reading_open=reading_open)

    def require_writer(self, request: Request) -> None:
        """Require a token.

        Raises:
            ProblemError: 401.
        """
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not sent:
            raise _unauthorized("this needs a bearer token in the header Authorization", "")
        digest = _digest(sent.strip())
        # Every one is compared, so that the time says nothing of how far a guess came.
        if sum(hmac.compare_digest(digest, known) for known in self._digests) == 0:
            raise _unauthorized("the token is none of this node's", ', error="invalid_token"')

    def require_reader(self, request: Request) -> None:
        """Require a token, unless anyone may read.

        Raises:
            ProblemError: 401.
        """
        if not self._reading_open:
            self.require_writer(request)


def _is_token(number: int, line: str) -> bool:
    if not line or line.startswith("#"):
        return False
    if not TOKEN_CHARS_MIN <= len(line) <= TOKEN_CHARS_MAX or _TOKEN.match(line) is None:
        rule = f"a token has {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} letters, digits and characters of -._~+/="
        raise _unusable(f"line {number} is no token: {rule}")
    return True


def _unusable(rule: str) -> InputError:
    return InputError(Reason.FIELD_MALFORMED, f"the file of tokens {rule}", field="events.tokens")


def _unauthorized(detail: str, error: str) -> ProblemError:
    headers = {"www-authenticate": f'Bearer realm="epcis"{error}'}
    return refuse(401, Standard.SECURITY, detail, field="authorization", headers=headers)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
