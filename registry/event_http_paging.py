"""Tokens of pages: where a reader stands in the answer of one request, signed by the node and good for an hour.

Nothing is kept for a reader who may never come back: the token says it all. It is bound to the request that it
continues (path and parameters), so it opens no other one, and it is signed with a key that outlives the process, so a
reader goes on where a restart has found him. Who deletes a token (EPCIS 2.0: ``DELETE /nextPageToken/{token}``) has it
forgotten until it would have ended by itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from idtrace.epcis.values import time_text
from idtrace.errors import InputError, Reason, RefusedError, quoted

# A reader of a page of 1,000 events has worked on it by then.
LIFE_MS: Final = 3_600_000
# A cursor names an event of 255 bytes or a URI of 2,048 characters, and numbers.
CURSOR_BYTES_MAX: Final = 4_096
# Of the cursor and 41 bytes around it, as base64.
TOKEN_CHARS_MAX: Final = (CURSOR_BYTES_MAX + 41) * 4 // 3 + 4
# Deleted tokens that are remembered, 100 bytes each.
DELETED_MAX: Final = 10_000
SECRET_BYTES: Final = 32
_FORM: Final = b"\x01"
_FIELD: Final = "nextPageToken"
_SIZE: Final = "perPage"
# What RFC 3986 section 3.4 lets stand in a query, but for separators: a link is no longer than its request.
_QUERY_SAFE: Final = "/?:@!$'()*,;-._~"


@dataclass(frozen=True, slots=True)
class Paging:
    """The pages of one request: its path and parameters as they were sent, but for percent-encoding."""

    tokens: PageTokens
    path: str
    parameters: tuple[tuple[str, str], ...]
    now_ms: int

    def cursor(self) -> str:
        """Where its reader stands, "" at the beginning.

        Raises:
            InputError, RefusedError: as :meth:`PageTokens.open`.
        """
        tokens = [value for name, value in self.parameters if name == _FIELD]
        if len(tokens) > 1:
            raise _malformed("a page has one token")
        return self.tokens.open(tokens[0], self._digest(), self.now_ms) if tokens else ""

    def size(self, usual: int, most: int) -> int:
        """How many the reader wants of a page, at most ``most``.

        Raises:
            InputError: FIELD_MALFORMED.
        """
        asked = [value for name, value in self.parameters if name == _SIZE]
        if not asked:
            return usual
        if len(asked) > 1 or not (asked[0].isascii() and asked[0].isdecimal() and 0 < int(asked[0][:9]) <= most):
            raise InputError(Reason.FIELD_MALFORMED, f"a page has 1 to {most} members", field=_SIZE)
        return int(asked[0])

    def require_no_others(self) -> None:
        """Refuse parameters that nobody would read.

        Raises:
            InputError: FIELD_MALFORMED.
        """
        for name, _ in self.parameters:
            if name not in {_FIELD, _SIZE}:
                rule = f"{quoted(name)} is no parameter of this resource"
                raise InputError(Reason.FIELD_MALFORMED, rule, field=name[:80])

    def next(self, cursor: str | None) -> dict[str, str]:
        """The headers that lead to the next page; none where there is none (RFC 8288, EPCIS 2.0 section 12.5)."""
        if cursor is None:
            return {}
        token, ends_ms = self.tokens.issue(self._digest(), cursor, self.now_ms)
        kept = [(name, value) for name, value in self.parameters if name != _FIELD]
        target = f"{self.path}?{urlencode([*kept, (_FIELD, token)], safe=_QUERY_SAFE, quote_via=quote)}"
        return {"link": f'<{target}>; rel="next"', "gs1-next-page-token-expires": time_text(ends_ms)}

    def _digest(self) -> bytes:
        return request_digest(self.path, self.parameters)


def request_digest(path: str, parameters: Iterable[tuple[str, str]]) -> bytes:
    """What a token is bound to, 16 bytes: the path and all parameters but those of paging, in any order."""
    told = sorted((name, value) for name, value in parameters if name not in {_FIELD, _SIZE})
    text = "\0".join([path, *(part for pair in told for part in pair)])
    return hashlib.sha256(b"idtrace/page/v1\0" + text.encode("utf-8", "surrogatepass")).digest()[:16]


class PageTokens:
    """Makes tokens and reads them. ``secret`` has 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        assert len(secret) == SECRET_BYTES, "drawn by us"
        self._secret = secret
        self._deleted: OrderedDict[bytes, int] = OrderedDict()

    def issue(self, request: bytes, cursor: str, now_ms: int) -> tuple[str, int]:
        """A token, and when it ends (UTC ms)."""
        ends_ms = now_ms + LIFE_MS
        said = b"".join((_FORM, ends_ms.to_bytes(8, "big"), request, cursor.encode()))
        assert len(said) <= CURSOR_BYTES_MAX + 25, "cursors are ours"
        return base64.urlsafe_b64encode(self._mac(said) + said).decode().rstrip("="), ends_ms

    def open(self, token: str, request: bytes, now_ms: int) -> str:
        """The cursor at which the reader of this request stands.

        Raises:
            InputError: FIELD_MALFORMED: no token of this node, or of another request.
            RefusedError: PAGE_GONE: it has ended, or was deleted.
        """
        said = self._said(token)
        if said[9:25] != request:
            raise _malformed("the token continues another request; path and parameters stay the same from page to page")
        self._forget(now_ms)
        if int.from_bytes(said[1:9], "big") <= now_ms or self._mac(said) in self._deleted:
            rule = f"the token has ended: it lives for {LIFE_MS // 60_000} minutes, and not after it was deleted"
            raise RefusedError(Reason.PAGE_GONE, rule, field=_FIELD)
        return said[25:].decode()

    def delete(self, token: str, now_ms: int) -> None:
        """Let a token open nothing any more.

        Raises:
            InputError: FIELD_MALFORMED: no token of this node.
        """
        said = self._said(token)
        self._forget(now_ms)
        self._deleted[self._mac(said)] = int.from_bytes(said[1:9], "big")
        if len(self._deleted) > DELETED_MAX:
            self._deleted.popitem(last=False)

    def _forget(self, now_ms: int) -> None:
        while self._deleted and next(iter(self._deleted.values())) <= now_ms:
            self._deleted.popitem(last=False)

    def _said(self, token: str) -> bytes:
        if len(token) > TOKEN_CHARS_MAX or not token.isascii():
            raise _malformed("the token is none of this node's")
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            raise _malformed("the token is none of this node's") from None
        mac, said = data[:16], data[16:]
        if len(said) < 25 or said[:1] != _FORM or not hmac.compare_digest(mac, self._mac(said)):
            raise _malformed("the token is none of this node's")
        return said

    def _mac(self, said: bytes) -> bytes:
        return hmac.new(self._secret, said, hashlib.sha256).digest()[:16]


def _malformed(rule: str) -> InputError:
    return InputError(Reason.FIELD_MALFORMED, rule, field=_FIELD)
