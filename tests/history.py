"""One history of a registry as bytes: what everybody sends, in order, and whether it has to be taken or refused.

Made before anything is played, from fixed keys and a given clock, so that two nodes with the same keys and the same
clock get the very same requests. The tree is ``root → 88`` with three children of 88: 88.1 is hosted, 88.2 applies, is
reviewed and has a node of its own (which nobody runs), 88.3 is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message

from idtrace import wire
from idtrace.delegation import Delegation, Role, State, ZoneKey
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Permission, Record, RecordBody, RecordKind, Status, build_values
from idtrace.signature import Kind, Signed, sign
from idtrace.statements import Application, Command, PrefixStatus, enrol
from idtrace.template import FieldType, Template, TemplateField
from idtrace.v1 import delegation_pb2, registry_pb2
from tests.core_fixtures import NOW, delegate, delegation, public, salts, signer, zone_keys

REGISTRY, DELEGATION = "idtrace.v1.RegistryService", "idtrace.v1.DelegationService"
# More than the sequencer puts into one commit, so that a batch of a caller is several of the node's.
BATCH_ITEMS = 300
OK = ""


@dataclass(frozen=True)
class Step:
    """One call. ``expected`` is the reason of its refusal, or of each item's of a batch, "" for none.

    ``adopted``: before the next step, node 88 has to hold this version of its own delegation.
    """

    name: str
    at: int
    node: str
    method: str
    request: bytes
    expected: str | tuple[str, ...] = OK
    adopted: int = 0


@dataclass
class History:
    """Collects steps; each is a second later than the one before."""

    steps: list[Step] = field(default_factory=list)
    bodies: dict[str, Delegation] = field(default_factory=dict)

    @property
    def now(self) -> int:
        return NOW + len(self.steps)

    def call(
        self,
        name: str,
        method: str,
        request: Message,
        expected: str | tuple[str, ...] = OK,
        *,
        node: str = "88",
        adopted: int = 0,
    ) -> None:
        data = request.SerializeToString(deterministic=True)
        self.steps.append(Step(name, self.now, node, method, data, expected, adopted))

    # --- Records

    def record(self, identifier: str, values: dict[str, str] | None = None, *, by: str = "", **changes: Any) -> Record:
        """A record by its zone's key; ``restricted`` names values, ``previous`` is the version before."""
        restricted = changes.pop("restricted", ())
        previous: Record | None = changes.pop("previous", None)
        previous_hash = changes.pop("previous_hash", previous.hash if previous else b"")
        kept = changes.pop("kept", None)
        entries = [
            (name, data.encode(), Permission.RESTRICTED if name in restricted else Permission.PUBLIC)
            for name, data in (values or {}).items()
        ]
        digests, shown = build_values(entries, salts())
        parsed = Identifier.parse(identifier)
        body = RecordBody(
            identifier=parsed,
            version=RecordBody.parse(previous.signed.payload).version + 1 if previous else 1,
            previous=previous_hash,
            kind=RecordKind.ITEM,
            status=Status.ACTIVE,
            issued_at=self.now,
            ttl_seconds=60,
            class_id=None,
            values=digests if kept is None else kept,
        )
        signed = sign(Kind.RECORD, replace(body, **changes).payload(), signer(by or f"record of {parsed.prefix}"))
        return Record(signed, shown)

    def write(self, method: str, record: Record, key: str, expected: str = OK) -> Record:
        request = {
            "Register": registry_pb2.RegisterRequest,
            "Update": registry_pb2.UpdateRequest,
            "Retire": registry_pb2.RetireRequest,
        }[method](idempotency_key=key, record=wire.record_to_pb(record))
        self.call(f"{method} {key}", f"/{REGISTRY}/{method}", request, expected)
        return record

    def batch(self, name: str, items: Iterable[tuple[str, Record, str]]) -> None:
        """Items: idempotency key, record, expected reason."""
        known = list(items)
        request = registry_pb2.RegisterBatchRequest(
            items=[
                registry_pb2.RegisterRequest(idempotency_key=key, record=wire.record_to_pb(record))
                for key, record, _ in known
            ]
        )
        self.call(name, f"/{REGISTRY}/RegisterBatch", request, tuple(expected for _, _, expected in known))

    # --- Prefixes

    def apply(self, prefix: str, key: str, expected: str = OK, **changes: Any) -> None:
        body = Application(Prefix.parse(prefix), False, ("child.example:7001",), "Ann", self.now)
        name = f"zone of {prefix}"
        request = registry_pb2.ApplyPrefixRequest(
            idempotency_key=key,
            application=wire.signed_to_pb(sign(Kind.APPLICATION, replace(body, **changes).payload(), signer(name))),
            enrolments=[wire.signed_to_pb(enrol(signer(name), Prefix.parse(prefix), Role.ZONE))],
        )
        self.call(f"apply {key}", f"/{REGISTRY}/ApplyPrefix", request, expected)

    def move(self, prefix: str, status: PrefixStatus, key: str, expected: str = OK, *, age: int = 0) -> None:
        body = Command(Prefix.parse(prefix), status, f"to {status}", self.now - age)
        signed = sign(Kind.COMMAND, body.payload(), signer("zone of 88"))
        request = registry_pb2.SetPrefixStatusRequest(idempotency_key=key, command=wire.signed_to_pb(signed))
        self.call(f"move {key}", f"/{REGISTRY}/SetPrefixStatus", request, expected)

    def hand_out(
        self,
        zone: str,
        key: str,
        expected: str = OK,
        *,
        host: str = "",
        extra: str = "",
        by: tuple[str, ...] = (),
        proofs: bool = True,
        **changes: Any,
    ) -> None:
        """The next version of a delegation: ``host`` names the zone whose node key serves it, ``extra`` a new key."""
        before = self.bodies.get(zone)
        keys = [k for k in zone_keys(zone) if not host or Role.NODE not in k.roles]
        names = {public(f"{role} of {zone}"): f"{role} of {zone}" for role in Role}
        if host:
            keys.append(ZoneKey(public(f"node of {host}"), frozenset({Role.NODE})))
            names[public(f"node of {host}")] = f"node of {host}"
        if extra:
            keys.append(ZoneKey(public(extra), frozenset({Role.RECORD})))
            names[public(extra)] = extra
        fields: dict[str, Any] = {
            "version": before.version + 1 if before else 1,
            "previous": before.hash if before else b"",
            "hosted": bool(host),
            "keys": tuple(keys),
            "issued_at": self.now,
        }
        body = delegation(zone, **(fields | changes))
        signed = delegate(body, *by)
        enrolments = [
            enrol(signer(names[k.key]), body.child, role) for k in body.keys for role in sorted(k.roles) if proofs
        ]
        self._delegation(key, expected, signed, body, enrolments)

    def _delegation(self, key: str, expected: str, signed: Signed, body: Delegation, enrolments: list[Signed]) -> None:
        parts: dict[str, Any] = {"idempotency_key": key, "delegation": wire.signed_to_pb(signed)}
        if body.state is not State.REVOKED:
            parts["enrolments"] = [wire.signed_to_pb(proof) for proof in enrolments]
        method, request = next(
            (method, request(**parts))
            for method, request, fits in (
                ("Revoke", delegation_pb2.RevokeRequest, body.state is State.REVOKED),
                ("Delegate", delegation_pb2.DelegateRequest, body.version == 1),
                ("Rotate", delegation_pb2.RotateRequest, True),
            )
            if fits
        )
        zone = str(body.child)
        node = "root" if zone in ("", "88") else "88"
        adopted = body.version if zone == "88" and expected == OK else 0
        self.call(f"{method} {key}", f"/{DELEGATION}/{method}", request, expected, node=node, adopted=adopted)
        if expected == OK:
            self.bodies[zone] = body


