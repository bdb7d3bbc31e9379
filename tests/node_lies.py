"""What a thief of a node can make of its answers, one lie at a time, and why each is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from idtrace.bundle import Denied, NodeAnswer, Referred
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Delegation, Role, ZoneKey
from idtrace.entry import Entry, EntryKind
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.logproof import LogProof
from idtrace.merkle import hash_leaf
from idtrace.note import KeyType, Note, NoteSigner
from idtrace.record import Permission, Record, RecordBody, Status, Value, ValueDigest
from idtrace.signature import Kind, Signed, sign
from idtrace.statements import Currency, Denial, DenialReason
from tests.core_fixtures import signer
from tests.integration.test_logged_node import LOG, ZONE
from tests.log_fixtures import naive_path, naive_root, witness_signer
from tests.logged_site import Site
from tests.nodes import DAY, key_name

R = Reason
HERE = Prefix.parse(ZONE)
NODE, CURRENCY, OWN_LOG = (key_name(role, ZONE) for role in (Role.NODE, Role.CURRENCY, Role.LOG))
THIEF = "thief"


@dataclass(frozen=True)
class Case:
    """One question: the honest answer, and what the thief has of other answers and of earlier times."""

    site: Site
    name: str
    answer: NodeAnswer
    other: NodeAnswer  # about another identifier of the zone, with a sound proof
    elsewhere: NodeAnswer  # about an identifier of another zone, above
    early: Note  # a cosigned checkpoint from before the record

    @property
    def identifier(self) -> Identifier:
        return Identifier.parse(self.name)

    @property
    def record(self) -> Record:
        assert isinstance(self.answer.outcome, Record)
        return self.answer.outcome

    @property
    def body(self) -> RecordBody:
        return RecordBody.parse(self.record.signed.payload)

    @property
    def proof(self) -> LogProof:
        assert self.answer.proof is not None
        return self.answer.proof

    @property
    def now(self) -> int:
        return int(time.time())


Change = Callable[[Case, NodeAnswer], NodeAnswer]


@dataclass(frozen=True)
class Lie:
    """A name, what it makes of the honest answer, and why it is refused.

    ``resolver``: why the resolver refuses it; None: it believes it, since it has no policy.
    """

    name: str
    change: Change
    offline: Reason
    resolver: Reason | None


def log_key() -> NoteSigner:
    return NoteSigner.of(LOG, signer(OWN_LOG))


# What can be rewritten


def shows(make: Callable[[Case], Record], *, alone: bool = True) -> Change:
    """Another record; ``alone``: without what would speak against it."""
    cut: dict[str, Any] = {"proof": None, "currency": None} if alone else {}
    return lambda case, answer: replace(answer, outcome=make(case), **cut)


def body(by: str | None = None, **changes: Any) -> Callable[[Case], Record]:
    """Other bytes under the owner's signature, or under one of the thief's keys."""

    def make(case: Case) -> Record:
        payload = replace(case.body, **changes).payload()
        signed = sign(Kind.RECORD, payload, signer(by)) if by else replace(case.record.signed, payload=payload)
        return replace(case.record, signed=signed)

    return make


def dated_back(by: str | None = None) -> Callable[[Case], Record]:
    return lambda case: body(by, issued_at=case.body.issued_at - DAY)(case)


def values(change: Callable[[tuple[Value, ...]], tuple[Value, ...]]) -> Callable[[Case], Record]:
    return lambda case: replace(case.record, values=change(case.record.values))


def added_value(case: Case) -> Record:
    """A value with a digest of its own, in a body that the thief signs."""
    digest = ValueDigest(1, "expiry", Permission.PUBLIC, bytes(32))
    return body(NODE, values=(*case.body.values, digest))(case)


def denies(by: str, **changes: Any) -> Change:
    def change(case: Case, answer: NodeAnswer) -> NodeAnswer:
        said = Denial(case.identifier, HERE, DenialReason.IDENTIFIER_ABSENT, case.now, case.now + 60, 1_000)
        when = {name: case.now + value for name, value in changes.items() if name in {"issued_at", "expires"}}
        said = replace(said, **(changes | when))
        signed = sign(Kind.DENIAL, said.payload(), signer(by))
        return replace(answer, outcome=Denied(signed), proof=None, currency=None)

    return change


def proves(**changes: Any) -> Change:
    return lambda case, answer: replace(answer, proof=replace(case.proof, **changes))


def noted(change: Callable[[Case, Note], Note]) -> Change:
    def rewritten(case: Case, answer: NodeAnswer) -> NodeAnswer:
        note = change(case, Note.parse(case.proof.checkpoint))
        return replace(answer, proof=replace(case.proof, checkpoint=note.encode()))

    return rewritten


def by_log_alone(note: Note) -> Note:
    return replace(note, signatures=tuple(line for line in note.signatures if line.name == LOG))


def with_lines(note: Note, *signers: NoteSigner, text: str = "") -> Note:
    """The log's own signature and cosignatures that these make, over this text or another one."""
    lines = tuple(one.sign(text or note.text, int(time.time())) for one in signers)
    return replace(note, signatures=(*by_log_alone(note).signatures, *lines))


