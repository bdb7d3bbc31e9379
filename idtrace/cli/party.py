"""``idtrace party``: licences, which a parent gives to those who report events."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Annotated

import typer

from idtrace.bundle import signed_to_json
from idtrace.cli.client import Node, connect
from idtrace.cli.drafts import Change, Draft, next_version
from idtrace.cli.options import now, output_of
from idtrace.cli.output import Output, pairs, plain
from idtrace.cli.publish import Current, publish
from idtrace.cli.show import level_word, receipt_table, span, utc
from idtrace.cli.signing_options import RecordSigning, grouped
from idtrace.errors import InputError, Reason
from idtrace.identifier import Prefix
from idtrace.party import (
    PARTY_TYPE,
    Location,
    LocationKind,
    Party,
    PartyRole,
    check_place,
    degrees,
    format_party,
    license_identifier,
)
from idtrace.record import SALT_BYTES, TIME_MAX, Permission, RecordBody, Value

app = typer.Typer(help="Licences: who may report what happens to things.", no_args_is_help=True)
# A licence is read by the party's node at most half a minute late, and by resolvers at once.
_TTL_SECONDS = 300


@app.callback()
def _group() -> None:
    """Licences: who may report what happens to things."""


@app.command("license")
@grouped
def license_(
    ctx: typer.Context,
    party: Annotated[str, typer.Argument(metavar="PREFIX", help="The party's zone, such as 88.118.8.")],
    by: RecordSigning,
    zone: Annotated[str, typer.Option("--zone", metavar="PREFIX", help="The parent that licenses it; its key signs.")],
    role: Annotated[
        list[PartyRole], typer.Option("--role", metavar="|".join(PartyRole), help="What it does; repeatable.")
    ],
    name_en: Annotated[str, typer.Option("--name-en", metavar="TEXT", help="Name in English.")],
    valid_from: Annotated[str, typer.Option("--from", metavar="DATE", help="First day (UTC), or an RFC 3339 time.")],
    valid_until: Annotated[
        str, typer.Option("--until", metavar="DATE", help="First day (UTC) on which it no longer counts, or a time.")
    ],
    name_zh: Annotated[str, typer.Option("--name-zh", metavar="TEXT", help="Name in Chinese.")] = "",
    location: Annotated[
        list[str] | None,
        typer.Option(
            "--location",
            metavar="URI[,KIND[,LAT,LON]]",
            help=f"A place of its own, {', '.join(LocationKind)}; repeatable.",
        ),
    ] = None,
) -> None:
    """License a party, or change its licence. What is not named is not in the new version.

    Example: idtrace party license 88.118.8 --zone 88.118 --role maker --name-en "Vaccine Works" --name-zh 疫苗厂
    --location idtrace:88.118.8/site-1,site,31.2304,121.4737 --from 2026-01-01 --until 2031-01-01

    To suspend one: idtrace update 88.118/party/88.118.8 --status suspended
    """
    licensed = Party(
        prefix=str(Prefix.parse(party, field="PREFIX")),
        name_en=name_en,
        name_zh=name_zh,
        roles=frozenset(role),
        locations=tuple(place(text) for text in location or ()),
        valid_from=moment(valid_from, hint="--from"),
        valid_until=moment(valid_until, hint="--until"),
    )
    parent = Prefix.parse(zone, field="--zone")
    if not Prefix.parse(party).strictly_within(parent):
        raise typer.BadParameter(f"{party} does not lie below {zone}", param_hint="--zone")
    with connect(by.node, by.timeout) as peer:
        _publish(output_of(ctx), peer, by, parent, licensed)


def _publish(output: Output, peer: Node, by: RecordSigning, parent: Prefix, party: Party) -> None:
    identifier = license_identifier(parent, Prefix.parse(party.prefix))
    entry = (PARTY_TYPE, format_party(party), Permission.PUBLIC)

    def draft(current: Current | None) -> tuple[RecordBody, tuple[Value, ...]]:
        salts = [secrets.token_bytes(SALT_BYTES)]
        if current is None:
            return Draft(identifier, (entry,), ttl_seconds=_TTL_SECONDS).body(salts, now())
        return next_version(*current, Change(values=(entry,)), salts, now())

    told = publish(peer, by.signer(), by.anchor(), identifier, draft)
    body = told.body
    shown = {"identifier": str(identifier), "version": body.version, "status": body.status, "party": party.prefix}
    output.document({**shown, "receipt": signed_to_json(told.signed), "level": level_word(told.level)})
    rows = [
        ("party", f"{party.prefix}, {plain(party.name_en)} {plain(party.name_zh)}"),
        ("roles", ", ".join(sorted(party.roles))),
        ("places", ", ".join(plain(one.id) for one in party.locations) or "none of its own"),
        ("valid", f"{utc(party.valid_from)} for {span(party.valid_until - party.valid_from)}"),
        ("status", str(body.status)),
    ]
    output.show(receipt_table("licensed", told.receipt, told.level), pairs(rows))


def place(text: str) -> Location:
    """A place as typed: ``URI[,KIND[,LAT,LON]]``; a site where no kind is given.

    Raises:
        InputError: FIELD_MALFORMED or FIELD_TOO_LARGE.
    """
    uri, *rest = text.split(",")
    if len(rest) not in {0, 1, 3}:
        rule = "a place is URI, URI,KIND or URI,KIND,LAT,LON"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="--location")
    kind = rest[0] if rest else LocationKind.SITE
    if kind not in tuple(LocationKind):
        rule = f"the kind of a place is one of {', '.join(LocationKind)}"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="--location")
    lat, lon = (
        (degrees(rest[1], 90, field="--location"), degrees(rest[2], 180, field="--location"))
        if len(rest) == 3
        else (None, None)
    )
    return check_place(Location(uri, LocationKind(kind), lat, lon), field="--location")


def moment(text: str, *, hint: str) -> int:
    """Seconds since the Unix epoch of a day (its beginning in UTC) or an RFC 3339 time.

    Raises:
        typer.BadParameter: no time, no offset, or out of range.
    """
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a day (2026-01-31) nor a time", param_hint=hint) from None
    if found.tzinfo is None:
        if len(text) > len("2026-01-31"):
            raise typer.BadParameter("say which time zone: add Z for UTC", param_hint=hint)
        found = found.replace(tzinfo=dt.UTC)
    seconds = int(found.timestamp())
    if not 0 <= seconds <= TIME_MAX:
        raise typer.BadParameter("the time is out of range", param_hint=hint)
    return seconds