REVOKED: dict[str, Any] = {"state": State.REVOKED, "keys": (), "endpoints": ()}


def history() -> History:
    """The whole of it but the end (:func:`the_end`)."""
    told = History()
    _zones(told)
    _singles(told)
    _classes(told)
    _batches(told)
    _reviews(told)
    _rotations(told)
    return told


def _zones(told: History) -> None:
    told.hand_out("", "root-zone-1")
    told.hand_out("88", "zone-88-v1-proofless", Reason.PROOF_OF_POSSESSION, proofs=False)
    told.hand_out("88", "zone-88-v1")
    told.hand_out("88", "zone-88-v1-again", Reason.VERSION_GAP, version=1, previous=b"")
    told.hand_out("88.1", "zone-88.1-v1", host="88")
    told.hand_out("88.4", "zone-88.4-stolen", Reason.SIGNER_UNKNOWN, by=("zone of 88.1",))


def _singles(told: History) -> None:
    """Registrations, versions, a recall, a tombstone, repeated keys, and each way to be refused."""
    first = told.write(
        "Register", told.record("88.1/A", {"lot": "L1", "price": "12"}, restricted=("price",)), "key-A-v1"
    )
    told.write("Register", first, "key-A-v1")
    told.write("Register", first, "key-A-other", Reason.IDENTIFIER_TAKEN)
    told.write("Register", told.record("88.1/B"), "key-A-v1", Reason.IDEMPOTENCY_KEY_REUSED)
    told.write("Register", told.record("88.1/A", {"lot": "L9"}), "key-A-twice", Reason.IDENTIFIER_TAKEN)
    told.write("Register", told.record("88.1/B", by="record of 88"), "key-B-thief", Reason.SIGNER_UNKNOWN)
    told.write("Update", told.record("88.1/NONE", previous=first), "key-none", Reason.IDENTIFIER_UNKNOWN)
    kept = RecordBody.parse(first.signed.payload).values
    second = told.write("Update", told.record("88.1/A", previous=first, status=Status.RECALLED, kept=kept), "key-A-v2")
    told.write("Update", second, "key-A-v2")
    told.write("Update", told.record("88.1/A", previous=first), "key-A-v2-late", Reason.VERSION_GAP)
    forked = told.record("88.1/A", previous=second, previous_hash=bytes(32))
    told.write("Update", forked, "key-A-forked", Reason.PREVIOUS_HASH_MISMATCH)
    third = told.write("Update", told.record("88.1/A", {"lot": "L2"}, previous=second), "key-A-v3")
    ended: dict[str, Any] = {"kind": RecordKind.TOMBSTONE, "status": Status.RETIRED}
    last = told.write("Retire", told.record("88.1/A", previous=third, **ended), "key-A-v4")
    told.write("Retire", last, "key-A-v4")
    told.write("Update", told.record("88.1/A", previous=last), "key-A-v5", Reason.IDENTIFIER_RETIRED)
    told.write("Register", told.record("88.1/A"), "key-A-reborn", Reason.IDENTIFIER_RETIRED)
    told.write("Register", told.record("88.1/序列号-1", {"产地": "上海"}), "key-unicode")
    told.write("Register", told.record("88/OWN", {"lot": "L1"}), "key-own-zone")
    told.write("Register", told.record("89.1/X"), "key-elsewhere", Reason.NOT_AUTHORITATIVE)
    told.write("Register", told.record("88.1/B"), "short", Reason.FIELD_MALFORMED)


