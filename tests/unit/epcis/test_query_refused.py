"""What is no query is refused by the name of its parameter, however hostile; nothing is guessed and nothing hangs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.epcis.query import Query, matches, parse
from idtrace.errors import InputError, Reason
from tests.unit.epcis.events import ONE
from tests.unit.epcis.test_query_parameters import event, sensed

MALFORMED, LARGE = Reason.FIELD_MALFORMED, Reason.FIELD_TOO_LARGE
TIMES = ("GE_eventTime", "LT_recordTime", "GE_errorDeclarationTime", "LT_startTime", "GE_SENSORREPORT_time")


def refused(parameters: dict[str, Any], field: str, reason: Reason = MALFORMED, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        parse(parameters, **options)
    assert (caught.value.reason, caught.value.field) == (reason, field), caught.value
    return caught.value


@pytest.mark.parametrize(
    "name",
    [
        *("bizStep", "EQ_", "EQ", "_", "EQ_nothing", "eq_bizStep", "EQ_bizstep", "EQ_recordTime", "GT_eventTime"),
        *("LE_recordTime", "MATCH_bizStep", "WD_disposition", "EXISTS_epcList", "HASATTR_epc", "HASATTR_", "EQATTR_"),
        *("EQATTR_readPoint", "EQATTR_readPoint_", "EQATTR_ext:crew", "GE_value_celsius", "GE_value", "GE_deviceID"),
        *("EQ_SENSORREPORT_startTime", "GE_SENSORREPORT_startTime", "EQ_SENSORMETADATA_value_CEL", "MATCH_quantity"),
        *("EQ_SENSORMETADATA_type", "EQ_bizTransaction", "EQ_source", "EQ_INNER_crew", "EQ_:crew", "EQ_#crew"),
        *("NEAR_ext:crew", "EXISTS_quantity", "EQ_ILMD_lot", "EQ_quantity_kg", "GE_percRank_CEL", "EQ_time"),
        *("EQ_ext:", "EQATTR_crew_size", "MATCH_epc ", "\x1b[31m"),
    ],
)
def test_an_unknown_parameter_is_named(name: str) -> None:
    shown = "\\x1b[31m" if name == "\x1b[31m" else name
    assert "no query parameter" in refused({name: "1"}, shown).detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "yesterday") for name in TIMES),
        *((name, ["2026-07-22T10:30:00Z", "2026-07-22T10:30:00Z"]) for name in TIMES),
        *((name, []) for name in TIMES),
        *(("GE_eventTime", bad) for bad in ("2026-07-22", "2026-13-01T00:00:00Z", "2026-07-22T10:30:00", "", 7, True)),
        ("eventType", ["QuantityEvent"]),
        ("EQ_action", ["add"]),
        ("EQ_bizStep", ["walking"]),
        ("EQ_bizStep", ["urn:epcglobal:cbv:bizstep:walking"]),
        ("EQ_disposition", [None]),
        ("EQ_disposition", [["active"]]),
        ("EQ_disposition", {"active": 1}),
        ("EQ_disposition", b"active"),
        ("EQ_bizTransaction_walk", ["https://example.com/po/1"]),
        ("MATCH_epc", []),
        ("MATCH_epc", ["", ONE]),
        ("MATCH_epc", f"{ONE}|"),
        ("MATCH_epc", [ONE, "urn:x:\ud800"]),
        ("EXISTS_errorDeclaration", "false"),
        ("EXISTS_ext:crew", 0),
        ("GE_quantity", [1, 2]),
        *(
            ("GE_quantity", bad)
            for bad in ("many", "", "1e999", "NaN", "Infinity", "1" * 31, "1e31", float("nan"), "\u0661")
        ),
        ("GE_value_CEL", ["8", "9"]),
        ("EQ_value_CEL", ["8", "x"]),
        ("GE_percRank", ["1", "2"]),
        ("EQ_booleanValue", "yes"),
        ("EQ_booleanValue", ["true", "false"]),
        ("orderBy", "bizStep"),
        ("perPage", 0),
        ("perPage", "-1"),
        ("perPage", "1.5"),
        ("perPage", 10**9),
        ("maxEventCount", "all"),
        ("eventCountLimit", ["1", "2"]),
    ],
)
def test_a_malformed_value_is_refused_by_its_parameter(name: str, value: Any) -> None:
    refused({name: value}, name)


@pytest.mark.parametrize("value", ["asc", "DOWN", ""])
def test_a_direction_is_one_of_two(value: str) -> None:
    refused({"orderBy": "eventTime", "orderDirection": value}, "orderDirection")


def test_controls_are_read_and_held_to_each_other() -> None:
    query = parse({"orderBy": "eventTime", "eventCountLimit": ["5"], "perPage": 30, "nextPageToken": "t"})
    assert query == Query(order_by="eventTime", descending=True, event_count_limit=5, per_page=30, next_page_token="t")
    assert parse({"orderBy": "recordTime", "orderDirection": "ASC", "maxEventCount": "9"}) == Query(
        order_by="recordTime", max_event_count=9
    )
    refused({"orderDirection": "ASC"}, "orderDirection")
    refused({"eventCountLimit": 1, "maxEventCount": 1}, "eventCountLimit")


def test_a_flood_is_refused_before_it_is_read() -> None:
    refused({"MATCH_epc": [ONE] * 10_000}, "MATCH_epc", LARGE)
    refused({"MATCH_epc": "|".join([ONE] * 10_000)}, "MATCH_epc", LARGE)
    refused({"MATCH_epc": ["x" * 2_049]}, "MATCH_epc", LARGE)
    refused({"GE_quantity": 10**4_000}, "GE_quantity", LARGE)
    refused({"MATCH_epc": [ONE] * 600, "MATCH_anyEPC": [ONE] * 600}, "MATCH_anyEPC", LARGE)
    refused({f"EQ_source_urn:x:{n}": "x:y" for n in range(65)}, "query", LARGE)
    refused({f"EQ_ext:f{n}": "1" for n in range(17)}, "EQ_ext:f16", LARGE)
    refused({"nextPageToken": "x" * 2_049}, "nextPageToken", LARGE)
    long = refused({"EQ_" + "x" * 1_000_000: "1"}, refused_name("EQ_" + "x" * 1_000_000), LARGE)
    assert len(long.field) < 100
    refused({"": "1"}, "", LARGE)
    assert parse({"MATCH_epc": [ONE] * 1_000})


def refused_name(name: str) -> str:
    return name[:79] + "…"


def test_a_context_that_is_none_is_refused() -> None:
    refused({"@context": "https://example.com/context.jsonld"}, "@context")
    refused({}, "@context", namespaces={"ex": "no namespace"})
    refused({}, "@context", namespaces={"urn": "https://example.com/"})


def test_numbers_of_a_body_are_compared_as_they_are_written() -> None:
    for value in (5.5, Decimal("5.5"), "5.5", "+5.50", "55e-1"):
        assert matches(parse({"EQ_value_CEL": value}), sensed(value=5.5, uom="CEL"), 0)
    assert matches(parse({"EQ_value_CEL": [".5"]}), sensed(value=0.5, uom="CEL"), 0)


WORDS = (
    *("EQ", "GE", "LT", "GT", "LE", "MATCH", "WD", "EXISTS", "HASATTR", "EQATTR", "INNER", "ILMD", "SENSORREPORT"),
    *("ext:a", "urn:x#y", "epc", "anyEPC", "readPoint", "value", "CEL", "time", "quantity", "deviceID", "bizStep"),
    *("source", "possessing_party", "eventTime"),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.decimals()
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
NAMES = st.one_of(
    st.text(max_size=20),
    st.builds(
        "_".join,
        st.lists(
            st.sampled_from(WORDS),
            min_size=1,
            max_size=4,
        ),
    ),
)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_whatever_comes_is_a_query_or_refused_by_name(parameters: dict[str, Any]) -> None:
    try:
        query = parse(parameters)
    except InputError as error:
        refusal: InputError | None = error
    else:
        refusal = None
        for one in (event(), sensed(value=1, uom="CEL"), event("TransformationEvent", **{"ext:a": [{"ext:b": 1}]})):
            assert matches(query, one, 0) in {True, False}
    assert refusal is None or refusal.reason in {MALFORMED, LARGE}
