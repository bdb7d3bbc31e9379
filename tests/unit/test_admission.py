"""Admission: each rule broken once, in its order, and what a class demands of the records that name it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from idtrace.chain import CLOCK_SKEW_SECONDS
from idtrace.errors import IdtraceError, InputError, Reason, RefusedError
from idtrace.identifier import Identifier
from idtrace.record import Record, RecordKind, Status
from idtrace.template import CLASS_DEPTH_MAX, TEMPLATE_TYPE
from registry.admission import (
    AGE_SECONDS_MAX,
    VALUE_FRAME_BYTES,
    VALUES_BYTES_MAX,
    Admitted,
    Intent,
    Repeated,
    admit,
    class_lineage,
    complete,
)
from registry.storage import Claim, Earlier
from tests.core_fixtures import NOW
from tests.registry_fixtures import (
    CLASS,
    ENDED,
    class_record,
    head_of,
    proposal,
    stored_classes,
    text_field,
    typed_record,
)

R = Reason
A = "88.118.8/A"
BASE, VACCINE, DOSE = (f"88.118.8/class.{name}" for name in ("base", "vaccine", "dose"))


def cid(name: str) -> Identifier:
    return Identifier.parse(name)


def decide(
    record: Record,
    *classes: Record,
    head: Record | None = None,
    intent: Intent | None = None,
    earlier: Earlier | None = None,
    now: int = NOW,
) -> Admitted | Repeated:
    stored = head_of(head) if head else None
    return admit(proposal(record, intent), head=stored, earlier=earlier, classes=stored_classes(*classes), now=now)


def refusal(action: Callable[[], object]) -> tuple[type[IdtraceError], Reason, str]:
    with pytest.raises(IdtraceError) as caught:
        action()
    return type(caught.value), caught.value.reason, caught.value.field


FIRST = typed_record(A, {"lot": "L1"})
SECOND = typed_record(A, {"lot": "L1"}, previous=FIRST)
END = typed_record(A, previous=FIRST, **ENDED)


@pytest.mark.parametrize(
    ("record", "head"),
    [
        (FIRST, None),
        (SECOND, FIRST),
        (END, FIRST),
        (typed_record(A, previous=FIRST, status=Status.RECALLED), FIRST),
        (typed_record(A, kind=RecordKind.BLOCK), None),
        (typed_record(A, issued_at=NOW + CLOCK_SKEW_SECONDS), None),
        (typed_record(A, issued_at=NOW - AGE_SECONDS_MAX), None),
    ],
)
def test_what_keeps_the_rules_is_admitted(record: Record, head: Record | None) -> None:
    assert decide(record, head=head) == Admitted(())


@pytest.mark.parametrize(
    ("family", "reason", "field", "record", "given"),
    [
        # 2. the call fits the record
        (InputError, R.FIELD_MALFORMED, "record.version", SECOND, {"head": FIRST, "intent": Intent.REGISTER}),
        (InputError, R.FIELD_MALFORMED, "record.version", FIRST, {"intent": Intent.UPDATE}),
        (InputError, R.FIELD_MALFORMED, "record.version", END, {"head": FIRST, "intent": Intent.UPDATE}),
        (InputError, R.FIELD_MALFORMED, "record.version", END, {"head": FIRST, "intent": Intent.REGISTER}),
        (InputError, R.FIELD_MALFORMED, "record.version", SECOND, {"head": FIRST, "intent": Intent.RETIRE}),
        (InputError, R.FIELD_MALFORMED, "record.version", FIRST, {"intent": Intent.RETIRE}),
        # 3. free, or lives on under the same kind
        (RefusedError, R.IDENTIFIER_UNKNOWN, "record.identifier", SECOND, {}),
        (RefusedError, R.IDENTIFIER_UNKNOWN, "record.identifier", END, {}),
        (RefusedError, R.IDENTIFIER_TAKEN, "record.identifier", FIRST, {"head": FIRST}),
        (RefusedError, R.IDENTIFIER_TAKEN, "record.identifier", typed_record(A), {"head": SECOND}),
        (RefusedError, R.IDENTIFIER_RETIRED, "record.identifier", FIRST, {"head": END}),
        (RefusedError, R.IDENTIFIER_RETIRED, "record.identifier", typed_record(A, previous=END), {"head": END}),
        (
            RefusedError,
            R.IDENTIFIER_RETIRED,
            "record.identifier",
            typed_record(A, previous=END, **ENDED),
            {"head": END},
        ),
        (RefusedError, R.KIND_CHANGED, "record.kind", typed_record(A, previous=FIRST, **CLASS), {"head": FIRST}),
        # 4. follows the current version
        (RefusedError, R.VERSION_GAP, "record.version", SECOND, {"head": SECOND}),
        (RefusedError, R.VERSION_GAP, "record.version", typed_record(A, previous=SECOND), {"head": FIRST}),
        (RefusedError, R.PREVIOUS_HASH_MISMATCH, "record.previous", replace(SECOND), {"head": typed_record(A)}),
        # 5. plausible time, to the second
        (RefusedError, R.ISSUED_AT_IMPLAUSIBLE, "record.issued_at", FIRST, {"now": NOW - 50 - CLOCK_SKEW_SECONDS - 1}),
        (RefusedError, R.ISSUED_AT_IMPLAUSIBLE, "record.issued_at", FIRST, {"now": NOW - 49 + AGE_SECONDS_MAX}),
        (
            RefusedError,
            R.ISSUED_AT_IMPLAUSIBLE,
            "record.issued_at",
            typed_record(A, previous=FIRST, issued_at=NOW - 51),
            {"head": FIRST},
        ),
        # 6. complete
        (RefusedError, R.VALUE_MISSING, "record.values", replace(FIRST, values=()), {}),
    ],
)
def test_each_broken_rule_has_its_reason_and_field(
    family: type[IdtraceError], reason: Reason, field: str, record: Record, given: dict[str, Any]
) -> None:
    assert refusal(lambda: decide(record, **given)) == (family, reason, field)


def test_a_repeated_request_gets_the_receipt_of_then_whatever_is_true_now() -> None:
    known = Earlier(proposal(FIRST).request_hash, b"the receipt")
    for head, now in ((None, NOW), (FIRST, NOW), (END, NOW + 99 * AGE_SECONDS_MAX)):
        assert decide(FIRST, head=head, earlier=known, now=now) == Repeated(b"the receipt")


def test_a_key_serves_one_request() -> None:
    known = Earlier(hashlib.sha256(b"another").digest(), b"")
    wanted = (RefusedError, R.IDEMPOTENCY_KEY_REUSED, "idempotency_key")
    assert refusal(lambda: decide(FIRST, earlier=known)) == wanted
    as_update = Earlier(proposal(SECOND, Intent.UPDATE).request_hash, b"")
    assert refusal(lambda: decide(SECOND, intent=Intent.REGISTER, earlier=as_update)) == wanted


# Classes

base = class_record(BASE, text_field("maker", required=True), text_field("serial", unique=True), is_open=True)
vaccine = class_record(VACCINE, text_field("lot", required=True, unique=True), is_open=True, class_id=cid(BASE))
dose = class_record(DOSE, class_id=cid(VACCINE))
FULL = {"maker": "M", "serial": "S-1", "lot": "L1"}


def claim(class_name: str, field: str, text: str) -> Claim:
    return Claim(class_name, field, hashlib.sha256(text.encode()).digest())


def test_a_unique_field_is_claimed_in_the_class_that_declares_it_so_that_subclasses_share_it() -> None:
    of_dose = decide(typed_record(A, FULL, class_id=cid(DOSE)), base, vaccine, dose)
    assert of_dose == Admitted((claim(BASE, "serial", "S-1"), claim(VACCINE, "lot", "L1")))
    of_base = decide(typed_record("88.118.8/B", {"maker": "X", "serial": "S-1"}, class_id=cid(BASE)), base)
    assert isinstance(of_dose, Admitted)
    assert isinstance(of_base, Admitted)
    assert of_base.claims == of_dose.claims[:1]


def test_a_class_without_unique_fields_claims_nothing_and_an_absent_optional_one_neither() -> None:
    plain = class_record(BASE, text_field("maker"))
    assert decide(typed_record(A, {"maker": "M"}, class_id=cid(BASE)), plain) == Admitted(())
    assert decide(typed_record(A, {"maker": "M"}, class_id=cid(BASE)), base) == Admitted(())


@pytest.mark.parametrize(
    ("reason", "field", "values"),
    [
        (R.CLASS_FIELD_REQUIRED, "values.maker", {"lot": "L1"}),
        (R.CLASS_FIELD_REQUIRED, "values.lot", {"maker": "M"}),
        (R.CLASS_FIELD_TYPE, "values.maker", FULL | {"maker": " edge"}),
        (R.CLASS_FIELD_UNKNOWN, "values.colour", FULL | {"colour": "red"}),
        (R.CLASS_FIELD_REPEATED, "values.lot", [*FULL.items(), ("lot", "L2")]),
    ],
)
def test_inherited_fields_hold_and_a_closed_class_closes_what_it_inherits(
    reason: Reason, field: str, values: Any
) -> None:
    item = typed_record(A, values, class_id=cid(DOSE))
    assert refusal(lambda: decide(item, base, vaccine, dose)) == (RefusedError, reason, field)


def test_an_open_class_admits_values_that_no_field_names() -> None:
    assert isinstance(decide(typed_record(A, FULL | {"colour": "red"}, class_id=cid(VACCINE)), base, vaccine), Admitted)


@pytest.mark.parametrize(
    ("reason", "classes"),
    [
        (R.CLASS_UNKNOWN, ()),
        (R.CLASS_UNKNOWN, (dose, vaccine)),
        (R.CLASS_UNKNOWN, (typed_record(DOSE, {TEMPLATE_TYPE: "{}"}),)),
        (R.CLASS_UNKNOWN, (typed_record(DOSE, previous=dose, **ENDED),)),
        (R.CLASS_NOT_PUBLISHED, (class_record(DOSE, status=Status.SUSPENDED),)),
        (R.CLASS_NOT_PUBLISHED, (class_record(DOSE, status=Status.RECALLED),)),
        (R.CLASS_NOT_PUBLISHED, (dose, vaccine, class_record(BASE, status=Status.SUSPENDED))),
    ],
)
def test_the_whole_lineage_has_to_be_there_and_published(reason: Reason, classes: tuple[Record, ...]) -> None:
    for record in (typed_record(A, FULL, class_id=cid(DOSE)), class_record(A, class_id=cid(DOSE))):
        assert refusal(lambda record=record: decide(record, *classes)) == (RefusedError, reason, "record.class")  # type: ignore[misc]  # the loop's own record


def test_a_tombstone_needs_no_class_to_end_an_item() -> None:
    item = typed_record(A, FULL, class_id=cid(DOSE))
    assert decide(typed_record(A, previous=item, class_id=cid(DOSE), **ENDED), head=item) == Admitted(())


def ladder(depth: int) -> list[Record]:
    """Classes 1 … depth, each below the one before it."""
    names = [f"88.118.8/class.{n}" for n in range(depth + 1)]
    return [class_record(names[n], class_id=cid(names[n - 1]) if n > 1 else None) for n in range(1, depth + 1)]


def test_classes_inherit_as_deep_as_the_limit_and_no_deeper() -> None:
    deep = ladder(CLASS_DEPTH_MAX)
    last = cid(f"88.118.8/class.{CLASS_DEPTH_MAX}")
    assert decide(typed_record(A, class_id=last), *deep) == Admitted(())
    assert len(class_lineage(last, stored_classes(*deep))) == CLASS_DEPTH_MAX
    deeper = cid(f"88.118.8/class.{CLASS_DEPTH_MAX + 1}")
    item = typed_record(A, class_id=deeper)
    wanted = (RefusedError, R.CLASS_UNKNOWN, "record.class")
    assert refusal(lambda: decide(item, *ladder(CLASS_DEPTH_MAX + 1))) == wanted


def test_a_class_that_no_item_could_ever_name_is_not_published() -> None:
    *above, last = ladder(CLASS_DEPTH_MAX + 1)
    assert refusal(lambda: decide(last, *above)) == (RefusedError, R.CLASS_UNKNOWN, "record.class")


def test_classes_that_inherit_from_each_other_end_at_the_limit() -> None:
    ring = stored_classes(class_record(BASE, class_id=cid(DOSE)), class_record(DOSE, class_id=cid(BASE)))
    assert refusal(lambda: class_lineage(cid(BASE), ring))[1:] == (R.CLASS_UNKNOWN, "record.class")


@pytest.mark.parametrize("name", [BASE, DOSE])
def test_a_class_never_comes_to_inherit_from_itself(name: str) -> None:
    first = class_record(BASE)
    below = class_record(DOSE, class_id=cid(BASE))
    turned = class_record(BASE, previous=first, class_id=cid(name))
    assert refusal(lambda: decide(turned, first, below, head=first))[1:] == (R.CLASS_UNKNOWN, "record.class")


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (typed_record(BASE, **CLASS), "record.values"),
        (typed_record(BASE, {"lot": "L1"}, **CLASS), "record.values"),
        (typed_record(BASE, [(TEMPLATE_TYPE, '{"fields":[],"open":true}')] * 2, **CLASS), "record.values"),
        (class_record(BASE, text_field("a"), text_field("a")), "template.fields[1].name"),
        (class_record(VACCINE, text_field("maker"), class_id=cid(BASE)), "template"),
    ],
)
def test_a_class_brings_one_sound_template_that_redefines_nothing(record: Record, field: str) -> None:
    assert refusal(lambda: decide(record, base)) == (InputError, R.TEMPLATE_MALFORMED, field)


def test_a_class_below_another_adds_fields_and_claims_nothing_itself() -> None:
    assert decide(base) == decide(vaccine, base) == decide(dose, base, vaccine) == Admitted(())


def test_a_value_that_is_signed_again_need_not_be_sent_again() -> None:
    current = typed_record(A, {"lot": "L1", "tester": "Li"})
    sent = Record(current.signed, current.values[:1])
    assert complete(proposal(sent), current).record == current
    assert complete(proposal(current), sent).record == current


def test_a_value_that_was_signed_as_another_is_missing() -> None:
    current = typed_record(A, {"lot": "L1", "tester": "Li"})
    other = typed_record(A, {"lot": "L1", "tester": "Wu"})
    missing = complete(proposal(Record(other.signed, other.values[:1])), current).record
    assert missing.values == other.values[:1]
    more = typed_record(A, {"lot": "L1", "tester": "Li", "third": "x"})
    assert len(complete(proposal(Record(more.signed, ())), current).record.values) == 2


def test_a_record_that_no_resolver_takes_in_is_refused_and_one_at_the_limit_can_be_recalled() -> None:
    each = 4_096
    values = {f"f{n:02}": "x" * (each - VALUE_FRAME_BYTES) for n in range(VALUES_BYTES_MAX // each)}
    largest = typed_record(A, values)
    assert isinstance(decide(largest), Admitted)
    assert isinstance(decide(typed_record(A, values, previous=largest, status=Status.RECALLED), head=largest), Admitted)
    over = typed_record(A, values | {"one more": ""})
    assert refusal(lambda: decide(over)) == (InputError, R.FIELD_TOO_LARGE, "record.values")


def test_a_body_fits_the_log_where_there_is_one_and_else_only_its_own_limit() -> None:
    record = typed_record(A, {"lot": "L1"})
    size = len(record.signed.payload)
    given: dict[str, Any] = {"head": None, "earlier": None, "classes": {}, "now": NOW}
    assert isinstance(admit(proposal(record), **given, body_bytes_max=size), Admitted)
    assert isinstance(admit(proposal(record), **given), Admitted)
    refused = refusal(lambda: admit(proposal(record), **given, body_bytes_max=size - 1))
    assert refused == (InputError, R.FIELD_TOO_LARGE, "record.signed.payload")