def _classes(told: History) -> None:
    fields = (
        TemplateField("lot", FieldType.TEXT, required=True, unique=False),
        TemplateField("serial", FieldType.TEXT, required=False, unique=True),
    )
    text = Template(fields, open=False).payload().decode()
    told.write("Register", told.record("88.1/class", {"idtrace.template": text}, kind=RecordKind.CLASS), "key-class")
    of_class: dict[str, Any] = {"class_id": Identifier.parse("88.1/class")}
    item = {"lot": "L1", "serial": "S1"}
    told.write("Register", told.record("88.1/I-1", item, **of_class), "key-item-I-1")
    told.write("Register", told.record("88.1/I-2", item, **of_class), "key-item-I-2", Reason.CLASS_FIELD_NOT_UNIQUE)
    told.write(
        "Register", told.record("88.1/I-3", {"serial": "S3"}, **of_class), "key-item-I-3", Reason.CLASS_FIELD_REQUIRED
    )
    nowhere: dict[str, Any] = {"class_id": Identifier.parse("88.1/no-class")}
    told.write("Register", told.record("88.1/I-4", item, **nowhere), "key-item-I-4", Reason.CLASS_UNKNOWN)


def _batches(told: History) -> None:
    def items() -> Iterator[tuple[str, Record, str]]:
        for number in range(BATCH_ITEMS):
            yield f"key-lot-{number:04}", told.record(f"88.1/LOT-{number:04}", {"lot": str(number % 7)}), OK
        yield "key-lot-0000", told.record("88.1/LOT-0000", {"lot": "0"}), OK
        yield "key-lot-0001", told.record("88.1/LOT-9999"), Reason.IDEMPOTENCY_KEY_REUSED
        yield "key-lot-twice", told.record("88.1/LOT-0002", {"lot": "other"}), Reason.IDENTIFIER_TAKEN
        yield "key-lot-thief", told.record("88.1/LOT-9998", by="record of 88"), Reason.SIGNER_UNKNOWN
        yield "key-lot-far", told.record("89.9/X"), Reason.NOT_AUTHORITATIVE

    first = list(items())
    told.batch("batch", first)
    told.batch("the same batch again", first)
    nothing = registry_pb2.RegisterBatchRequest()
    told.call("an empty batch", f"/{REGISTRY}/RegisterBatch", nothing, Reason.BATCH_TOO_LARGE)


