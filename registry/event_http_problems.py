"""Refusals of the EPCIS interface: RFC 9457 bodies whose type is one of the standard's exceptions.

Beside type, title, status and detail each says what every refusal of this project says: the reason, the field, and for
an event the rule that it breaks. Source: EPCIS 2.0, section 12 (REST bindings).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from idtrace.epcis.rules import DocumentError, EventError, Rule
from idtrace.errors import BusyError, IdtraceError, InputError, OutcomeUnknownError, Reason
from idtrace.serving.http import PROBLEM_TYPE

# A node that is busy is so for a batch or two; who comes back sooner is refused again.
RETRY_AFTER_SECONDS: Final = 1


class Standard(StrEnum):
    """The exceptions of the standard (section 8.2.6 and its REST bindings) that this interface raises."""

    VALIDATION = "epcisException:ValidationException"
    SECURITY = "epcisException:SecurityException"
    NO_SUCH_RESOURCE = "epcisException:NoSuchResourceException"
    RESOURCE_EXISTS = "epcisException:ResourceAlreadyExistsException"
    NOT_ACCEPTABLE = "epcisException:NotAcceptableException"
    MEDIA_TYPE = "epcisException:UnsupportedMediaTypeException"
    CAPTURE_LIMIT = "epcisException:CaptureLimitExceededException"
    QUERY_PARAMETER = "epcisException:QueryParameterException"
    QUERY_VALIDATION = "epcisException:QueryValidationException"
    QUERY_TOO_LARGE = "epcisException:QueryTooLargeException"
    QUERY_TOO_COMPLEX = "epcisException:QueryTooComplexException"
    SUBSCRIBE_NOT_PERMITTED = "epcisException:SubscribeNotPermittedException"
    IMPLEMENTATION = "epcisException:ImplementationException"


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal.

    Attributes:
        status, type, detail: what RFC 9457 knows; the title is the exception's name.
        members: further ones: reason, field, rule.
        headers: of the answer.
    """

    status: int
    type: Standard
    detail: str
    members: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The members of the JSON object, the standard's first."""
        title = self.type.partition(":")[2]
        return {"type": self.type, "title": title, "status": self.status, "detail": self.detail, **self.members}

    def response(self) -> Response:
        """The refusal as an answer; no cache keeps it."""
        headers = {"cache-control": "no-store", **self.headers}
        return Response(json.dumps(self.body()).encode(), self.status, headers, PROBLEM_TYPE)


class ProblemError(Exception):
    """Ends a request with a refusal; it never leaves this interface."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def refuse(
    status: int, kind: Standard, detail: str, *, field: str = "", headers: Mapping[str, str] | None = None
) -> ProblemError:
    """A refusal to raise, for what no error of the cores says."""
    return ProblemError(Problem(status, kind, detail, {"field": field} if field else {}, headers or {}))


_BY_REASON: Final = {
    Reason.JOB_UNKNOWN: (404, Standard.NO_SUCH_RESOURCE),
    Reason.IDENTIFIER_UNKNOWN: (404, Standard.NO_SUCH_RESOURCE),
    Reason.QUERY_UNKNOWN: (404, Standard.NO_SUCH_RESOURCE),
    Reason.QUERY_NAME_TAKEN: (409, Standard.RESOURCE_EXISTS),
    Reason.QUERIES_TOO_MANY: (507, Standard.IMPLEMENTATION),
    Reason.QUERY_TOO_LARGE: (413, Standard.QUERY_TOO_LARGE),
    Reason.PAGE_GONE: (410, Standard.QUERY_PARAMETER),
    Reason.CAPTURE_UNSIGNED: (501, Standard.IMPLEMENTATION),
    Reason.ROLLED_BACK: (400, Standard.VALIDATION),
    Reason.INTERNAL: (500, Standard.IMPLEMENTATION),
}
# What a document cannot have more of, whatever stands in it.
_WHOLE_DOCUMENT: Final = frozenset({"", "epcisBody.eventList"})


def problem_of(error: IdtraceError) -> Problem:
    """What a caller is told of an error of the cores, in capture and elsewhere."""
    members: dict[str, object] = {"reason": str(error.reason)}
    if error.field:
        members["field"] = error.field
    if isinstance(error, DocumentError):
        members["rule"] = str(error.rule)
    if isinstance(error, EventError):
        members["index"] = error.index
    status, kind = _kind(error)
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status == 503 else {}
    return Problem(status, kind, error.detail, members, headers)


def query_problem(error: InputError) -> Problem:
    """What a caller is told of a query's parameter: the standard has an exception of its own for these."""
    return Problem(
        400, Standard.QUERY_PARAMETER, error.detail, {"reason": str(error.reason), "field": error.field or "query"}
    )


@contextmanager
def parameters() -> Iterator[None]:
    """What is wrong with a request's parameters, told as the standard wants it told.

    Raises:
        ProblemError: 400, for any InputError within.
    """
    try:
        yield
    except InputError as error:
        raise ProblemError(query_problem(error)) from None


def _kind(error: IdtraceError) -> tuple[int, Standard]:
    if error.reason in _BY_REASON:
        return _BY_REASON[error.reason]
    if isinstance(error, BusyError | OutcomeUnknownError):
        return 503, Standard.IMPLEMENTATION
    if isinstance(error, DocumentError) and error.rule is Rule.SIZE and error.path in _WHOLE_DOCUMENT:
        return 413, Standard.CAPTURE_LIMIT
    if isinstance(error, InputError):
        return (413, Standard.CAPTURE_LIMIT) if error.reason is Reason.BATCH_TOO_LARGE else (400, Standard.VALIDATION)
    # Who may report what is decided by licences and holdings; a forged signature is nobody's right either.
    return (403, Standard.SECURITY)


_BY_STATUS: Final = {
    404: Standard.NO_SUCH_RESOURCE,
    405: Standard.IMPLEMENTATION,
    413: Standard.CAPTURE_LIMIT,
}


def add_handlers(app: Starlette) -> None:
    """Let an application refuse in this form, whoever of its parts refuses."""
    app.add_exception_handler(ProblemError, _told)
    app.add_exception_handler(IdtraceError, _of_core)
    app.add_exception_handler(HTTPException, _of_starlette)
    app.add_exception_handler(Exception, _failed)


async def _told(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError), "registered for this class"
    return error.problem.response()


async def _of_core(_request: Request, error: Exception) -> Response:
    assert isinstance(error, IdtraceError), "registered for this class"
    return problem_of(error).response()


async def _of_starlette(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for this class"
    kind = _BY_STATUS.get(error.status_code, Standard.VALIDATION)
    return Problem(error.status_code, kind, error.detail, {}, dict(error.headers or {})).response()


async def _failed(_request: Request, _error: Exception) -> Response:
    """What the client hears; the edge logs the error itself (``idtrace/serving/http.py``)."""
    detail = f"the node failed ({HTTPStatus(500).phrase}); its log says why"
    members = {"reason": str(Reason.INTERNAL)}
    return Problem(500, Standard.IMPLEMENTATION, detail, members, {"connection": "close"}).response()
