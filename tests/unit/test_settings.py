"""Settings: every key typed, bounded and known; every complaint names the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idtrace.errors import InputError, Reason
from idtrace.serving.settings import Settings

BASE = Path("/etc/idtrace")


def settings(**keys: Any) -> Settings:
    return Settings(keys, BASE)


def complaint(action: Callable[[], object]) -> tuple[Reason, str]:
    with pytest.raises(InputError) as caught:
        action()
    return caught.value.reason, caught.value.field


def test_what_is_right_is_read() -> None:
    given = settings(t="x", b=True, i=3, s=1.5, whole=2, p="d/f", a="/abs", l=["x", "y"], e=["h:1", "[::1]:2"])
    assert given.text("t") == "x"
    assert given.boolean("b", default=False) is True
    assert given.integer("i", 0, least=0, most=3) == 3
    assert (given.seconds("s", 0, least=0, most=2), given.seconds("whole", 0, least=0, most=2)) == (1.5, 2.0)
    assert (given.path("p"), given.path("a")) == (BASE / "d/f", Path("/abs"))
    assert given.texts("l", least=2, most=2) == ("x", "y")
    assert given.endpoints("e", most=2) == ("h:1", "[::1]:2")
    given.end()


def test_what_is_absent_takes_its_default() -> None:
    given = settings()
    assert given.text("t", "") == ""
    assert given.boolean("b", default=False) is False
    assert given.integer("i", 7, least=0, most=9) == 7
    assert given.seconds("s", 2, least=0, most=9) == 2.0
    assert given.texts("l", most=3) == given.endpoints("e", most=3) == ()
    given.end()


@pytest.mark.parametrize(
    "read",
    [
        lambda: settings().text("k"),
        lambda: settings().path("k"),
        lambda: settings().texts("k", least=1, most=2),
        lambda: settings(k=None).text("k"),
        lambda: settings(k=1).text("k"),
        lambda: settings(k=1).boolean("k", default=True),
        lambda: settings(k="yes").boolean("k", default=True),
        lambda: settings(k=True).integer("k", 0, least=0, most=9),
        lambda: settings(k=1.0).integer("k", 0, least=0, most=9),
        lambda: settings(k="1").integer("k", 0, least=0, most=9),
        lambda: settings(k=-1).integer("k", 0, least=0, most=9),
        lambda: settings(k=10).integer("k", 0, least=0, most=9),
        lambda: settings(k=True).seconds("k", 0, least=0, most=9),
        lambda: settings(k="1").seconds("k", 0, least=0, most=9),
        lambda: settings(k=9.1).seconds("k", 0, least=0, most=9),
        lambda: settings(k=float("nan")).seconds("k", 0, least=0, most=9),
        lambda: settings(k=float("inf")).seconds("k", 0, least=0, most=9),
        lambda: settings(k="x").texts("k", most=2),
        lambda: settings(k=["x", 1]).texts("k", most=2),
        lambda: settings(k=[]).texts("k", least=1, most=2),
        lambda: settings(k=["x"] * 3).texts("k", most=2),
        lambda: settings(k=["host"]).endpoints("k", most=2),
        lambda: settings(k=["h:1", "h:65536"]).endpoints("k", most=2),
        lambda: settings(k=1).end(),
    ],
)
def test_what_is_wrong_is_named(read: Callable[[], object]) -> None:
    assert complaint(read) == (Reason.FIELD_MALFORMED, "k")


def test_a_table_stands_before_its_keys() -> None:
    assert complaint(lambda: Settings({"k": 1}, BASE, table="edge").end()) == (Reason.FIELD_MALFORMED, "edge.k")


def test_a_key_is_read_once_and_the_mapping_stays_as_it_is() -> None:
    mapping: dict[str, object] = {"k": "x"}
    given = Settings(mapping, BASE)
    given.text("k")
    given.end()
    assert mapping == {"k": "x"}
    assert complaint(lambda: given.text("k")) == (Reason.FIELD_MALFORMED, "k")
