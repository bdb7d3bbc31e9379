"""A policy is read strictly, counts each witness in one way, and says what a checkpoint lacks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason
from idtrace.logpolicy import COSIGNATURE_SKEW_SECONDS, POLICY_BYTES_MAX, POLICY_LINES_MAX, LogPolicy, Standing
from idtrace.note import KeyType, Note, NoteKey, NoteSigner
from tests.log_fixtures import (
    COSIGNATURES,
    NOW,
    ORIGIN,
    checkpoint,
    log_signer,
    note_signer,
    refusal,
    signed,
)
from tests.log_fixtures import (
    witness_signer as witness,
)

LOG = f"log {log_signer().key}\n"
# The shape of the specification's example: three witnesses of one operator, three of another.
EXAMPLE = f"""# comment\n
{LOG}
witness X1 {witness(1).key}
witness X2 {witness(2).key} https://x2.example/
witness X3 {witness(3).key}
group X-witnesses 2 X1 X2 X3

\t witness\tY1 \t{witness(4).key}
  # more
witness Y2 {witness(5).key}
witness Y3 {witness(6, KeyType.COSIGNATURE_ML_DSA_44).key}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def parsed(text: str) -> LogPolicy:
    return LogPolicy.parse(text.encode())


def cosigned(*numbers: int, at: int = NOW) -> Note:
    signers = [witness(6, KeyType.COSIGNATURE_ML_DSA_44) if number == 6 else witness(number) for number in numbers]
    return signed(checkpoint(9), *signers, at=at)


def test_the_specifications_example_means_what_it_says() -> None:
    policy = parsed(EXAMPLE)
    assert [(log.key, log.url) for log in policy.logs] == [(log_signer().key, "")]
    assert [known.name for known in policy.witnesses] == ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    assert policy.witnesses[1].url == "https://x2.example/"
    assert [group.threshold for group in policy.groups] == [2, 1, 2]
    assert LogPolicy.parse(policy.encode()) == policy


@pytest.mark.parametrize(
    ("numbers", "met"),
    [
        ((1, 2, 4), True),
        ((2, 3, 6), True),
        ((1, 2, 3, 4, 5, 6), True),
        ((1, 2), False),
        ((1, 2, 3), False),
        ((4, 5, 6), False),
        ((1, 4, 5, 6), False),
        ((), False),
    ],
)
def test_the_quorum_is_met_by_enough_of_each_group(numbers: tuple[int, ...], met: bool) -> None:
    found = parsed(EXAMPLE).witnessing(cosigned(*numbers), now=NOW)
    assert found.met is met
    assert bool(found.shortfall) is not met
    names = ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    assert list(found.missing) == [name for number, name in enumerate(names, 1) if number not in numbers]
    assert [standing.cosigned_at for standing in found.standings if standing.cosigned_at] == [NOW] * len(numbers)


def test_what_is_missing_is_named_from_the_outermost_group_inwards() -> None:
    assert parsed(EXAMPLE).witnessing(cosigned(1, 4), now=NOW).shortfall == (
        "'X-and-Y' has 1 of 2, without 'X-witnesses'",
        "'X-witnesses' has 1 of 2, without 'X2', 'X3'",
    )
    alone = parsed(f"witness W {witness(1).key}\nquorum W\n")
    assert alone.witnessing(cosigned(2), now=NOW).shortfall == ("without 'W'",)
    assert alone.witnessing(cosigned(1), now=NOW).met


def test_a_group_that_is_met_is_not_named_though_a_part_of_it_is_not() -> None:
    text = f"witness A {witness(1).key}\nwitness B {witness(2).key}\nwitness C {witness(3).key}\n"
    policy = parsed(text + "group inner all A\ngroup outer any inner B\ngroup top all outer C\nquorum top\n")
    assert policy.witnessing(cosigned(2), now=NOW).shortfall == ("'top' has 1 of 2, without 'C'",)