def false_witness(number: int) -> NoteSigner:
    """The thief's own key under a witness's name."""
    return NoteSigner.of(witness_signer(number).key.name, signer(THIEF), KeyType.COSIGNATURE_ED25519)


def forged_lines(_: Case, note: Note) -> Note:
    """The names and key ids of true witnesses over bytes that they never made."""
    return replace(
        note,
        signatures=tuple(
            line if line.name == LOG else replace(line, value=line.value[:8] + bytes(64)) for line in note.signatures
        ),
    )


def transplanted(case: Case, note: Note) -> Note:
    """True cosignatures of true witnesses, of another checkpoint."""
    lines = tuple(line for line in case.early.signatures if line.name != LOG)
    return replace(note, signatures=(*by_log_alone(note).signatures, *lines))


def other_history(case: Case, answer: NodeAnswer) -> NodeAnswer:
    """The same record in a tree of the thief's own, of the size that everybody has seen."""
    signatures = case.record.signed.signatures
    entry = Entry(EntryKind.RECORD, HERE, case.now - DAY, case.record.signed.payload, signatures)
    size = Checkpoint.parse(Note.parse(case.proof.checkpoint).text).size
    hashes = [hash_leaf(f"other {n}".encode()) for n in range(size)]
    hashes[0] = hash_leaf(entry.to_bytes())
    text = Checkpoint(LOG, size, naive_root(hashes)).text
    note = Note(text, (log_key().sign(text),))
    return replace(answer, proof=LogProof(0, tuple(naive_path(0, hashes)), note.encode(), entry.head))


def dated_head(case: Case) -> bytes:
    entry = Entry.from_bytes(case.proof.head + case.record.signed.payload)
    return replace(entry, committed_at=entry.committed_at - DAY).head


def says_latest(by: str = CURRENCY, **changes: Any) -> Change:
    def change(case: Case, answer: NodeAnswer) -> NodeAnswer:
        said = Currency(case.identifier, HERE, 1, case.record.hash, 1_000, case.now, case.now + 60)
        return replace(answer, currency=sign(Kind.CURRENCY, replace(said, **changes).payload(), signer(by)))

    return change


def last_link(make: Callable[[Delegation, Case], Signed]) -> Change:
    """Another delegation of the zone than the parent's, or beside it."""

    def change(case: Case, answer: NodeAnswer) -> NodeAnswer:
        genuine = case.answer.delegations[-1]
        forged = make(Delegation.parse(genuine.payload), case)
        return replace(answer, delegations=(*(d for d in answer.delegations if d != genuine), forged))

    return change


def swapped(by: str) -> Callable[[Delegation, Case], Signed]:
    """The next version of the zone's delegation, with the thief's key for records, signed by a key that he has."""

    def make(genuine: Delegation, _: Case) -> Signed:
        keys = (ZoneKey(signer(THIEF).public_key, frozenset({Role.RECORD})), *genuine.keys[2:])
        body = replace(genuine, version=genuine.version + 1, previous=genuine.hash, keys=(genuine.keys[0], *keys))
        return sign(Kind.DELEGATION, body.payload(), signer(by))

    return make


def key_swap(by: str) -> Change:
    """The thief's record under the thief's key set."""

    def change(case: Case, answer: NodeAnswer) -> NodeAnswer:
        told = last_link(swapped(by))(case, answer)
        return replace(told, outcome=body(THIEF, status=Status.RECALLED)(case), proof=None, currency=None)

    return change


def expired(genuine: Delegation, case: Case) -> Signed:
    """What the parent did sign, years ago, for a key that is the thief's now."""
    start = case.now - 100 * DAY
    old = replace(genuine, version=1, previous=b"", issued_at=start, not_before=start, expires=case.now - 1)
    return sign(Kind.DELEGATION, old.payload(), signer(key_name(Role.ZONE, "88")))