def _reviews(told: History) -> None:
    told.apply("88.2", "apply-88.2")
    told.apply("88.2", "apply-88.2-twice", Reason.PREFIX_STATUS_TRANSITION)
    told.hand_out("88.2", "zone-88.2-early", Reason.PREFIX_NOT_ENABLED)
    told.move("88.2", PrefixStatus.ENABLED, "move-88.2-leap", Reason.PREFIX_STATUS_TRANSITION)
    told.move("88.2", PrefixStatus.IN_REVIEW, "move-88.2-old", Reason.COMMAND_STALE, age=301)
    told.move("88.2", PrefixStatus.IN_REVIEW, "move-88.2-review")
    told.move("88.2", PrefixStatus.ENABLED, "move-88.2-enable")
    told.hand_out("88.2", "zone-88.2-v1")
    told.write("Register", told.record("88.2/X"), "key-below-child", Reason.ZONE_DELEGATED)
    told.apply("88.3", "apply-88.3", hosted=True, endpoints=())
    told.move("88.3", PrefixStatus.REJECTED, "move-88.3-reject")
    told.apply("88.3", "apply-88.3-again", hosted=True, endpoints=())
    told.move("88.5", PrefixStatus.DISABLED, "move-88.5-nobody", Reason.PREFIX_UNKNOWN)
    told.move("88.1", PrefixStatus.DISABLED, "move-88.1-disable")
    told.write("Register", told.record("88.1/SHUT"), "key-shut", Reason.PREFIX_NOT_ENABLED)


def _rotations(told: History) -> None:
    told.move("88.1", PrefixStatus.ENABLED, "move-88.1-enable")
    told.write("Register", told.record("88.1/NEW", by="second key"), "key-early", Reason.SIGNER_UNKNOWN)
    told.hand_out("88.1", "zone-88.1-v2", host="88", extra="second key")
    told.write("Register", told.record("88.1/NEW", by="second key"), "key-with-second")
    told.hand_out("88.2", "zone-88.2-v2", extra="another key")
    told.hand_out("88.2", "zone-88.2-v3", **REVOKED)
    told.hand_out("88.2", "zone-88.2-v4")
    told.hand_out("88", "zone-88-v2", extra="second key of 88")
    told.write("Register", told.record("88/OWN-2", by="second key of 88"), "key-own-2")


def questions(told: History) -> list[Step]:
    """Everything that can be asked about it, in every version that there is and one that there is not."""
    asked = History([])
    at = told.now
    few = [f"88.1/LOT-{number:04}" for number in range(0, BATCH_ITEMS, 7)]
    names = ["88.1/A", "88.1/序列号-1", "88.1/class", "88.1/I-1", "88.1/I-2", "88.1/NEW", "88/OWN", "88/OWN-2", *few]
    names += ["88.1/NEVER", "88.2/X", "88.3/X", "88.7/X", "89.1/X", "1"]
    for name in names:
        for version in range(6 if name == "88.1/A" else 3):
            for known in ({}, {"known_zone": "88"}):
                request = registry_pb2.RegistryServiceGetRequest(identifier=name, version=version, **known)
                asked.call(f"Get {name} {version} {known}", f"/{REGISTRY}/Get", request, "?")
    for prefix in ("", "88", "88.1", "88.2", "88.3", "88.4", "88.1.1", "89"):
        status = registry_pb2.GetPrefixStatusRequest(prefix=prefix)
        asked.call(f"GetPrefixStatus {prefix}", f"/{REGISTRY}/GetPrefixStatus", status, "?")
        chain = delegation_pb2.DelegationServiceGetRequest(prefix=prefix)
        asked.call(f"chain of {prefix}", f"/{DELEGATION}/Get", chain, "?")
        asked.call(f"chain of {prefix}, asked of the root", f"/{DELEGATION}/Get", chain, "?", node="root")
    return [replace(step, at=at) for step in asked.steps]


def the_end(told: History) -> list[Step]:
    """The root takes 88 back."""
    before = len(told.steps)
    told.hand_out("88", "zone-88-v3", **REVOKED)
    told.write("Register", told.record("88.1/LATE"), "key-late", Reason.DELEGATION_REVOKED)
    return told.steps[before:]