def test_witnesses_outside_the_quorum_are_neither_counted_nor_missed() -> None:
    policy = parsed(f"witness A {witness(1).key}\nwitness B {witness(2).key}\ngroup G any B\nquorum A\n")
    found = policy.witnessing(cosigned(2), now=NOW)
    assert (found.met, found.missing) == (False, ("A",))
    none = parsed(f"{LOG}witness A {witness(1).key}\nquorum none\n").witnessing(cosigned(), now=NOW)
    assert (none.met, none.standings, none.shortfall) == (True, (), ())


def test_a_cosignature_from_the_future_does_not_count() -> None:
    policy = parsed(f"witness A {witness(1).key}\nquorum A\n")
    skew = COSIGNATURE_SKEW_SECONDS
    assert policy.witnessing(cosigned(1), now=NOW - skew).met
    early = policy.witnessing(cosigned(1), now=NOW - skew - 1)
    assert (early.met, early.standings) == (False, (Standing("A", None, Reason.COSIGNATURE_FROM_FUTURE),))
    absent = policy.witnessing(cosigned(), now=NOW)
    assert absent.standings == (Standing("A", None, Reason.WITNESS_QUORUM),)
    body = checkpoint(9)
    times = (NOW - 50, NOW - 5, NOW + 500)
    note = Note(body.text, tuple(witness(1).sign(body.text, at) for at in times))
    assert policy.witnessing(note, now=NOW).standings == (Standing("A", NOW - 5),)


@pytest.mark.parametrize("key_type", COSIGNATURES)
def test_a_false_cosignature_by_a_known_witness_refuses_the_note(key_type: KeyType) -> None:
    policy = parsed(f"witness A {witness(1, key_type).key}\nwitness B {witness(2).key}\nquorum B\n")
    body, other = checkpoint(9), checkpoint(10)
    note = Note(body.text, (witness(1, key_type).sign(other.text, NOW), witness(2).sign(body.text, NOW)))
    assert refusal(policy.witnessing, note, now=NOW) is Reason.COSIGNATURE_INVALID


def test_a_log_is_known_by_origin_and_key() -> None:
    policy, body = parsed(EXAMPLE), checkpoint(9)
    assert policy.check_log(signed(body), body) == log_signer().key
    elsewhere = checkpoint(9, origin="log.example/other")
    # Its key signs for its own origin, and for no other.
    assert refusal(policy.check_log, signed(elsewhere), elsewhere) is Reason.LOG_UNKNOWN
    assert refusal(policy.check_log, signed(body, log=note_signer("spare")), body) is Reason.SIGNER_UNKNOWN
    namesake = NoteSigner.from_seed(ORIGIN, b"another seed of the same length!", KeyType.ED25519)
    assert refusal(policy.check_log, signed(body, log=namesake), body) is Reason.SIGNER_UNKNOWN
    forged = Note(body.text, (log_signer().sign(elsewhere.text),))
    assert refusal(policy.check_log, forged, body) is Reason.SIGNATURE_INVALID


def test_a_log_may_be_known_from_elsewhere() -> None:
    policy, body = parsed("quorum none\n"), checkpoint(9)
    assert refusal(policy.check_log, signed(body), body) is Reason.LOG_UNKNOWN
    assert policy.check_log(signed(body), body, [log_signer().key]) == log_signer().key
    assert refusal(policy.check_log, signed(body), body, [note_signer("other").key]) is Reason.LOG_UNKNOWN


def test_a_log_may_sign_with_ml_dsa() -> None:
    log = note_signer(ORIGIN, KeyType.COSIGNATURE_ML_DSA_44)
    policy, body = parsed(f"log {log.key}\nquorum none\n"), checkpoint(9)
    assert policy.check_log(signed(body, log=log, at=0), body) == log.key


