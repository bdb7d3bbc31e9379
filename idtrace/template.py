"""Metadata templates: what a class record demands of the items and blocks that name it.

A class record is a record of kind ``class`` with one value of type ``idtrace.template`` (canonical JSON: ``open`` and
``fields``). It is published once it is registered and active. A class may itself name a class: its fields come on top
of what it inherits, and may not redefine it. Its other values (product name, maker, storage temperature …) hold for
every item that does not state them itself: see :func:`inherited`.
Source: enterprise-node practice (template draft → publish; typed items, required and unique flags).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from idtrace import canonical
from idtrace.canonical import Json
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.identifier import Identifier, require_visible
from idtrace.record import VALUE_TYPE_MAX, VALUES_MAX

TEMPLATE_TYPE: Final = "idtrace.template"
# A product line, its family, its maker's base and an industry base; deeper chains only hide rules.
CLASS_DEPTH_MAX: Final = 4
CODES_MAX: Final = 1_000

_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?\Z")
_FILE = re.compile(r"sha256:[0-9a-f]{64}\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")


class FieldType(StrEnum):
    """Type of a field's data, which is always UTF-8 text."""

    TEXT = "text"  # any visible text
    NUMBER = "number"  # decimal, "." as the point, no exponent
    DATE = "date"  # YYYY-MM-DD (RFC 3339 full-date)
    CODE = "code"  # one of the field's codes
    REFERENCE = "reference"  # a canonical identifier
    FILE = "file"  # "sha256:" and 64 hex digits of a file kept elsewhere


@dataclass(frozen=True, slots=True)
class TemplateField:
    """One typed field; its name is the type of the value that fills it."""

    name: str
    type: FieldType
    required: bool
    unique: bool
    codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """The fields of a class with all that it inherits; ``open`` admits values that no field names."""

    fields: tuple[TemplateField, ...]
    open: bool

    def payload(self) -> bytes:
        """Canonical bytes, the data of a class record's template value."""
        fields: list[Json] = [
            {
                "name": f.name,
                "type": f.type,
                "required": f.required,
                "unique": f.unique,
                "codes": list(f.codes),
            }
            for f in self.fields
        ]
        return canonical.encode({"fields": fields, "open": self.open})

    @classmethod
    def parse(cls, data: bytes, *, field: str = "template") -> Template:
        """Read a template value.

        Raises:
            InputError: TEMPLATE_MALFORMED, or a field's own reason.
        """
        body = canonical.decode(data, field=field)
        fields: dict[str, TemplateField] = {}
        for item in body.objects("fields", most=VALUES_MAX):
            name = item.text("name", most=VALUE_TYPE_MAX)
            require_visible(name, what="name", field=item.path("name"))
            if name in fields or name == TEMPLATE_TYPE:
                raise InputError(Reason.TEMPLATE_MALFORMED, f"field {name} stands twice", field=item.path("name"))
            type_ = item.choice("type", FieldType)
            codes = tuple(item.texts("codes", most=CODES_MAX))
            if (type_ is FieldType.CODE) != bool(codes):
                rule = "a field of type code lists its codes, and no other does"
                raise InputError(Reason.TEMPLATE_MALFORMED, rule, field=item.path("codes"))
            for code in codes:
                require_visible(code, what="code", field=item.path("codes"))
            if len(set(codes)) != len(codes):
                raise InputError(Reason.TEMPLATE_MALFORMED, "a code stands once", field=item.path("codes"))
            fields[name] = TemplateField(name, type_, item.boolean("required"), item.boolean("unique"), codes)
            item.end()
        template = cls(tuple(fields.values()), body.boolean("open"))
        body.end()
        return template

    def extend(self, child: Template, *, field: str = "template") -> Template:
        """This template with a child class's fields on top; open only where both are.

        Raises:
            InputError: TEMPLATE_MALFORMED where the child redefines an inherited field.
        """
        names = {f.name for f in self.fields}
        for own in child.fields:
            if own.name in names:
                raise InputError(
                    Reason.TEMPLATE_MALFORMED, f"field {own.name} is inherited and may not be redefined", field=field
                )
        return Template(self.fields + child.fields, self.open and child.open)

    def check(self, values: Sequence[tuple[str, bytes]]) -> tuple[tuple[str, bytes], ...]:
        """Check an item's ``(type, data)`` values.

        Returns:
            ``(field name, data)`` of each unique field, for the registry to claim.

        Raises:
            RefusedError: CLASS_FIELD_REQUIRED, CLASS_FIELD_TYPE, CLASS_FIELD_UNKNOWN or CLASS_FIELD_REPEATED with the
                field's name.
        """
        fields = {f.name: f for f in self.fields}
        given: dict[str, bytes] = {}
        for name, data in values:
            spec = fields.get(name)
            if spec is None:
                if self.open:
                    continue
                raise _refused(Reason.CLASS_FIELD_UNKNOWN, name, "is not a field of the class")
            if name in given:
                raise _refused(Reason.CLASS_FIELD_REPEATED, name, "stands twice")
            if rule := _broken_rule(spec, data):
                raise _refused(Reason.CLASS_FIELD_TYPE, name, rule)
            given[name] = data
        for spec in self.fields:
            if spec.required and spec.name not in given:
                raise _refused(Reason.CLASS_FIELD_REQUIRED, spec.name, "is required by the class")
        return tuple((name, data) for name, data in given.items() if fields[name].unique)


def _refused(reason: Reason, name: str, rule: str) -> RefusedError:
    return RefusedError(reason, f"{name} {rule}", field=f"values.{name}")


def _is_visible(_: TemplateField, text: str) -> bool:
    return _passes(require_visible, text)


def _is_date(_: TemplateField, text: str) -> bool:
    return _DATE.match(text) is not None and _passes(dt.date.fromisoformat, text)


def _is_reference(_: TemplateField, text: str) -> bool:
    return _passes(Identifier.parse_canonical, text)


_RULES: Final[Mapping[FieldType, tuple[Callable[[TemplateField, str], bool], str]]] = {
    FieldType.TEXT: (_is_visible, "is not visible text in Unicode NFC"),
    FieldType.NUMBER: (lambda _, text: _NUMBER.match(text) is not None, "is not a decimal number such as -12.5"),
    FieldType.DATE: (_is_date, "is not a date such as 2026-01-31"),
    FieldType.CODE: (lambda spec, text: text in spec.codes, "is not one of the class's codes"),
    FieldType.REFERENCE: (_is_reference, "is not a canonical identifier"),
    FieldType.FILE: (lambda _, text: _FILE.match(text) is not None, "is not sha256: and 64 lower-case hex digits"),
}


def _broken_rule(spec: TemplateField, data: bytes) -> str:
    """The rule that the data breaks, or "" where it is right."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "is not UTF-8 text"
    fits, rule = _RULES[spec.type]
    return "" if fits(spec, text) else rule


def _passes(check: Callable[[str], object], text: str) -> bool:
    try:
        check(text)
    except (InputError, ValueError):
        return False
    return True


def inherited(own: Mapping[str, bytes], classes: Iterable[Mapping[str, bytes]]) -> dict[str, bytes]:
    """Values by type as they hold for an item: its own, then those of its class, that class's class and so on."""
    merged = dict(own)
    for values in classes:
        for name, data in values.items():
            if name != TEMPLATE_TYPE:
                merged.setdefault(name, data)
    return merged
