"""What requests to the EPCIS interface say in their headers, and what its answers say of themselves.

Source: EPCIS 2.0, section 12.4 (content negotiation, versions) and 12.6 (capture). Versions and translations that this
node does not have are refused, so that nobody takes for granted what is not done: events are given in the words of
their reporters, never translated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from starlette.requests import Request

from idtrace.epcis.rules import DOCUMENT_BYTES_MAX, EVENTS_MAX
from registry.capturing import JSON_TYPES, XML_TYPES
from registry.event_http_problems import ProblemError, Standard, refuse

VERSION: Final = "2.0"
VERSIONS: Final[Mapping[str, str]] = MappingProxyType({"gs1-epcis-version": VERSION, "gs1-cbv-version": VERSION})
# What OPTIONS tells of every resource, and of those that capture besides.
DISCOVERY: Final[Mapping[str, str]] = MappingProxyType(
    {
        **VERSIONS,
        "gs1-epcis-min": VERSION,
        "gs1-epcis-max": VERSION,
        "gs1-cbv-min": VERSION,
        "gs1-cbv-max": VERSION,
        "gs1-epc-format": "Never_Translates",
    }
)
CAPTURE_DISCOVERY: Final[Mapping[str, str]] = MappingProxyType(
    {
        **DISCOVERY,
        "gs1-epcis-capture-limit": str(EVENTS_MAX),
        "gs1-epcis-capture-file-size-limit": str(DOCUMENT_BYTES_MAX),
        "gs1-capture-error-behaviour": "rollback",
    }
)
JSON_LD: Final = "application/ld+json"
JSON: Final = "application/json"
XML: Final = "application/xml"
EVENT_STREAM: Final = "text/event-stream"
# Namespaces that one query speaks of.
EXTENSIONS_MAX: Final = 32
_VERSION = re.compile(r"2\.0(\.[0-9]{1,3})?\Z")  # 2.0.1 corrects the text of 2.0 and changes nothing here
_NUMBERS = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})(\.[0-9]{1,3})?\Z")
_EXTENSION = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,63})=(\S{1,512})\Z")
_BARE_EXTENSION = re.compile(r"[^\s=]{0,512}\Z")


class Form(StrEnum):
    """What an answer is written in."""

    JSON = JSON_LD
    XML = XML
    STREAM = EVENT_STREAM


def answer_form(request: Request, forms: tuple[Form, ...]) -> Form:
    """The form that a client likes best of those that there are (RFC 9110 §12.5.1); the first where it does not care.

    Raises:
        ProblemError: 406.
    """
    accept = request.headers.get("accept", "").strip()
    if not accept:
        return forms[0]
    ranges = [_range(part) for part in accept.split(",")]
    liked = {form: _quality(ranges, form) for form in forms}
    best = max(forms, key=lambda form: liked[form])  # max keeps the order of those that are liked alike
    if liked[best] <= 0.0:
        detail = f"what there is: {', '.join(forms)}"
        raise refuse(406, Standard.NOT_ACCEPTABLE, detail, field="accept")
    return best


_ALSO: Final = {Form.JSON: {JSON_LD, JSON}, Form.XML: {XML, "text/xml"}, Form.STREAM: {EVENT_STREAM}}


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return name, min(1.0, max(0.0, float(parameter[2:])))
            except ValueError:
                return name, 0.0
    return name, 1.0


def _quality(ranges: list[tuple[str, float]], form: Form) -> float:
    """The most exact range counts, and of a form's names the one that is liked best."""
    exact = [quality for name, quality in ranges if name in _ALSO[form]]
    if exact:
        return max(exact)
    half = [quality for name, quality in ranges if name == f"{form.partition('/')[0]}/*"]
    whole = [quality for name, quality in ranges if name == "*/*"]
    # Nobody who takes anything expects an answer without end.
    found = [] if form is Form.STREAM else half or whole
    return max(found, default=0.0)


def require_versions(request: Request) -> None:
    """Refuse what this node does not speak: other versions, and events in other words than they were given.

    Raises:
        ProblemError: 406.
    """
    for name in ("gs1-epcis", "gs1-cbv"):
        asked = request.headers.get(f"{name}-version", VERSION)
        if _VERSION.match(asked) is None:
            raise _unspoken(f"{name}-version")
        for bound in ("min", "max"):
            limit = request.headers.get(f"{name}-{bound}", VERSION)
            numbers = _NUMBERS.match(limit)
            if numbers is None:
                raise _unspoken(f"{name}-{bound}")
            pair = int(numbers[1]), int(numbers[2])
            if pair > (2, 0) if bound == "min" else pair < (2, 0):
                raise _unspoken(f"{name}-{bound}")
    for name in ("gs1-epc-format", "gs1-cbv-xml-format"):
        if request.headers.get(name, "No_Preference").lower().startswith("always_"):
            detail = "events are given in the words of their reporters; nothing is translated"
            raise refuse(406, Standard.NOT_ACCEPTABLE, detail, field=name)


def _unspoken(field: str) -> ProblemError:
    return refuse(406, Standard.NOT_ACCEPTABLE, f"this node speaks EPCIS {VERSION} and CBV {VERSION}", field=field)


def rolls_back(request: Request) -> bool:
    """Whether one event's fault is all events' (the default), as GS1-Capture-Error-Behaviour says.

    Raises:
        ProblemError: 400.
    """
    behaviour = request.headers.get("gs1-capture-error-behaviour", "rollback").strip().lower()
    if behaviour not in {"rollback", "proceed"}:
        detail = "the behaviour is rollback or proceed"
        raise refuse(400, Standard.VALIDATION, detail, field="gs1-capture-error-behaviour")
    return behaviour == "rollback"


def document_type(request: Request) -> str:
    """The media type of a document that is sent, without its parameters.

    Raises:
        ProblemError: 415.
    """
    bare = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if bare not in JSON_TYPES | XML_TYPES:
        detail = f"a document is one of {', '.join(sorted(JSON_TYPES | XML_TYPES))}"
        raise refuse(415, Standard.MEDIA_TYPE, detail, field="content-type")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        # What a few packed bytes become is nobody's to know beforehand.
        raise refuse(415, Standard.MEDIA_TYPE, "documents are sent as they are, not packed", field="content-encoding")
    return bare


def namespaces(request: Request) -> dict[str, str]:
    """Prefixes of extension fields that a query's parameters use, as GS1-Extensions lists them: ``ext=https://…, …``.

    Raises:
        ProblemError: 400.
    """
    found: dict[str, str] = {}
    listed = [part.strip() for part in request.headers.get("gs1-extensions", "").split(",")]
    for part in listed:
        match = _EXTENSION.match(part)
        if match is not None:
            found[match[1]] = match[2]
        elif _BARE_EXTENSION.match(part) is None:
            detail = "extensions are listed as prefix=namespace, with commas between them"
            raise refuse(400, Standard.QUERY_PARAMETER, detail, field="gs1-extensions")
    if len(found) > EXTENSIONS_MAX:
        detail = f"a query speaks of at most {EXTENSIONS_MAX} namespaces"
        raise refuse(400, Standard.QUERY_PARAMETER, detail, field="gs1-extensions")
    return found
