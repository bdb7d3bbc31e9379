"""Typed errors ⇄ gRPC status with google.rpc details, both ways, so that a client sees what the node meant.

Every error carries ``ErrorInfo`` (domain, reason) and, where a field is at fault, ``BadRequest`` with its path. Nothing
else leaves the node: an unexpected exception becomes INTERNAL with no detail (OWASP API8), and is logged.
Source: google/rpc/error_details.proto, AIP-193.
"""

from __future__ import annotations

from typing import Final, NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from idtrace.errors import (
    ERROR_DOMAIN,
    BusyError,
    IdtraceError,
    InputError,
    OutcomeUnknownError,
    Reason,
    RefusedError,
    VerificationError,
)

# Reasons whose status says more than their family's; clients retry and branch on these.
_BY_REASON: Final = {
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
    Reason.CLOCK_BACK: grpc.StatusCode.UNAVAILABLE,
    Reason.NO_ANSWER: grpc.StatusCode.UNAVAILABLE,
    Reason.IDENTIFIER_TAKEN: grpc.StatusCode.ALREADY_EXISTS,
    Reason.CLASS_FIELD_NOT_UNIQUE: grpc.StatusCode.ALREADY_EXISTS,
    Reason.IDENTIFIER_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.VERSION_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.PREFIX_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.NOT_AUTHORITATIVE: grpc.StatusCode.NOT_FOUND,
    Reason.WRITE_CONFLICT: grpc.StatusCode.ABORTED,
    Reason.CHANGES_GONE: grpc.StatusCode.OUT_OF_RANGE,
    Reason.LICENCE_UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.ROLLED_BACK: grpc.StatusCode.ABORTED,
    Reason.JOB_UNKNOWN: grpc.StatusCode.NOT_FOUND,
}
_FAMILIES: Final[dict[str, type[IdtraceError]]] = {
    "INVALID_ARGUMENT": InputError,
    "PERMISSION_DENIED": VerificationError,
    "RESOURCE_EXHAUSTED": BusyError,
    "UNKNOWN": OutcomeUnknownError,
    "UNAVAILABLE": BusyError,  # after RESOURCE_EXHAUSTED, which is a busy node's usual status
    "INTERNAL": BusyError,
}
# Clients refuse trailers above 8 KiB; the detail travels three times (status, message, violation), in the first with up
# to nine bytes a character.
DETAIL_MAX: Final = 300
FIELD_MAX: Final = 200
_HTTP_CONTROL: Final = {ord(c): " " for c in "\r\n"}


def status_of(error: IdtraceError) -> grpc.StatusCode:
    """The gRPC status of an error."""
    if error.reason in _BY_REASON:
        return _BY_REASON[error.reason]
    names = (name for name, family in _FAMILIES.items() if isinstance(error, family))
    return grpc.StatusCode[next(names, "FAILED_PRECONDITION")]


def item_error(error: IdtraceError) -> tuple[int, str, str, str]:
    """``(google.rpc.Code, reason, field, detail)`` of one item of a batch."""
    return int(status_of(error).value[0]), str(error.reason), error.field, error.detail


def rich_status(error: IdtraceError) -> status_pb2.Status:
    """The error as google.rpc.Status with its details."""
    code, reason, field, detail = item_error(error)
    field, detail = field[:FIELD_MAX], detail[:DETAIL_MAX]
    details = [error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN)]
    packed = [any_pb2.Any() for _ in details]
    for target, message in zip(packed, details, strict=True):
        target.Pack(message)
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=detail, reason=reason)
        bad = any_pb2.Any()
        bad.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        packed.append(bad)
    return status_pb2.Status(code=code, message=f"{reason}: {detail}", details=packed)


async def abort(context: grpc.aio.ServicerContext[object, object], error: IdtraceError) -> NoReturn:
    """End a call with the error's status and details; never returns."""
    status = rpc_status.to_status(rich_status(error))
    await context.abort(status_of(error), status.details.translate(_HTTP_CONTROL), status.trailing_metadata)
    raise AssertionError("abort returned")


def error_from_rpc(error: grpc.RpcError) -> IdtraceError | None:
    """Read back what :func:`abort` sent; None where the error is the transport's, another server's, or garbage."""
    try:
        return _read(_status_in(error))
    except DecodeError:
        return None


def _read(status: status_pb2.Status | None) -> IdtraceError | None:
    if status is None:
        return None
    reason: Reason | None = None
    field = ""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN and info.reason in tuple(Reason):
            reason = Reason(info.reason)
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
    if reason is None:
        return None
    text = status.message.removeprefix(f"{reason}: ")
    return error_of(grpc.StatusCode(_code(status.code)).name, reason, field, text)


def error_of(code_name: str, reason: Reason, field: str, detail: str) -> IdtraceError:
    """The typed error of a status name and its parts, also for one item of a batch."""
    family = _FAMILIES.get(code_name, RefusedError)
    return family(reason, detail, field=field)


def code_name(code: int) -> str:
    """``INVALID_ARGUMENT`` for 3."""
    return grpc.StatusCode(_code(code)).name


def _code(code: int) -> tuple[int, str]:
    return next((c.value for c in grpc.StatusCode if c.value[0] == code), grpc.StatusCode.UNKNOWN.value)


def _status_in(error: grpc.RpcError) -> status_pb2.Status | None:
    trailing = getattr(error, "trailing_metadata", None)
    metadata = trailing() if callable(trailing) else None
    for key, value in metadata or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None
