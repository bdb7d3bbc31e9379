"""Licences: read strictly, written the one way there is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import Prefix
from idtrace.party import (
    LOCATION_ID_MAX,
    LOCATIONS_MAX,
    PARTY_TYPE,
    Location,
    LocationKind,
    PartyRole,
    check_place,
    format_party,
    license_identifier,
    parse_party,
    read_license,
)
from idtrace.record import Record, RecordBody, Status
from tests.capture_fixtures import a_party, a_place, license_record
from tests.nodes import make_record

SITE = a_place("idtrace:88.118.8/site-1", latitude=31.2304, longitude=-121.4737)
VAN = a_place("idtrace:88.118.8/van-1", "vehicle")


def spoilt(**changes: Any) -> bytes:
    body = json.loads(format_party(a_party(locations=(SITE,))))
    for name, value in changes.items():
        if value is None:
            del body[name]
        else:
            body[name] = value
    return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def read(record: Record) -> Any:
    return read_license(record, RecordBody.parse(record.signed.payload))


@given(
    st.sets(st.sampled_from(PartyRole), min_size=1),
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20),
    st.one_of(st.none(), st.tuples(st.integers(-900, 900), st.integers(-1800, 1800))),
    st.sampled_from((LocationKind.SITE, LocationKind.ROOM)),
)
def test_what_is_written_is_read_again(
    roles: set[PartyRole], name: str, at: tuple[int, int] | None, kind: LocationKind
) -> None:
    lat, lon = (at[0] / 10, at[1] / 10) if at else (None, None)
    place = Location("idtrace:88.118.8/site-2", kind, lat, lon)
    party = a_party("88.118.8", *roles, name_zh=name, locations=(place, VAN))
    assert parse_party(format_party(party)) == party


def test_degrees_are_written_without_rounding_and_without_idle_zeros() -> None:
    text = format_party(a_party(locations=(a_place("urn:x:1", latitude=10.0, longitude=0.0), SITE))).decode()
    assert '"lat":"10","lon":"0"' in text
    assert '"lat":"31.2304","lon":"-121.4737"' in text


@pytest.mark.parametrize(
    ("data", "reason", "field"),
    [
        (b"{}", Reason.FIELD_MISSING, "party.name"),
        (b"[]", Reason.FIELD_MALFORMED, "party"),
        (spoilt().replace(b":", b": ", 1), Reason.BODY_NOT_CANONICAL, "party"),
        (b" " * 4_097, Reason.FIELD_TOO_LARGE, "party"),
        (spoilt(more=1), Reason.FIELD_MALFORMED, "party.'more'"),
        (spoilt(name={"en": "x", "zh": "", "fr": ""}), Reason.FIELD_MALFORMED, "party.name.'fr'"),
        (spoilt(name={"en": "", "zh": ""}), Reason.FIELD_MALFORMED, "party.name.en"),
        (spoilt(party=""), Reason.FIELD_MALFORMED, "party.party"),
        (spoilt(party="88.118.8/x"), Reason.IDENTIFIER_MALFORMED, "party.party"),
        (spoilt(roles=[]), Reason.FIELD_MALFORMED, "party.roles"),
        (spoilt(roles=["maker", "maker"]), Reason.FIELD_MALFORMED, "party.roles"),
        (spoilt(roles=["maker", "clinic"]), Reason.FIELD_MALFORMED, "party.roles"),
        (spoilt(roles=["king"]), Reason.FIELD_MALFORMED, "party.roles[0]"),
        (spoilt(valid_until=1_600_000_000), Reason.FIELD_MALFORMED, "party.valid_until"),
        (spoilt(valid_from=None), Reason.FIELD_MISSING, "party.valid_from"),
        (spoilt(locations=[{"id": "a:b", "kind": "site"}] * 2), Reason.FIELD_MALFORMED, "party.locations"),
        (spoilt(locations=[{"id": "x", "kind": "site"}]), Reason.FIELD_MALFORMED, "party.locations[0].id"),
        (spoilt(locations=[{"id": "a:b c", "kind": "site"}]), Reason.FIELD_MALFORMED, "party.locations[0].id"),
        (spoilt(locations=[{"id": "a:" + "b" * 254, "kind": "site"}]), Reason.FIELD_TOO_LARGE, "party.locations[0].id"),
        (spoilt(locations=[{"id": "a:b", "kind": "moon"}]), Reason.FIELD_MALFORMED, "party.locations[0].kind"),
        (spoilt(locations=[{"id": "a:b", "kind": "site", "lat": "1"}]), Reason.FIELD_MALFORMED, "party.locations[0]"),
        (
            spoilt(locations=[{"id": "a:b", "kind": "site", "lat": "90.1", "lon": "1"}]),
            Reason.FIELD_MALFORMED,
            "party.locations[0].lat",
        ),
        (
            spoilt(locations=[{"id": "a:b", "kind": "site", "lat": "1", "lon": "01"}]),
            Reason.FIELD_MALFORMED,
            "party.locations[0].lon",
        ),
        (
            spoilt(locations=[{"id": "a:b", "kind": "vehicle", "lat": "1", "lon": "1"}]),
            Reason.FIELD_MALFORMED,
            "party.locations[0]",
        ),
        (
            spoilt(locations=[{"id": f"a:{n}", "kind": "site"} for n in range(LOCATIONS_MAX + 1)]),
            Reason.FIELD_TOO_LARGE,
            "party.locations",
        ),
    ],
)
def test_a_licence_that_breaks_a_rule_is_refused_with_field_and_rule(data: bytes, reason: Reason, field: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_party(data)
    assert (refused.value.reason, refused.value.field) == (reason, field)


def test_what_could_not_be_read_is_not_written() -> None:
    with pytest.raises(InputError):
        format_party(a_party(roles=frozenset()))
    with pytest.raises(InputError):
        format_party(a_party(locations=(a_place("x:1", latitude=1.0),)))
    far = a_party(locations=(a_place("x:" + "y" * 255),))
    with pytest.raises(InputError):
        format_party(far)


def test_a_place_as_typed_is_held_to_the_same_rules() -> None:
    assert check_place(VAN) is VAN
    with pytest.raises(InputError) as refused:
        check_place(a_place("x:" + "y" * LOCATION_ID_MAX))
    assert refused.value.reason is Reason.FIELD_TOO_LARGE


def test_the_licence_of_a_record_has_its_status_and_its_name() -> None:
    party = a_party(locations=(SITE,))
    licence = read(license_record("88.118", party))
    assert (licence.active, licence.evidence) == (True, "88.118/party/88.118.8")
    assert license_identifier(Prefix.parse("88.118"), Prefix.parse("88.118.8")).suffix == "party/88.118.8"
    suspended = license_record("88.118", party, previous=license_record("88.118", party), status=Status.SUSPENDED)
    assert not read(suspended).active


def test_a_record_licenses_only_the_party_that_it_is_named_after() -> None:
    other = make_record("88.118/party/88.118.9", {PARTY_TYPE: format_party(a_party()).decode()})
    with pytest.raises(VerificationError) as refused:
        read(other)
    assert refused.value.reason is Reason.RECORD_WRONG_IDENTIFIER
    with pytest.raises(InputError):
        read(make_record("88.118/party/88.118.8", {"name": "no licence"}))
