"""Tokens of pages: bound to their request, signed, mortal, and deleted for good."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason, RefusedError
from registry import event_http_paging
from registry.event_http_paging import CURSOR_BYTES_MAX, LIFE_MS, TOKEN_CHARS_MAX, PageTokens, Paging, request_digest

TOKENS = PageTokens(b"k" * 32)
REQUEST = request_digest("/events", [("EQ_action", "ADD")])
NOW = 1_800_000_000_000


def paging(tokens: PageTokens, *parameters: tuple[str, str], path: str = "/events", now_ms: int = NOW) -> Paging:
    return Paging(tokens, path, parameters, now_ms)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.integers(0, 2**50))
def test_a_token_gives_back_its_cursor_until_it_ends(cursor: str, now: int) -> None:
    token, ends = TOKENS.issue(REQUEST, cursor, now)
    assert ends == now + LIFE_MS
    assert TOKENS.open(token, REQUEST, now) == TOKENS.open(token, REQUEST, ends - 1) == cursor
    with pytest.raises(RefusedError) as gone:
        TOKENS.open(token, REQUEST, ends)
    assert gone.value.reason is Reason.PAGE_GONE


def test_the_longest_cursor_has_a_token_that_is_read() -> None:
    token, _ = TOKENS.issue(REQUEST, "x" * CURSOR_BYTES_MAX, NOW)
    assert len(token) <= TOKEN_CHARS_MAX
    assert TOKENS.open(token, REQUEST, NOW) == "x" * CURSOR_BYTES_MAX


@given(st.data())
def test_no_other_bytes_are_a_token(data: st.DataObject) -> None:
    token, _ = TOKENS.issue(REQUEST, "cursor", NOW)
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    forged = base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")
    for refused in (forged, token[: data.draw(st.integers(0, len(token) - 1))], data.draw(st.text(max_size=90))):
        with pytest.raises(InputError) as error:
            TOKENS.open(refused, REQUEST, NOW)
        assert error.value.field == "nextPageToken"


def test_a_token_of_another_key_another_request_or_too_long_is_refused() -> None:
    token, _ = TOKENS.issue(REQUEST, "cursor", NOW)
    with pytest.raises(InputError):
        PageTokens(b"o" * 32).open(token, REQUEST, NOW)
    with pytest.raises(InputError, match="another request"):
        TOKENS.open(token, request_digest("/events", []), NOW)
    with pytest.raises(InputError):
        TOKENS.open("A" * (TOKEN_CHARS_MAX + 1), REQUEST, NOW)


def test_the_order_of_parameters_and_the_size_of_pages_do_not_matter_but_all_else_does() -> None:
    same = request_digest("/events", [("a", "1"), ("b", "2"), ("b", "3")])
    assert (
        request_digest("/events", [("b", "3"), ("perPage", "9"), ("a", "1"), ("nextPageToken", "x"), ("b", "2")])
        == same
    )
    others = [
        request_digest("/epcs", [("a", "1"), ("b", "2"), ("b", "3")]),
        request_digest("/events", [("a", "1"), ("b", "2")]),
        request_digest("/events", [("a", "1"), ("b", "2"), ("b", "2")]),
        request_digest("/events", [("a", "2"), ("b", "1"), ("b", "3")]),
    ]
    assert len({same, *others}) == 5


def test_a_deleted_token_opens_nothing_until_it_would_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_http_paging, "DELETED_MAX", 2)
    tokens = PageTokens(b"k" * 32)
    issued = [tokens.issue(REQUEST, str(number), NOW + number)[0] for number in range(3)]
    tokens.delete(issued[0], NOW)
    tokens.delete(issued[0], NOW)
    with pytest.raises(RefusedError):
        tokens.open(issued[0], REQUEST, NOW)
    assert tokens.open(issued[1], REQUEST, NOW) == "1"
    tokens.delete(issued[1], NOW)
    tokens.delete(issued[2], NOW)
    assert len(tokens._deleted) == 2
    with pytest.raises(RefusedError):
        tokens.open(issued[2], REQUEST, NOW + LIFE_MS + 5)
    assert not tokens._deleted
    with pytest.raises(InputError):
        tokens.delete("x", NOW)


def test_a_request_without_a_token_begins_and_its_next_page_goes_on() -> None:
    first = paging(TOKENS, ("EQ_bizStep", "a b&c"), ("perPage", "5"))
    assert first.cursor() == ""
    assert first.next(None) == {}
    headers = first.next("there")
    target, rel = headers["link"].split("; ")
    assert rel == 'rel="next"'
    assert headers["gs1-next-page-token-expires"] == "2027-01-15T09:00:00.000Z"
    path, _, query = target[1:-1].partition("?")
    assert path == "/events"
    assert query.startswith("EQ_bizStep=a%20b%26c&perPage=5&nextPageToken=")
    token = query.rpartition("=")[2]
    second = paging(TOKENS, ("EQ_bizStep", "a b&c"), ("perPage", "9"), ("nextPageToken", token))
    assert second.cursor() == "there"
    assert second.next("on")["link"].count("nextPageToken") == 1
    with pytest.raises(InputError, match="one token"):
        paging(TOKENS, ("nextPageToken", token), ("nextPageToken", token)).cursor()


@pytest.mark.parametrize("size", ["", "0", "-1", "1.0", "²", "11", "9" * 40, "x"])
def test_a_page_of_no_size_is_refused(size: str) -> None:
    with pytest.raises(InputError) as error:
        paging(TOKENS, ("perPage", size)).size(3, 10)
    assert error.value.field == "perPage"


def test_a_page_has_the_size_that_is_asked_for_and_no_unknown_parameters() -> None:
    assert paging(TOKENS).size(3, 10) == 3
    assert paging(TOKENS, ("perPage", "10")).size(3, 10) == 10
    with pytest.raises(InputError):
        paging(TOKENS, ("perPage", "1"), ("perPage", "1")).size(3, 10)
    paging(TOKENS, ("perPage", "1"), ("nextPageToken", "x")).require_no_others()
    with pytest.raises(InputError) as error:
        paging(TOKENS, ("EQ_action", "ADD")).require_no_others()
    assert error.value.field == "EQ_action"