W1, W2 = f"witness A {witness(1).key}\n", f"witness B {witness(2).key}\n"
COLLIDING = [
    NoteKey.of("w", number.to_bytes(4, "big") * 328, KeyType.COSIGNATURE_ML_DSA_44) for number in (19_499, 84_572)
]
CHAIN = "".join(f"group {number + 1} any {number or 'A'}\n" for number in range(POLICY_LINES_MAX))
BAD = {
    "no quorum": LOG,
    "two quorums": "quorum none\nquorum none\n",
    "quorum without a name": "quorum\n",
    "quorum with two names": f"{W1}{W2}quorum A B\n",
    "undefined quorum": f"{W1}quorum B\n",
    "quorum before its witness": f"quorum A\n{W1}",
    "no last newline": "quorum none",
    "empty": "",
    "carriage return": "quorum none\r\n",
    "control character": "# \x7f\nquorum none\n",
    "NUL": "# \0\nquorum none\n",
    "unknown line": "frobnicate A\nquorum none\n",
    "keyword in another case": "Quorum none\n",
    "log without a key": "log\nquorum none\n",
    "log with too much": f"log {log_signer().key} u v\nquorum none\n",
    "witness without a key": "witness A\nquorum none\n",
    "witness with too much": f"witness A {witness(1).key} u v\nquorum none\n",
    "no key": "log example.com/log\nquorum none\n",
    "a key of low order": "log x+00000000+AQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nquorum none\n",
    "log with a witness's key": f"log {witness(1).key}\nquorum none\n",
    "witness with a log's key": f"witness A {log_signer().key}\nquorum none\n",
    "one log twice": f"{LOG}{LOG}quorum none\n",
    "one log under two names": f"{LOG}log {NoteKey.of('other', log_signer().key.raw)}\nquorum none\n",
    "one witness key twice": f"{W1}witness B {witness(1).key}\nquorum none\n",
    "one witness key under two key names": (
        f"{W1}witness B {NoteKey.of('o', witness(1).key.raw, KeyType.COSIGNATURE_ED25519)}\nquorum none\n"
    ),
    "two keys of one name and id": f"witness A {COLLIDING[0]}\nwitness B {COLLIDING[1]}\nquorum none\n",
    "a log as its own witness": (
        f"{LOG}witness A {NoteKey.of('w', log_signer().key.raw, KeyType.COSIGNATURE_ED25519)}\nquorum none\n"
    ),
    "a witness as a log": (
        f"witness A {NoteKey.of('w', log_signer().key.raw, KeyType.COSIGNATURE_ED25519)}\n{LOG}quorum none\n"
    ),
    "one name twice": f"{W1}witness A {witness(2).key}\nquorum none\n",
    "a witness called none": f"witness none {witness(2).key}\nquorum none\n",
    "a group called none": f"{W1}group none any A\nquorum none\n",
    "a group named like a witness": f"{W1}{W2}group A any B\nquorum A\n",
    "a group without members": f"{W1}group G any\nquorum A\n",
    "a group of none": f"{W1}group G any none\nquorum A\n",
    "a group of the unknown": f"{W1}group G any A B\n{W2}quorum A\n",
    "a group of itself": f"{W1}group G any G\nquorum A\n",
    "a member twice": f"{W1}group G all A A\nquorum G\n",
    "a member of two groups": f"{W1}group G any A\ngroup H any A\nquorum G\n",
    "a threshold of nothing": f"{W1}group G 0 A\nquorum G\n",
    "a threshold above all": f"{W1}group G 2 A\nquorum G\n",
    "a threshold below nothing": f"{W1}group G -1 A\nquorum G\n",
    "a threshold with a zero in front": f"{W1}group G 01 A\nquorum G\n",
    "a threshold with a sign": f"{W1}group G +1 A\nquorum G\n",
    "a threshold in other digits": f"{W1}group G \u0661 A\nquorum G\n",
    "a threshold in a word": f"{W1}group G most A\nquorum G\n",
    "too many groups": f"{W1}{CHAIN}group one-more any {POLICY_LINES_MAX}\nquorum A\n",
    "too large": "#" * POLICY_BYTES_MAX + "\nquorum none\n",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_what_is_no_policy_is_refused(text: str) -> None:
    assert refusal(parsed, text) is Reason.POLICY_MALFORMED


@pytest.mark.parametrize("kind", ["log", "witness"])
def test_a_policy_has_room_for_sixty_four_of_each_and_no_more(kind: str) -> None:
    types = {"log": KeyType.ED25519, "witness": KeyType.COSIGNATURE_ED25519}
    keys = [note_signer(f"{kind}{number}", types[kind]).key for number in range(POLICY_LINES_MAX + 1)]
    lines = [f"{kind} {f'{number} ' if kind == 'witness' else ''}{key}\n" for number, key in enumerate(keys)]
    assert refusal(parsed, "".join(lines[:-1]) + "quorum none\n") is None
    assert refusal(parsed, "".join(lines) + "quorum none\n") is Reason.POLICY_MALFORMED


def test_a_long_chain_of_groups_is_judged() -> None:
    policy = parsed(f"{W1}{CHAIN}quorum {POLICY_LINES_MAX}\n")
    assert policy.witnessing(cosigned(1), now=NOW).met
    assert len(policy.witnessing(cosigned(), now=NOW).shortfall) == POLICY_LINES_MAX


def test_the_line_at_fault_is_named_and_no_key_is_repeated() -> None:
    with pytest.raises(InputError) as caught:
        parsed(f"\n# one\n{W1}{W1}quorum A\n")
    assert caught.value.field == "policy.line[4]"


def test_names_are_octets_and_not_characters() -> None:
    # The Kelvin sign is not K, and what is no UTF-8 is a name all the same.
    keys = [witness(number).key for number in (1, 2, 3)]
    names = (b"K", b"\xe2\x84\xaa", b"\xff")
    lines = [b"witness %b %b\n" % (name, str(key).encode()) for name, key in zip(names, keys, strict=True)]
    data = b"".join(lines) + b"group all all K \xe2\x84\xaa \xff\nquorum all\n"
    policy = LogPolicy.parse(data)
    assert LogPolicy.parse(policy.encode()) == policy
    assert policy.encode().replace(b" 3 ", b" all ") == data
    found = policy.witnessing(cosigned(1, 2), now=NOW)
    assert found.missing == ("\udcff",)
    assert found.shortfall[0].encode(), "what is shown can be printed"


@given(st.binary(max_size=80) | st.text(alphabet="logwitnesgrupqm none#\t\n12+A", max_size=80).map(str.encode))
def test_any_bytes_are_a_policy_or_refused(data: bytes) -> None:
    assert refusal(LogPolicy.parse, data) in {None, Reason.POLICY_MALFORMED}


@given(st.data())
def test_a_policy_with_one_byte_changed_is_another_policy_or_none(data: st.DataObject) -> None:
    written = bytearray(EXAMPLE.encode())
    written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    if refusal(LogPolicy.parse, bytes(written)) is None:
        policy = LogPolicy.parse(bytes(written))
        assert LogPolicy.parse(policy.encode()) == policy
    else:
        assert refusal(LogPolicy.parse, bytes(written)) is Reason.POLICY_MALFORMED


@given(st.sets(st.integers(1, 6)), st.integers(1, 3), st.sampled_from(["all", "any", "1", "2", "3"]))
def test_groups_count_as_the_specification_says(numbers: set[int], k: int, outer: str) -> None:
    witnesses = "".join(f"witness {number} {witness(number).key}\n" for number in range(1, 7))
    groups = f"group a {k} 1 2 3\ngroup b all 4 5\ngroup c {outer} a b 6\nquorum c\n"
    signers = [witness(number) for number in sorted(numbers)]
    found = parsed(witnesses + groups).witnessing(signed(checkpoint(9), *signers), now=NOW)
    there = (len(numbers & {1, 2, 3}) >= k) + ({4, 5} <= numbers) + (6 in numbers)
    assert found.met == (there >= {"all": 3, "any": 1}.get(outer, int(outer) if outer.isdigit() else 0))
