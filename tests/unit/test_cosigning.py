"""What a log asks its witnesses: one checkpoint at a time until enough have cosigned it; nothing is believed unread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason, VerificationError
from idtrace.logpolicy import COSIGNATURE_SKEW_SECONDS, LogPolicy
from idtrace.note import Note, NoteSigner, verified_signatures
from registry.cosigning import (
    BACK_OFF_SECONDS_MAX,
    BACK_OFF_SECONDS_MIN,
    Answer,
    Ask,
    Cosigned,
    Cosigning,
    Failed,
    Forked,
    Heard,
    Stale,
    Witnessed,
    submission_url,
)
from tests.log_fixtures import COSIGNATURES, NOW, checkpoint, refusal, signed, witness_signer
from tests.served_log import policy

URLS = tuple(f"https://w{number}.example/" for number in (1, 2, 3))
TEXT = "text/plain; charset=utf-8"


def cosigning(quorum: int = 2, offered: int = 5) -> Cosigning:
    """Three witnesses, and a log of this size."""
    found = Cosigning(policy(*URLS, quorum=quorum))
    if offered:
        found.offer(signed(checkpoint(offered)))
    return found


def number_of(ask: Ask) -> int:
    return URLS.index(ask.url.removesuffix("add-checkpoint")) + 1


def cosignature(ask: Ask, signer: NoteSigner | None = None, at: int = NOW) -> Answer:
    line = (signer or witness_signer(number_of(ask))).sign(ask.note.text, at).line
    return Answer(200, TEXT, line.encode())


def conflict(size: int) -> Answer:
    return Answer(409, "text/x.tlog.size", f"{size}\n".encode())


def hear(state: Cosigning, ask: Ask, answer: Answer | None = None, tick: float = 0.0) -> Heard:
    """The answer, or an honest cosignature."""
    return state.heard(ask, answer or cosignature(ask), now=NOW, tick=tick)


def who(note: Note) -> list[str]:
    return [one.key.name for one in verified_signatures(note, [witness_signer(n).key for n in (1, 2, 3)])]


def test_all_witnesses_are_asked_at_once_and_none_twice() -> None:
    state = cosigning()
    asks = state.due(0.0)
    assert [(ask.url, ask.old_size, ask.checkpoint.size) for ask in asks] == [
        (f"https://w{number}.example/add-checkpoint", 0, 5) for number in (1, 2, 3)
    ]
    assert state.due(0.0) == ()
    assert state.wake_at() is None


def test_nothing_is_asked_before_there_is_a_checkpoint() -> None:
    state = cosigning(offered=0)
    assert state.due(0.0) == ()
    assert state.wake_at() is None


def test_the_quorum_makes_it_witnessed_and_not_one_fewer() -> None:
    state = cosigning()
    first, second, third = state.due(0.0)
    assert hear(state, second) == Cosigned()
    assert state.published_size == 0
    heard = hear(state, first)
    assert isinstance(heard, Witnessed)
    assert (heard.size, who(heard.note)) == (5, ["witness.example/w2", "witness.example/w1"])
    assert state.published_size == 5
    late = hear(state, third)
    assert isinstance(late, Witnessed), "one that comes late is added for those who ask for more"
    assert len(who(late.note)) == 3


def test_a_late_cosignature_is_added_also_when_the_next_checkpoint_is_being_asked_about() -> None:
    state = cosigning()
    first, second, third = state.due(0.0)
    hear(state, first)
    hear(state, second)
    state.offer(signed(checkpoint(9)))
    assert [ask.old_size for ask in state.due(0.0)] == [5, 5]
    late = hear(state, third)
    assert isinstance(late, Witnessed)
    assert (late.size, len(who(late.note))) == (5, 3)


def test_one_that_comes_after_a_later_checkpoint_was_published_changes_nothing() -> None:
    state = cosigning()
    first, second, third = state.due(0.0)
    hear(state, first)
    hear(state, second)
    state.offer(signed(checkpoint(9)))
    for ask in state.due(0.0):
        hear(state, ask)
    assert state.published_size == 9
    assert hear(state, third) == Cosigned()
    assert state.published_size == 9
    (again,) = state.due(0.0)
    assert (again.old_size, again.checkpoint.size) == (5, 9)


def test_only_the_newest_goes_out_and_only_when_the_one_before_is_done_with() -> None:
    state = cosigning()
    first, second, third = state.due(0.0)
    for size in (6, 7, 8):
        state.offer(signed(checkpoint(size)))
    assert isinstance(hear(state, first), Cosigned)
    assert state.due(0.0) == (), "who is free waits: two witnesses have to cosign the same one"
    assert isinstance(hear(state, second), Witnessed)
    assert [ask.checkpoint.size for ask in state.due(0.0)] == [8, 8]
    hear(state, third)
    assert [ask.checkpoint.size for ask in state.due(0.0)] == [8]


def test_while_the_quorum_is_out_of_reach_the_newest_is_tried_and_nothing_is_lost() -> None:
    state = cosigning()
    first, second, third = state.due(0.0)
    hear(state, first)
    state.silent(second, "dead", tick=0.0)
    state.offer(signed(checkpoint(9)))
    assert state.due(0.0) == ()
    state.silent(third, "dead", tick=0.0)
    (alive,) = state.due(0.0)
    assert (number_of(alive), alive.checkpoint.size) == (1, 9)
    hear(state, alive)
    tick = state.wake_at()
    assert tick == BACK_OFF_SECONDS_MIN
    back, _dead = state.due(tick)
    heard = hear(state, back)
    assert isinstance(heard, Witnessed)
    assert heard.size == 9


def test_a_checkpoint_that_is_not_larger_is_no_news() -> None:
    state = cosigning()
    asks = state.due(0.0)
    for size in (5, 4):
        state.offer(signed(checkpoint(size)))
    for ask in asks:
        hear(state, ask)
    assert state.due(0.0) == ()


def test_status_409_tells_where_the_proof_has_to_start() -> None:
    state = cosigning()
    first, *_ = state.due(0.0)
    assert hear(state, first, conflict(3)) == Stale()
    (again,) = state.due(0.0)
    assert (number_of(again), again.old_size) == (1, 3)
    assert hear(state, again) == Cosigned()


def test_a_witness_that_names_one_size_after_the_other_is_left_alone_for_a_while() -> None:
    state = cosigning()
    ask, *_ = state.due(0.0)
    for size in (3, 2):
        assert hear(state, ask, conflict(size)) == Stale()
        (ask,) = state.due(0.0)
    heard = hear(state, ask, conflict(4))
    assert isinstance(heard, Failed)
    assert heard.reason is Reason.ANSWER_CONTRADICTS_ITSELF
    assert state.due(0.0) == ()
    assert [one.old_size for one in state.due(1.0)] == [4]


def test_a_witness_that_wants_what_it_got_is_left_alone_too() -> None:
    state = cosigning()
    ask, *_ = state.due(0.0)
    heard = hear(state, ask, conflict(0))
    assert isinstance(heard, Failed)
    assert heard.reason is Reason.ANSWER_CONTRADICTS_ITSELF


def test_a_witness_that_has_forgotten_what_it_cosigned_is_named_and_used_again() -> None:
    state = cosigning()
    ask, *_ = state.due(0.0)
    for one in (ask, *_):
        hear(state, one)
    state.offer(signed(checkpoint(9)))
    ask, *_ = state.due(0.0)
    heard = hear(state, ask, conflict(2))
    assert isinstance(heard, Failed)
    assert "cosigned 5" in heard.detail
    (again,) = state.due(1.0)
    assert again.old_size == 2
    assert isinstance(hear(state, again), Cosigned | Witnessed)


@pytest.mark.parametrize("size", [6, 2**40])
def test_a_witness_that_has_seen_more_than_the_log_has_is_a_fork(size: int) -> None:
    state = cosigning()
    ask, *_ = state.due(0.0)
    heard = hear(state, ask, conflict(size), tick=10.0)
    assert isinstance(heard, Forked)
    assert (heard.refused, heard.cosigned) == (ask.note, None)
    assert state.wake_at() == 10.0 + BACK_OFF_SECONDS_MAX


@pytest.mark.parametrize("answer", [conflict(5), Answer(409, TEXT, b"the roots differ\n"), Answer(422, TEXT, b"")])
def test_another_tree_of_one_size_is_a_fork_however_the_witness_says_it(answer: Answer) -> None:
    state = cosigning()
    ask, *_ = state.due(0.0)
    hear(state, ask, conflict(5))
    (again,) = state.due(0.0)
    assert again.old_size == 5
    assert isinstance(hear(state, again, answer), Forked)


def test_a_refused_proof_is_a_fork_and_both_signed_notes_are_named() -> None:
    state = cosigning()
    asks = state.due(0.0)
    for ask in asks:
        hear(state, ask)
    state.offer(signed(checkpoint(9)))
    ask, *_ = state.due(0.0)
    heard = hear(state, ask, Answer(422, TEXT, b"no\n"))
    assert isinstance(heard, Forked)
    assert heard.refused == signed(checkpoint(9))
    assert heard.cosigned is not None
    assert who(heard.cosigned) == ["witness.example/w1"]
    (again,) = state.due(BACK_OFF_SECONDS_MAX)
    assert again.old_size == 0, "it will say again what it has seen"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(403, TEXT, b""), Reason.SIGNER_UNKNOWN),
        (Answer(404, TEXT, b""), Reason.LOG_UNKNOWN),
        (Answer(302, TEXT, b""), Reason.NO_ANSWER),
        (Answer(500, TEXT, b""), Reason.NO_ANSWER),
        (Answer(200, TEXT, b""), Reason.NOTE_MALFORMED),
        (Answer(200, TEXT, b"\xff\n"), Reason.NOTE_MALFORMED),
        (Answer(200, TEXT, b"x" * 300_000), Reason.FIELD_TOO_LARGE),
        (Answer(409, TEXT, b"3\n"), Reason.ANSWER_MALFORMED),
        (Answer(409, "", b"3\n"), Reason.ANSWER_MALFORMED),
        (Answer(409, "text/x.tlog.size", b"3"), Reason.PROOF_MALFORMED),
        (Answer(409, "text/x.tlog.size", b"-3\n"), Reason.PROOF_MALFORMED),
        (Answer(409, "text/x.tlog.size", b"99999999999999999999\n"), Reason.PROOF_MALFORMED),
    ],
)
def test_what_is_no_cosignature_counts_for_nothing_and_is_tried_again_later(answer: Answer, reason: Reason) -> None:
    state = cosigning(quorum=1)
    ask, *_ = state.due(0.0)
    heard = hear(state, ask, answer)
    assert isinstance(heard, Failed)
    assert heard.reason is reason
    assert state.published_size == 0
    assert state.due(BACK_OFF_SECONDS_MIN - 0.01) == ()
    assert [number_of(one) for one in state.due(BACK_OFF_SECONDS_MIN)] == [1]


def test_a_forged_cosignature_and_one_by_another_key_count_for_nothing() -> None:
    state = cosigning(quorum=1)
    first, second, third = state.due(0.0)
    other = cosignature(Ask(first.url, 0, signed(checkpoint(4)), checkpoint(4)))
    for ask, answer, reason in (
        (first, other, Reason.COSIGNATURE_INVALID),
        (second, cosignature(second, witness_signer(7)), Reason.SIGNER_UNKNOWN),
        (third, cosignature(third, witness_signer(1)), Reason.SIGNER_UNKNOWN),
    ):
        heard = hear(state, ask, answer)
        assert isinstance(heard, Failed)
        assert heard.reason is reason
    assert state.published_size == 0


def test_a_cosignature_from_the_future_does_not_count_and_is_asked_for_again() -> None:
    state = cosigning(quorum=1)
    ask, *_ = state.due(0.0)
    heard = hear(state, ask, cosignature(ask, at=NOW + COSIGNATURE_SKEW_SECONDS + 1))
    assert isinstance(heard, Failed)
    assert heard.reason is Reason.COSIGNATURE_FROM_FUTURE
    (again,) = state.due(BACK_OFF_SECONDS_MIN)
    assert again.old_size == 5, "but it has seen the tree"
    assert isinstance(hear(state, again, cosignature(again, at=NOW + COSIGNATURE_SKEW_SECONDS)), Witnessed)


def test_back_off_doubles_up_to_its_limit_and_ends_with_the_first_cosignature() -> None:
    state = Cosigning(policy(URLS[0]))
    state.offer(signed(checkpoint(5)))
    tick, waits = 0.0, []
    for _ in range(40):
        (ask,) = state.due(tick)
        state.silent(ask, "dead", tick=tick)
        wake = state.wake_at()
        assert wake is not None
        waits.append(wake - tick)
        tick = wake
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert set(waits[10:]) == {BACK_OFF_SECONDS_MAX}
    (ask,) = state.due(tick)
    hear(state, ask)
    state.offer(signed(checkpoint(6)))
    (ask,) = state.due(tick)
    state.silent(ask, "dead", tick=tick)
    assert state.wake_at() == tick + BACK_OFF_SECONDS_MIN


def test_what_was_published_before_a_restart_saves_asking_and_is_not_asked_for_again() -> None:
    kept = signed(checkpoint(5), witness_signer(1), witness_signer(2))
    state = cosigning(offered=0)
    state.restore(kept)
    assert state.published_size == 5
    state.offer(signed(checkpoint(5)))
    (third,) = state.due(0.0)
    assert (number_of(third), third.old_size) == (3, 0)
    assert third.note == signed(checkpoint(5)), "a witness is shown the log's own signature alone"
    late = hear(state, third)
    assert isinstance(late, Witnessed)
    assert len(who(late.note)) == 3
    state.offer(signed(checkpoint(9)))
    assert [ask.old_size for ask in state.due(0.0)] == [5, 5, 5]


def test_a_damaged_store_is_not_taken_for_a_published_checkpoint() -> None:
    other = witness_signer(1).sign(checkpoint(4).text, NOW)
    with pytest.raises(VerificationError) as caught:
        cosigning().restore(signed(checkpoint(5)).signed(other))
    assert caught.value.reason is Reason.COSIGNATURE_INVALID


def test_two_witnesses_at_one_address_are_asked_once_and_each_counts() -> None:
    old, new = (witness_signer(1, key_type) for key_type in COSIGNATURES)
    lines = f"witness a {old.key} {URLS[0]}\nwitness b {new.key} {URLS[0]}\ngroup g all a b\nquorum g\n"
    state = Cosigning(LogPolicy.parse(lines.encode()))
    state.offer(signed(checkpoint(5)))
    (ask,) = state.due(0.0)
    body = b"".join(signer.sign(ask.note.text, NOW).line.encode() for signer in (old, new))
    assert isinstance(hear(state, ask, Answer(200, TEXT, body)), Witnessed)


def test_a_log_without_a_quorum_of_witnesses_has_none_to_ask() -> None:
    lines = f"witness w {witness_signer(1).key} {URLS[0]}\nquorum none\n"
    assert refusal(Cosigning, LogPolicy.parse(lines.encode())) is Reason.POLICY_MALFORMED


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://w.example", "https://w.example/add-checkpoint"),
        ("http://127.0.0.1:7380/", "http://127.0.0.1:7380/add-checkpoint"),
        ("https://w.example/a/b/", "https://w.example/a/b/add-checkpoint"),
        ("http://[::1]:1", "http://[::1]:1/add-checkpoint"),
    ],
)
def test_the_address_is_the_submission_prefix(url: str, asked: str) -> None:
    assert submission_url(url, field="witness w") == asked


@pytest.mark.parametrize(
    "url",
    [
        "",
        "w.example",
        "ftp://w.example",
        "file:///etc/passwd",
        "https://",
        "https://user" + ":secret" + "@w.example",
        "https://@w.example",
        "https://w.example/?q",
        "https://w.example/#f",
        "https://w.example:99999",
        "https://w.example:0",
        "https://w.example:x",
        "https://[::1",
        "https://wé.example",
        "https://w.example/a\x7fb",
    ],
)
def test_what_is_no_address_of_a_witness_is_refused(url: str) -> None:
    with pytest.raises(InputError) as caught:
        submission_url(url, field="witness w")
    assert (caught.value.reason, caught.value.field) == (Reason.POLICY_MALFORMED, "witness w")


@given(st.data())
def test_whatever_witnesses_do_published_checkpoints_grow_are_met_and_no_witness_is_asked_twice_at_once(
    data: st.DataObject,
) -> None:
    """A model: at each step the log grows, time passes, or one request ends in one of many ways."""
    state, rules = cosigning(offered=0), policy(*URLS, quorum=2)
    under_way: dict[str, Ask] = {}
    size, tick, published = 0, 0.0, 0
    for _ in range(data.draw(st.integers(1, 40))):
        match data.draw(st.sampled_from(["grow", "pass", "end", "end", "end"])):
            case "grow":
                size += data.draw(st.integers(1, 3))
                state.offer(signed(checkpoint(size)))
            case "pass":
                tick += data.draw(st.floats(0.0, 70.0))
            case _ if under_way:
                ask = under_way.pop(data.draw(st.sampled_from(sorted(under_way))))
                if data.draw(st.booleans()):
                    heard: Heard = hear(state, ask, tick=tick)
                else:
                    others = [conflict(data.draw(st.integers(0, size + 1))), Answer(422, TEXT, b""), None]
                    answer = data.draw(st.sampled_from(others))
                    heard = hear(state, ask, answer, tick) if answer else state.silent(ask, "dead", tick=tick)
                if isinstance(heard, Witnessed):
                    assert heard.size >= published
                    published = heard.size
                    assert rules.witnessing(heard.note, now=NOW).met
            case _:
                pass
        for ask in state.due(tick):
            assert ask.url not in under_way
            assert 0 <= ask.old_size <= ask.checkpoint.size <= size
            under_way[ask.url] = ask
        assert state.published_size == published
    # Whatever has happened: once the witnesses are honest and there is time, the log is witnessed to its end.
    for _ in range(12):
        for url in list(under_way):
            hear(state, under_way.pop(url), tick=tick)
        tick += BACK_OFF_SECONDS_MAX
        under_way = {ask.url: ask for ask in state.due(tick)}
    assert state.published_size == size
