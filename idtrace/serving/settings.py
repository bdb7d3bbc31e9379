"""Configuration as a frozen mapping is read: every key typed, bounded and known, every error with the key's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from idtrace.delegation import check_endpoint
from idtrace.errors import InputError, Reason

T = TypeVar("T")


class Settings:
    """Reads each key once; :meth:`end` refuses those that nobody asked for. Paths are relative to ``base``."""

    def __init__(self, mapping: Mapping[str, object], base: Path, *, table: str = "") -> None:
        self._left: dict[str, Any] = dict(mapping)
        self._base = base
        self._table = table

    def _fail(self, name: str, rule: str) -> InputError:
        path = f"{self._table}.{name}" if self._table else name
        return InputError(Reason.FIELD_MALFORMED, f"setting {path} {rule}", field=path)

    def _typed(self, name: str, kind: type[T], default: T | None, rule: str) -> T:
        value = self._left.pop(name, default)
        if value is None:
            raise self._fail(name, "is missing")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self._fail(name, rule)
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A string."""
        return self._typed(name, str, default, "is not a string")

    def role(self, role: str) -> None:
        """The optional key ``role``: a file for the other program is refused, whatever else it holds."""
        if self.text("role", role) != role:
            raise self._fail("role", f"is not {role}, the program that was started")

    def boolean(self, name: str, *, default: bool) -> bool:
        """True or false."""
        return self._typed(name, bool, default, "is neither true nor false")

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        """An integer of ``least`` to ``most``."""
        value = self._typed(name, int, default, "is not an integer")
        if not least <= value <= most:
            raise self._fail(name, f"is not within {least} and {most}")
        return value

    def seconds(self, name: str, default: float, *, least: float, most: float) -> float:
        """A number of seconds of ``least`` to ``most``."""
        value = self._left.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._fail(name, "is not a number of seconds")
        if not least <= value <= most:
            raise self._fail(name, f"is not within {least} and {most} seconds")
        return float(value)

    def path(self, name: str) -> Path:
        """A path, relative to the configuration file."""
        return self._base / self.text(name)

    def texts(self, name: str, *, least: int = 0, most: int) -> tuple[str, ...]:
        """A list of strings."""
        value: list[object] = self._typed(name, list, [] if least == 0 else None, "is not a list")
        if not least <= len(value) <= most or not all(isinstance(item, str) for item in value):
            raise self._fail(name, f"is not a list of {least} to {most} strings")
        return tuple(str(item) for item in value)

    def endpoints(self, name: str, *, least: int = 0, most: int) -> tuple[str, ...]:
        """A list of host:port."""
        values = self.texts(name, least=least, most=most)
        for value in values:
            check_endpoint(value, field=name)
        return values

    def end(self) -> None:
        """Refuse unknown keys: a misspelt one would silently leave a default in force."""
        for name in self._left:
            raise self._fail(name, "is not known")
