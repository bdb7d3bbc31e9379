"""What a request to the EPCIS interface says of itself: tokens, media types, versions, and what refusals look like."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from idtrace.epcis.rules import DocumentError, EventError, Fault, Rule
from idtrace.errors import (
    BusyError,
    IdtraceError,
    InputError,
    OutcomeUnknownError,
    Reason,
    RefusedError,
    VerificationError,
)
from registry.capture_jobs import Job, Refusal
from registry.event_http import page_secret
from registry.event_http_access import TOKENS_MAX, Access
from registry.event_http_capture import job_json
from registry.event_http_edge import path_value
from registry.event_http_headers import (
    EXTENSIONS_MAX,
    Form,
    answer_form,
    document_type,
    namespaces,
    require_versions,
    rolls_back,
)
from registry.event_http_problems import Problem, ProblemError, problem_of, query_problem
from registry.event_http_queries import last_place

TOKEN, OTHER = "t" * 32, "a1B2+/-" * 6 + "="
FORMS = (Form.JSON, Form.XML)


def request(path: str = "/events", **headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "headers": named, "raw_path": path.encode(), "path": path})


def refused(error: pytest.ExceptionInfo[ProblemError]) -> Problem:
    return error.value.problem


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form.JSON),
        ("*/*", Form.JSON),
        ("application/json", Form.JSON),
        ("application/xml", Form.XML),
        ("text/xml;charset=utf-8", Form.XML),
        ("application/*", Form.JSON),
        ("text/html, application/xml;q=0.9, */*;q=0.8", Form.XML),
        ("application/xml;q=0.5, application/ld+json;q=0.6", Form.JSON),
        ("application/json;q=0, */*", Form.XML),
        ("APPLICATION/XML", Form.XML),
        ("application/json;q=x, application/xml;q=0.1", Form.XML),
        ("application/json;q=nan, application/xml;q=0.1", Form.XML),
    ],
)
def test_an_answer_is_in_the_form_that_is_liked_best(accept: str, form: Form) -> None:
    assert answer_form(request(accept=accept), FORMS) is form


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "text/event-stream", ",", "*/*;q=0", ";;"])
def test_a_form_that_there_is_not_is_refused(accept: str) -> None:
    with pytest.raises(ProblemError) as error:
        answer_form(request(accept=accept), FORMS)
    assert (refused(error).status, refused(error).members["field"]) == (406, "accept")


def test_a_stream_is_for_those_who_ask_for_one() -> None:
    forms = (*FORMS, Form.STREAM)
    assert answer_form(request(accept="text/event-stream"), forms) is Form.STREAM
    assert answer_form(request(accept="*/*"), forms) is Form.JSON
    with pytest.raises(ProblemError):
        answer_form(request(accept="text/*;q=1"), (Form.STREAM,))


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_header_breaks_the_negotiation(text: str) -> None:
    for read in (lambda one: answer_form(one, FORMS), require_versions, namespaces, rolls_back, document_type):
        names = ("accept", "gs1_epcis_min", "gs1_extensions", "gs1_capture_error_behaviour", "content_type")
        with suppress(ProblemError):
            read(request(**dict.fromkeys(names, text)))


def test_versions_are_two_point_nought_and_nothing_else() -> None:
    require_versions(request(gs1_epcis_version="2.0", gs1_cbv_version="2.0.1", gs1_epcis_min="1.2", gs1_cbv_max="2.1"))
    for name, value in (
        ("gs1_epcis_version", "2.1"),
        ("gs1_epcis_version", "2"),
        ("gs1_cbv_version", ""),
        ("gs1_epcis_min", "2.0.1.1"),
        ("gs1_epcis_min", "3.0"),
        ("gs1_cbv_max", "1.2"),
        ("gs1_epc_format", "always_gs1_digital_link"),
        ("gs1_cbv_xml_format", "Always_Web_URI"),
    ):
        with pytest.raises(ProblemError) as error:
            require_versions(request(**{name: value}))
        assert refused(error).status == 406
        assert refused(error).members["field"] == name.replace("_", "-")


def test_extensions_are_namespaces_by_their_prefixes() -> None:
    listed = "ext=https://ns.example.com/epcis/, b=urn:b:, https://bare.example.com/"
    assert namespaces(request(gs1_extensions=listed)) == {"ext": "https://ns.example.com/epcis/", "b": "urn:b:"}
    assert namespaces(request()) == {}
    many = ", ".join(f"p{number}=urn:x:{number}" for number in range(EXTENSIONS_MAX + 1))
    for wrong in ("1x=urn:a", "a=b c", "x y", many):
        with pytest.raises(ProblemError):
            namespaces(request(gs1_extensions=wrong))


def test_behaviour_and_media_type_are_said_plainly() -> None:
    assert rolls_back(request())
    assert not rolls_back(request(gs1_capture_error_behaviour=" Proceed "))
    assert document_type(request(content_type="application/LD+json; charset=utf-8")) == "application/ld+json"
    for wrong in ({}, {"content_type": "application/json", "content_encoding": "gzip"}):
        with pytest.raises(ProblemError) as error:
            document_type(request(**wrong))
        assert refused(error).status == 415


@pytest.mark.parametrize(
    ("path", "value", "events"),
    [
        ("/epcs/urn:epc:id:sgtin:1.2.3", "urn:epc:id:sgtin:1.2.3", False),
        ("/epcs/https%3A%2F%2Fid.gs1.org%2F01%2F1%2Fevents", "https://id.gs1.org/01/1/events", False),
        ("/epcs/https%3A%2F%2Fid.gs1.org%2F01%2F1%2Fevents/events", "https://id.gs1.org/01/1/events", True),
        ("/epcs/https://id.gs1.org/01/1/events", "https://id.gs1.org/01/1", True),
        ("/bizSteps/%E4%B8%AD", "中", False),
    ],
)
def test_what_a_path_names(path: str, value: str, events: bool) -> None:
    assert path_value(request(path)) == (value, events)


@pytest.mark.parametrize("path", ["/epcs/", "/epcs//events", "/epcs/%ff", "/epcs/\xff"])
def test_a_path_that_names_nothing_is_not_there(path: str) -> None:
    asked = request()
    asked.scope["raw_path"] = path.encode("latin-1")
    with pytest.raises(ProblemError) as error:
        path_value(asked)
    assert refused(error).status == 404


def test_tokens_are_read_from_a_file_and_shown_by_no_error(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# a comment\n\n  {TOKEN}  \n{OTHER}\n")
    file.chmod(0o644)
    with pytest.raises(InputError, match="other users"):
        Access.read(file, reading_open=False)
    file.chmod(0o600)
    access = Access.read(file, reading_open=False)
    for token in (TOKEN, OTHER):
        access.require_reader(request(authorization=f"BEARER {token}"))
    for wrong in ("", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN, f"Bearer {TOKEN} {TOKEN}"):
        with pytest.raises(ProblemError) as error:
            access.require_writer(request(authorization=wrong))
        assert (refused(error).status, TOKEN in refused(error).detail) == (401, False)
    Access.read(file, reading_open=True).require_reader(request())
    nobody = Access.read(None, reading_open=True)
    nobody.require_reader(request())
    with pytest.raises(ProblemError):
        nobody.require_writer(request(authorization=f"Bearer {TOKEN}"))


TOO_MANY = "\n".join(f"{number:040}" for number in range(TOKENS_MAX + 1))
SPACED = "with space in it 0123456789012345\n"


@pytest.mark.parametrize("text", ["", "# none\n", "short\n", "t" * 513, SPACED, "中" * 40, "x" * 70_000, TOO_MANY])
def test_a_file_that_is_no_file_of_tokens_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(InputError) as error:
        Access.read(file, reading_open=True)
    assert error.value.field in {"events.tokens", str(file)}
    assert not text.strip() or text.strip() not in error.value.detail
    with pytest.raises(InputError):
        Access.read(tmp_path / "missing", reading_open=True)


DOCUMENT = DocumentError(Fault(Rule.SIZE, "too many", "epcisBody", "eventList"), field="document")
EVENT = EventError(3, Fault(Rule.SIZE, "too long", "epcisBody", "eventList", 3, "epcList"), field="document")


@pytest.mark.parametrize(
    ("error", "status", "kind", "members"),
    [
        (DOCUMENT, 413, "CaptureLimitExceededException", {"rule": "size", "field": "document.epcisBody.eventList"}),
        (EVENT, 400, "ValidationException", {"rule": "size", "index": 3}),
        (InputError(Reason.BATCH_TOO_LARGE, "x"), 413, "CaptureLimitExceededException", {}),
        (InputError(Reason.FIELD_MISSING, "x", field="a"), 400, "ValidationException", {"field": "a"}),
        (BusyError(Reason.OVERLOADED, "x"), 503, "ImplementationException", {}),
        (OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, "x"), 503, "ImplementationException", {}),
        (RefusedError(Reason.PARTY_SUSPENDED, "x"), 403, "SecurityException", {}),
        (VerificationError(Reason.SIGNATURE_INVALID, "x"), 403, "SecurityException", {}),
        (RefusedError(Reason.JOB_UNKNOWN, "x"), 404, "NoSuchResourceException", {}),
        (RefusedError(Reason.CAPTURE_UNSIGNED, "x"), 501, "ImplementationException", {}),
        (RefusedError(Reason.QUERY_TOO_LARGE, "x"), 413, "QueryTooLargeException", {}),
    ],
)
def test_each_error_is_one_of_the_standards_exceptions(
    error: IdtraceError, status: int, kind: str, members: dict[str, Any]
) -> None:
    problem = problem_of(error)
    body = json.loads(bytes(problem.response().body))
    assert list(body)[:4] == ["type", "title", "status", "detail"]
    assert (body["type"], body["status"]) == (f"epcisException:{kind}", status)
    assert body["reason"] == error.reason
    assert body.items() >= members.items()
    response = problem.response()
    assert response.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in response.headers) == (status == 503)


def test_a_query_that_is_malformed_has_an_exception_of_its_own() -> None:
    body = query_problem(InputError(Reason.FIELD_MALFORMED, "x", field="EQ_x")).body()
    assert (body["type"], body["field"]) == ("epcisException:QueryParameterException", "EQ_x")


def test_a_job_is_told_as_the_standard_has_it() -> None:
    running = job_json(Job("j", 0, True))
    assert (running["running"], running["captureErrorBehaviour"]) == (True, "rollback")
    assert "finishedAt" not in running
    refusals = [
        Refusal(0, 3, "FIELD_MALFORMED", "document.x", "uri", "no URI"),
        Refusal(1, 9, "PARTY_SUSPENDED", "", "", "suspended"),
        Refusal(2, 2, "OUTCOME_UNKNOWN", "", "", "died"),
    ]
    told = job_json(Job("j", 0, False).finished(1_500, events=4, captured=1, errors=refusals))
    assert (told["finishedAt"], told["success"], told["capturedCount"]) == ("1970-01-01T00:00:01.500Z", False, 1)
    kinds = [error["title"] for error in told["errors"]]
    assert kinds == ["ValidationException", "SecurityException", "ImplementationException"]
    assert told["errors"][0].items() >= {"index": 0, "rule": "uri", "field": "document.x"}.items()
    assert "rule" not in told["errors"][1]


def test_the_secret_of_pages_outlives_the_process_and_is_private(tmp_path: Path) -> None:
    file = tmp_path / "event-pages.key"
    secret = page_secret(file)
    assert (len(secret), file.stat().st_mode & 0o777) == (32, 0o600)
    assert page_secret(file) == secret
    assert page_secret(tmp_path / "other") != secret
    for wrong in (b"short", b"x" * 33):
        file.write_bytes(wrong)
        with pytest.raises(InputError):
            page_secret(file)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError):
        page_secret(tmp_path / "folder")


def test_a_place_is_a_number_of_ours() -> None:
    assert (last_place(""), last_place("0"), last_place("4096")) == (None, 0, 4_096)
    for wrong in ("x", "-1", " 1", "1\n", "²", "9" * 19):
        with pytest.raises(ProblemError) as error:
            last_place(wrong)
        assert refused(error).status == 400