def refers(zone: str, by: str, **changes: Any) -> Change:
    """A referral to a zone that he makes up, at an address of his."""

    def change(case: Case, answer: NodeAnswer) -> NodeAnswer:
        genuine = Delegation.parse(case.answer.delegations[-1].payload)
        child = Prefix.parse(zone)
        made = replace(genuine, child=child, version=1, previous=b"", endpoints=(case.site.proxy.address,), log="")
        made = replace(
            made, **({"parent": HERE} | changes), keys=tuple(k for k in made.keys if Role.LOG not in k.roles)
        )
        signed = sign(Kind.DELEGATION, made.payload(), signer(by))
        return NodeAnswer((*answer.delegations, signed), Referred(child))

    return change


LIES = [
    Lie("record: another status", shows(body(status=Status.SUSPENDED)), R.NOT_LOGGED, R.SIGNATURE_INVALID),
    Lie(
        "record: beside its proof", shows(body(status=Status.SUSPENDED), alone=False), R.PROOF_INVALID, R.PROOF_INVALID
    ),
    Lie("record: by the node's key", shows(body(NODE, status=Status.SUSPENDED)), R.NOT_LOGGED, R.SIGNER_UNKNOWN),
    Lie("record: by the log's key", shows(body(OWN_LOG, status=Status.SUSPENDED)), R.NOT_LOGGED, R.SIGNER_UNKNOWN),
    Lie("version: another number", shows(body(version=2, previous=bytes(32))), R.NOT_LOGGED, R.SIGNATURE_INVALID),
    Lie("version: by the node's key", shows(body(NODE, version=2, previous=bytes(32))), R.NOT_LOGGED, R.SIGNER_UNKNOWN),
    Lie("time: dated back", shows(dated_back()), R.NOT_LOGGED, R.SIGNATURE_INVALID),
    Lie("time: dated back by the node's key", shows(dated_back(NODE)), R.NOT_LOGGED, R.SIGNER_UNKNOWN),
    Lie(
        "value: changed",
        shows(values(lambda all_: tuple(replace(v, data=b"L2") for v in all_)), alone=False),
        R.VALUE_CHANGED,
        R.VALUE_CHANGED,
    ),
    Lie(
        "value: added",
        shows(values(lambda all_: (*all_, Value(7, bytes(16), b"x"))), alone=False),
        R.VALUE_UNSIGNED,
        R.VALUE_UNSIGNED,
    ),
    Lie("value: added to the body", shows(added_value), R.NOT_LOGGED, R.SIGNER_UNKNOWN),
    Lie(
        "another identifier's record",
        lambda case, answer: replace(
            answer, outcome=case.other.outcome, proof=case.other.proof, currency=case.other.currency
        ),
        R.RECORD_WRONG_IDENTIFIER,
        R.RECORD_WRONG_IDENTIFIER,
    ),
    Lie(
        "another zone's record",
        lambda case, answer: replace(answer, outcome=case.elsewhere.outcome, proof=None, currency=None),
        R.NOT_LOGGED,
        R.SIGNER_UNKNOWN,
    ),
    Lie(
        "wrong prefix: a neighbour's key",
        shows(body(key_name(Role.RECORD, "88"), status=Status.SUSPENDED)),
        R.NOT_LOGGED,
        R.SIGNER_UNKNOWN,
    ),
    Lie("referral: to a zone of his own", refers(f"{ZONE}.7", NODE), R.SIGNER_UNKNOWN, R.SIGNER_UNKNOWN),
    Lie("referral: upwards", refers("88", NODE, parent=Prefix.parse("")), R.SIGNER_UNKNOWN, R.SIGNER_UNKNOWN),
    Lie(
        "referral: without a delegation",
        lambda case, answer: NodeAnswer((), Referred(Prefix.parse(f"{ZONE}.7"))),
        R.CHAIN_EMPTY,
        R.REFERRAL_UNSIGNED,
    ),
    Lie("denial: by the log's key", denies(OWN_LOG), R.SIGNER_UNKNOWN, R.SIGNER_UNKNOWN),
    Lie("denial: by the node's key, where the zone names another", denies(NODE), R.SIGNER_UNKNOWN, R.SIGNER_UNKNOWN),
    Lie("denial: expired", denies(CURRENCY, issued_at=-120, expires=-61), R.DENIAL_EXPIRED, R.DENIAL_EXPIRED),
    Lie("denial: for a day", denies(CURRENCY, expires=DAY), R.DENIAL_TOO_LONG, R.DENIAL_TOO_LONG),
    Lie("denial: of another zone", denies(CURRENCY, zone=Prefix.parse("88")), R.DENIAL_WRONG_ZONE, R.DENIAL_WRONG_ZONE),
    Lie(
        "denial: of another identifier",
        denies(CURRENCY, identifier=Identifier.parse(f"{ZONE}/none")),
        R.DENIAL_WRONG_IDENTIFIER,
        R.DENIAL_WRONG_IDENTIFIER,
    ),
    # The resolver has the parent's own word already, and takes this one for a delegation by the zone.
    Lie("key set: expired", last_link(expired), R.DELEGATION_EXPIRED, R.SIGNER_UNKNOWN),
    Lie("key swap: by the node's key", key_swap(NODE), R.SIGNER_UNKNOWN, R.SIGNER_UNKNOWN),
    Lie("key swap: by the log's key", key_swap(OWN_LOG), R.SIGNER_UNKNOWN, R.SIGNER_UNKNOWN),
    Lie(
        "proof: of another entry",
        lambda case, answer: replace(answer, proof=case.other.proof),
        R.PROOF_INVALID,
        R.PROOF_INVALID,
    ),
    Lie(
        "proof: under another index",
        lambda case, answer: replace(answer, proof=replace(case.proof, index=case.proof.index - 1)),
        R.PROOF_INVALID,
        R.PROOF_INVALID,
    ),
    Lie("proof: another path", proves(path=(bytes(32),)), R.PROOF_INVALID, R.PROOF_INVALID),
    Lie(
        "proof: another time of commit",
        lambda case, answer: replace(answer, proof=replace(case.proof, head=dated_head(case))),
        R.PROOF_INVALID,
        R.PROOF_INVALID,
    ),
    Lie("proof: none", lambda case, answer: replace(answer, proof=None), R.NOT_LOGGED, None),
    Lie("checkpoint: rolled back", noted(lambda case, _: case.early), R.PROOF_INVALID, R.PROOF_INVALID),
    Lie(
        "checkpoint: by the node's key",
        noted(lambda case, note: Note(note.text, (NoteSigner.of(LOG, signer(NODE)).sign(note.text),))),
        R.SIGNER_UNKNOWN,
        R.SIGNER_UNKNOWN,
    ),
    Lie(
        "checkpoint: of another log",
        noted(
            lambda case, note: Note(
                text := note.text.replace(LOG, "log.example/88"),
                (NoteSigner.of("log.example/88", signer(OWN_LOG)).sign(text),),
            )
        ),
        R.LOG_UNKNOWN,
        R.LOG_UNKNOWN,
    ),
    Lie("checkpoint: of a history of his own", other_history, R.WITNESS_QUORUM, None),
    Lie("cosignatures: stripped", noted(lambda _, note: by_log_alone(note)), R.WITNESS_QUORUM, None),
    Lie("cosignatures: forged", noted(forged_lines), R.COSIGNATURE_INVALID, None),
    Lie("cosignatures: of another checkpoint", noted(transplanted), R.COSIGNATURE_INVALID, None),
    Lie(
        "cosignatures: by his own keys under true names",
        noted(lambda _, note: with_lines(note, false_witness(1), false_witness(2))),
        R.WITNESS_QUORUM,
        None,
    ),
    Lie(
        "cosignatures: of one witness, twice",
        noted(lambda _, note: with_lines(note, witness_signer(1), witness_signer(1))),
        R.WITNESS_QUORUM,
        None,
    ),
    Lie(
        "currency: by the node's key, where the zone names another",
        says_latest(NODE),
        R.SIGNER_UNKNOWN,
        R.SIGNER_UNKNOWN,
    ),
    Lie(
        "currency: for a day",
        lambda case, answer: says_latest(expires=case.now + DAY)(case, answer),
        R.CURRENCY_TOO_LONG,
        R.CURRENCY_TOO_LONG,
    ),
    Lie("currency: of another version", says_latest(version=2), R.CURRENCY_WRONG_RECORD, R.CURRENCY_WRONG_RECORD),
    Lie(
        "currency: of a log without the record",
        says_latest(log_size=1),
        R.CURRENCY_WRONG_RECORD,
        R.CURRENCY_WRONG_RECORD,
    ),
]
