"""EPCIS over HTTP at a real node: what others wrote is captured, found again equal, and refused where it is wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from jsonschema import Draft7Validator

from idtrace.epcis.hash import event_hash
from idtrace.epcis.parse import read_document
from idtrace.epcis.write import event_bytes
from idtrace.epcis.xml_in import read_document as read_xml
from idtrace.epcis.xml_out import document_xml
from registry.capturing import Capturing
from tests.capture_fixtures import XML, observed
from tests.event_http_fixtures import JSON_LD, Site, epcis_site, events_in
from tests.integration.test_epcis_schema import by_the_schema
from tests.integration.test_epcis_schema import schema as gs1_schema
from tests.shared_data import shared_data
from tests.unit.epcis.events import document, plain

__all__ = ["gs1_schema"]  # a fixture


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with epcis_site(tmp_path) as opened:
        yield opened


def hashes(value: dict[str, Any]) -> Counter[str]:
    """Event hashes of a document or a bare event."""
    if "epcisBody" not in value:
        return Counter([event_hash(value)])
    body = value["epcisBody"]
    events = body["eventList"] if "eventList" in body else events_in(value)
    return Counter(event_hash(one, context=value["@context"]) for one in events)


async def hashes_in_xml(site: Site) -> Counter[str]:
    """Event hashes of all events as XML tells them."""
    found: Counter[str] = Counter()
    answer = await site.client.get("/events", params={"perPage": 7}, headers={"accept": "application/xml"})
    while True:
        assert answer.status_code == 200, answer.text
        found += Counter(event_hash(event.raw) for event in read_xml(answer.content, capture=False).events)
        if "next" not in answer.links:
            return found
        answer = await site.client.get(answer.links["next"]["url"], headers={"accept": "application/xml"})


async def test_every_document_that_others_wrote_comes_back_equal_and_every_invalid_one_is_refused(
    site: Site, record_property: Callable[[str, object], None]
) -> None:
    folder = shared_data("epcis")
    sent: Counter[str] = Counter()
    statements: set[bytes] = set()
    accepted: list[str] = []
    twice: list[str] = []
    for path in [*sorted(folder.glob("documents/*.json")), *sorted(folder.glob("query/*.json"))]:
        data = path.read_bytes()
        job = await site.captured(data)
        if not job["success"]:
            assert {error["rule"] for error in job["errors"]} == {"sensor-attribute-twice"}, (path.name, job["errors"])
            twice.append(path.name)
            continue
        accepted.append(path.name)
        sent += hashes(json.loads(data))
        statements |= {event_bytes(event) for event in read_document(data).events}
    # Conformance test TCR-53, step 29: what stands in the metadata and in a report as well is refused.
    all_fields = ["AssociationEvent_all_possible_fields.json", "ObjectEvent_all_possible_fields.json"]
    assert twice == [*all_fields, "JumbledFieldsOrder.json"]
    bare = sorted(folder.glob("events/*.json"))
    for path in bare:
        answer = await site.post("/events", path.read_bytes())
        assert answer.status_code == 201, (path.name, answer.text)
        value = json.loads(path.read_bytes())
        assert hashes((await site.client.get(answer.headers["location"])).json()) == hashes(value), path.name
        sent += hashes(value)
        statements |= {event_bytes(event) for event in read_document(path.read_bytes()).events}
    invalid = sorted(folder.glob("invalid/*.json"))
    for path in invalid:
        job = await site.captured(path.read_bytes())
        assert (job["success"], job["capturedCount"]) == (False, 0), path.name
        told = [error for error in job["errors"] if error["reason"] != "ROLLED_BACK"]
        assert all(error["type"] == "epcisException:ValidationException" for error in told)
        assert all(error["rule"] and error["field"].startswith("document.epcisBody.eventList[") for error in told)
        assert told, path.name
    events = await site.all_events("/events", perPage=7)
    assert all("recordTime" in one for one in events)
    found = Counter(event_hash(one, context=[]) for one in events)
    assert found.keys() == sent.keys()
    assert len(events) == len(statements)
    assert await hashes_in_xml(site) == found
    told_counts = (
        f"{len(accepted)} documents and {len(bare)} bare events accepted, {len(events)} events found again equal; "
        f"refused: {len(invalid)} invalid documents of {len(invalid)}, {len(twice)} by TCR-53"
    )
    record_property("EPCIS over HTTP", told_counts)
    assert (len(accepted), len(bare), len(invalid)) == (21, 3, 8)


async def test_what_comes_in_as_xml_goes_out_as_json_and_the_other_way_round(site: Site) -> None:
    job = await site.captured(XML, "application/xml; charset=utf-8")
    assert (job["success"], job["eventCount"]) == (True, 1)
    expected = event_hash(read_xml(XML).events[0].raw)
    (event,) = await site.all_events("/events")
    assert event_hash(event, context=[]) == expected
    answer = await site.client.get("/events", headers={"accept": "application/xml"})
    assert answer.headers["content-type"].startswith("application/xml")
    (back,) = read_xml(answer.content, capture=False).events
    assert event_hash(back.raw) == expected
    again = await site.post("/capture", document_xml([back], 0), "text/xml")
    assert again.status_code == 202
    single = await site.post("/events", document(observed(1)))  # a document of one event is one event
    assert single.status_code == 201
    shown = await site.client.get(single.headers["location"], headers={"accept": "application/xml"})
    assert len(read_xml(shown.content, capture=False).events) == 1


async def test_a_document_that_is_posted_twice_is_kept_once(site: Site) -> None:
    twice = document(observed(1), observed(2))
    for _ in range(2):
        job = await site.captured(twice)
        assert (job["success"], job["eventCount"], job["capturedCount"]) == (True, 2, 2)
    assert len(await site.all_events("/events")) == 2
    first, second = [await site.post("/events", observed(1)) for _ in range(2)]
    assert first.status_code == second.status_code == 201
    assert first.headers["location"] == second.headers["location"]
    assert len(await site.all_events("/events")) == 2


async def test_one_bad_event_is_everybodys_fault_or_its_own_as_the_header_says(site: Site) -> None:
    broken = document(observed(1), {"type": "ObjectEvent"}, observed(2))
    job = await site.captured(broken)
    assert (job["success"], job["captureErrorBehaviour"], job["capturedCount"]) == (False, "rollback", 0)
    assert await site.all_events("/events") == []
    job = await site.captured(broken, **{"gs1-capture-error-behaviour": "proceed"})
    assert (job["success"], job["captureErrorBehaviour"], job["capturedCount"]) == (False, "proceed", 2)
    (error,) = job["errors"]
    assert (error["index"], error["type"]) == (1, "epcisException:ValidationException")
    assert error["field"].startswith("document.epcisBody.eventList[1]")
    assert error["rule"]
    assert len(await site.all_events("/events")) == 2


async def test_a_document_that_is_broken_as_a_whole_is_refused_at_once_with_rule_and_path(site: Site) -> None:
    for data, rule in (
        (b"{", "json"),
        (json.dumps(document() | {"schemaVersion": "1.2"}).encode(), "schema-version"),
        (b"[" * 2_000, "nesting"),
    ):
        answer = await site.post("/capture", data)
        told = answer.json()
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert (told["type"], told["status"], told["rule"]) == ("epcisException:ValidationException", 400, rule)
        assert told["field"].startswith("document")
    assert (await site.client.get("/capture")).json() == []


async def test_events_are_found_by_what_they_name_and_by_their_identifier(site: Site) -> None:
    await site.captured(document(*(plain(kind) | {"eventTimeZoneOffset": "+00:00"} for kind in KINDS)))
    box, thing = "urn:epc:id:sscc:4012345.1234567890", "idtrace:88.118.8/SN-2"
    for name, value, count in (
        ("eventTypes", "ObjectEvent", 1),
        ("epcs", thing, 1),
        ("epcs", box, 2),
        ("bizSteps", "packing", 1),
        ("bizSteps", "urn:epcglobal:cbv:bizstep:packing", 1),
        ("bizSteps", "shipping", 0),
    ):
        path = f"/{name}/{quote(value, safe='')}"
        resource = await site.client.get(path)
        assert resource.json()["@set"] == ["events"]
        assert len(await site.all_events(f"{path}/events")) == count, path
    # unencoded slashes are understood too
    assert len(await site.all_events(f"/epcs/{thing}/events")) == 1
    assert len(await site.all_events(f"/epcs/{quote(box, safe='')}/events", EQ_bizStep="packing")) == 1
    assert await site.all_events(f"/epcs/{quote(box, safe='')}/events", MATCH_anyEPC=thing) == []
    assert (await site.client.get("/eventTypes")).json()["member"] == [
        *("ObjectEvent", "AggregationEvent", "AssociationEvent", "TransactionEvent", "TransformationEvent")
    ]
    assert (await site.client.get("/bizSteps")).json()["member"] == ["commissioning", "packing"]
    epcs = (await site.client.get("/epcs")).json()["member"]
    assert thing in epcs
    assert box in epcs
    paged: list[str] = []
    answer = await site.client.get("/epcs", params={"perPage": 1})
    while True:
        paged += answer.json()["member"]
        if "next" not in answer.links:
            break
        answer = await site.client.get(answer.links["next"]["url"])
    assert paged == epcs
    assert (await site.client.get("/eventTypes/OtherEvent/events")).status_code == 404


KINDS = ("ObjectEvent", "AggregationEvent", "AssociationEvent", "TransactionEvent", "TransformationEvent")


async def test_an_event_is_found_by_its_event_id_and_an_error_declaration_is_never_hidden(site: Site) -> None:
    named = observed(1) | {"eventID": "urn:uuid:8e1b3f0c-1111-4222-8333-123456789abc"}
    path = f"/events/{quote(named['eventID'], safe='')}"
    assert (await site.client.get(path)).status_code == 404
    await site.captured(document(named))
    shown = await site.client.get(path)
    assert shown.json()["eventID"] == named["eventID"]
    assert "link" not in shown.headers
    declared = {"declarationTime": "2026-07-23T00:00:00Z", "reason": "did_not_occur"}
    await site.captured(document(named | {"errorDeclaration": declared}))
    taken_back = await site.client.get(path)
    assert taken_back.json()["errorDeclaration"]["reason"] == "did_not_occur"
    related = taken_back.links["related"]["url"]
    assert len(await site.all_events(related)) == 2
    assert (await site.client.get("/events/88.118%2Fevent%2F" + "0" * 64)).status_code == 404
    assert len(read_document((await site.client.get(path)).content, capture=False).events) == 1


async def test_wrong_parameters_are_refused_by_their_names(site: Site) -> None:
    for parameters, field in (
        ({"EQ_bizstep": "packing"}, "EQ_bizstep"),
        ({"GE_eventTime": "yesterday"}, "GE_eventTime"),
        ({"perPage": "0"}, "perPage"),
        ({"perPage": "1001"}, "perPage"),
        ({"nextPageToken": "x"}, "nextPageToken"),
        ({"maxEventCount": "1", "eventCountLimit": "1"}, "eventCountLimit"),
    ):
        answer = await site.client.get("/events", params=parameters)
        told = answer.json()
        assert (answer.status_code, told["type"]) == (400, "epcisException:QueryParameterException"), parameters
        assert told["field"] == field
    await site.captured(document(observed(1), observed(2)))
    large = await site.client.get("/events", params={"maxEventCount": 1})
    assert (large.status_code, large.json()["type"]) == (413, "epcisException:QueryTooLargeException")
    assert len(await site.all_events("/events", eventCountLimit=1)) == 1
    long = await site.client.get("/events", params={"EQ_eventID": "x" * 9_000})
    assert (long.status_code, long.json()["type"]) == (414, "epcisException:QueryTooComplexException")
    not_text = await site.client.get("/events?EQ_bizStep=%ff")
    assert (not_text.status_code, not_text.json()["type"]) == (400, "epcisException:QueryParameterException")


async def test_the_interface_says_what_it_speaks_and_refuses_the_rest(site: Site) -> None:
    for path in ("/", "/capture", "/events", "/queries", "/epcs/x", "/nextPageToken/x"):
        told = await site.client.request("OPTIONS", path, headers={"authorization": ""})
        assert told.status_code == 204
        assert (told.headers["gs1-epcis-version"], told.headers["gs1-cbv-version"]) == ("2.0", "2.0")
        assert "OPTIONS" in told.headers["allow"]
    capture = await site.client.request("OPTIONS", "/capture")
    assert capture.headers["gs1-epcis-capture-limit"] == "2000"
    assert capture.headers["gs1-epcis-capture-file-size-limit"] == str(8 * 1024 * 1024)
    assert capture.headers["gs1-capture-error-behaviour"] == "rollback"
    asked = {
        "gs1-epcis-version": "1.2",
        "gs1-cbv-min": "2.1",
        "gs1-epcis-max": "1.9",
        "gs1-epc-format": "Always_EPC_URN",
        "accept": "text/html",
    }
    for name, value in asked.items():
        answer = await site.client.get("/events", headers={name: value})
        assert (answer.status_code, answer.json()["type"]) == (406, "epcisException:NotAcceptableException"), name
    assert (await site.client.put("/events")).status_code == 405
    assert (await site.client.put("/events")).json()["type"] == "epcisException:ImplementationException"
    assert (await site.client.get("/nothing")).json()["type"] == "epcisException:NoSuchResourceException"
    strange = await site.post("/capture", b"a,b", "text/csv")
    assert (strange.status_code, strange.json()["type"]) == (415, "epcisException:UnsupportedMediaTypeException")
    behaviour = await site.post("/capture", b"{}", JSON_LD, **{"gs1-capture-error-behaviour": "guess"})
    assert (behaviour.status_code, behaviour.json()["field"]) == (400, "gs1-capture-error-behaviour")
    unknown = await site.client.get("/capture/nothing")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "epcisException:NoSuchResourceException")


async def test_what_xml_cannot_say_is_refused_and_never_left_out(site: Site) -> None:
    await site.captured(document(observed(1), observed(2, **{"urn:example:note": "a\u0001b"})))
    assert len(await site.all_events("/events")) == 2
    answer = await site.client.get("/events", headers={"accept": "application/xml"})
    assert (answer.status_code, answer.json()["type"]) == (406, "epcisException:NotAcceptableException")
    for wrong in ("0", "x"):
        jobs = await site.client.get("/capture", params={"perPage": wrong})
        assert (jobs.status_code, jobs.json()["type"]) == (400, "epcisException:QueryParameterException")


async def test_the_root_tells_what_there_is_and_events_are_posted_one_by_one(site: Site) -> None:
    told = (await site.client.get("/")).json()["@set"]
    assert set(told) >= {"capture", "events", "queries", "epcs", "bizSteps", "readPoints"}
    for value in (document(observed(1), observed(2)), document()):
        answer = await site.post("/events", value)
        assert (answer.status_code, answer.json()["type"]) == (400, "epcisException:ValidationException")
    wrong = await site.post("/events", observed(1, bizStep="guessing"))
    assert (wrong.status_code, wrong.json()["rule"]) == (400, "vocabulary")
    assert wrong.json()["field"] == "document.bizStep"
    assert await site.all_events("/events") == []


async def test_what_could_not_be_looked_through_is_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.captured(document(*(observed(number) for number in range(4)), observed(5, eventID="urn:x:last")))
    assert "warning" not in (await site.client.get("/bizSteps")).headers
    monkeypatch.setattr("registry.event_values.GATHERED_MAX", 0)
    assert "not all" in (await site.client.get("/bizSteps")).headers["warning"]
    monkeypatch.setattr("registry.event_http_events.PER_PAGE_MAX", 2)
    monkeypatch.setattr("registry.event_http_events.LOOKED_THROUGH_MAX", 1)
    monkeypatch.setattr("registry.event_query.LOOKED_MAX", 2)
    answer = await site.client.get("/events/urn:x:last")
    assert (answer.status_code, answer.json()["type"]) == (413, "epcisException:QueryTooLargeException")


async def test_a_job_that_fails_within_ends_as_unknown_and_the_node_lives(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: Capturing, *parts: Any, **more: Any) -> Any:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(Capturing, "_pieces", fails)
        job = await site.captured(document(observed(1)))
    assert (job["success"], job["errors"][0]["reason"]) == (False, "OUTCOME_UNKNOWN")
    assert (await site.captured(document(observed(1))))["success"]


async def test_what_is_answered_is_valid_by_the_schema_of_gs1(site: Site, request: pytest.FixtureRequest) -> None:
    schema: Draft7Validator = request.getfixturevalue("gs1_schema")
    for path in sorted(shared_data("epcis").glob("documents/*.json")):
        await site.captured(path.read_bytes())
    answer = (await site.client.get("/events", params={"perPage": 100})).json()
    assert len(events_in(answer)) > 15
    assert [error.message for error in schema.iter_errors(by_the_schema(answer))] == []
    assert list(schema.iter_errors(by_the_schema(answer | {"epcisBody": {}})))


async def test_the_way_to_the_next_page_is_open_however_long_the_query_was(site: Site) -> None:
    await site.captured(document(observed(1), observed(2)))
    things = [f"idtrace:88.118.8/SN-{number}" for number in (1, 2, *range(1_000_000, 1_000_230))]
    pages = await site.pages("/events", perPage=1, MATCH_epc="|".join(things))
    assert [len(page) for page in pages if page] == [1, 1]
