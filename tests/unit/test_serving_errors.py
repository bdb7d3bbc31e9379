"""Typed errors as google.rpc status and back: a client sees the family, the reason, the field and the sentence."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

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
from idtrace.serving.errors import code_name, error_from_rpc, error_of, item_error, rich_status, status_of

R = Reason
C = grpc.StatusCode


class Answered(grpc.RpcError):
    """A finished call's error with this trailing metadata, as a client's stub raises it."""

    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        super().__init__()
        self.metadata = metadata

    def trailing_metadata(self) -> Any:
        return self.metadata


def there_and_back(error: IdtraceError) -> IdtraceError | None:
    return error_from_rpc(
        Answered(("x-other", "1"), ("grpc-status-details-bin", rich_status(error).SerializeToString()))
    )


# Each reason that a node refuses with, in the families in which the code raises it.
RAISED = [
    (InputError(R.FIELD_MALFORMED, "no", field="a"), C.INVALID_ARGUMENT),
    (InputError(R.DEADLINE_MISSING, "no", field="grpc-timeout"), C.INVALID_ARGUMENT),
    (InputError(R.BATCH_TOO_LARGE, "no", field="items"), C.INVALID_ARGUMENT),
    (BusyError(R.CLOCK_BACK, "no"), C.UNAVAILABLE),
    (VerificationError(R.SIGNATURE_INVALID, "no", field="record"), C.PERMISSION_DENIED),
    (VerificationError(R.PROOF_OF_POSSESSION, "no", field="enrolments"), C.PERMISSION_DENIED),
    (RefusedError(R.VERSION_GAP, "no", field="record.version"), C.FAILED_PRECONDITION),
    (RefusedError(R.IDENTIFIER_TAKEN, "no", field="record.identifier"), C.ALREADY_EXISTS),
    (RefusedError(R.CLASS_FIELD_NOT_UNIQUE, "no", field="values.serial"), C.ALREADY_EXISTS),
    (RefusedError(R.IDENTIFIER_UNKNOWN, "no", field="record.identifier"), C.NOT_FOUND),
    (RefusedError(R.PREFIX_UNKNOWN, "no", field="prefix"), C.NOT_FOUND),
    (RefusedError(R.NOT_AUTHORITATIVE, "no", field="identifier"), C.NOT_FOUND),
    (RefusedError(R.WRITE_CONFLICT, "no", field="record.version"), C.ABORTED),
    (BusyError(R.OVERLOADED, "no"), C.RESOURCE_EXHAUSTED),
    (BusyError(R.SHUTTING_DOWN, "no"), C.UNAVAILABLE),
    (BusyError(R.INTERNAL, "no"), C.INTERNAL),
    (OutcomeUnknownError(R.OUTCOME_UNKNOWN, "no"), C.UNKNOWN),
]


@pytest.mark.parametrize(
    ("error", "code"), RAISED, ids=lambda x: str(x.reason) if isinstance(x, IdtraceError) else x.name
)
def test_an_error_keeps_its_family_reason_field_and_sentence_on_the_wire(error: IdtraceError, code: C) -> None:
    assert status_of(error) is code
    assert item_error(error) == (code.value[0], str(error.reason), error.field, "no")
    back = there_and_back(error)
    assert back is not None
    assert (type(back), back.reason, back.field, back.detail) == (type(error), error.reason, error.field, error.detail)
    item = error_of(code_name(item_error(error)[0]), error.reason, error.field, error.detail)
    assert type(item) is type(error)


@given(st.sampled_from(Reason), st.text(max_size=300), st.text(max_size=80))
def test_every_reason_any_sentence_and_any_field_come_back(reason: Reason, detail: str, field: str) -> None:
    back = there_and_back(RefusedError(reason, detail, field=field))
    assert back is not None
    assert (back.reason, back.field, back.detail) == (reason, field, detail)


def test_the_details_are_the_ones_that_the_contract_names() -> None:
    status = rich_status(InputError(R.FIELD_MALFORMED, "it is wrong", field="a.b"))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert len(status.details) == 2
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.domain, info.reason) == (ERROR_DOMAIN, "FIELD_MALFORMED")
    assert [(v.field, v.description, v.reason) for v in bad.field_violations] == [
        ("a.b", "it is wrong", "FIELD_MALFORMED")
    ]
    assert len(rich_status(BusyError(R.OVERLOADED, "busy")).details) == 1


@pytest.mark.parametrize(
    "error",
    [InputError(R.FIELD_MALFORMED, "x" * 9_000, field="f"), InputError(R.FIELD_MALFORMED, "x", field="f" * 9_000)],
)
def test_a_long_sentence_or_field_never_grows_the_trailer_beyond_what_clients_take(error: IdtraceError) -> None:
    # grpc refuses metadata above 8 KiB, base64 included, and the client would learn nothing at all.
    assert len(rich_status(error).SerializeToString()) * 4 // 3 + 2_000 < 8_192


def test_errors_of_others_are_nobodys_guess() -> None:
    foreign = any_pb2.Any()
    foreign.Pack(error_details_pb2.ErrorInfo(domain="other.example", reason="FIELD_MALFORMED"))
    unknown = any_pb2.Any()
    unknown.Pack(error_details_pb2.ErrorInfo(domain=ERROR_DOMAIN, reason="FROM_A_NEWER_NODE"))
    empty = any_pb2.Any()
    empty.Pack(error_details_pb2.BadRequest())
    for details in ([], [foreign], [unknown], [empty]):
        status = status_pb2.Status(code=3, details=details)
        assert error_from_rpc(Answered(("grpc-status-details-bin", status.SerializeToString()))) is None
    assert error_from_rpc(Answered()) is None
    assert error_from_rpc(Answered(("grpc-status-details-bin", "text"))) is None
    assert error_from_rpc(grpc.RpcError()) is None


@pytest.mark.parametrize("garbage", [b"\xff", b"\x1a\xff", b"not a status"])
def test_a_lying_servers_details_are_no_error_of_the_client(garbage: bytes) -> None:
    assert error_from_rpc(Answered(("grpc-status-details-bin", garbage))) is None


def test_codes_have_names_and_unknown_ones_are_unknown() -> None:
    assert [code_name(n) for n in (0, 3, 6, 16, 99, -1)] == [
        "OK",
        "INVALID_ARGUMENT",
        "ALREADY_EXISTS",
        "UNAUTHENTICATED",
        "UNKNOWN",
        "UNKNOWN",
    ]
