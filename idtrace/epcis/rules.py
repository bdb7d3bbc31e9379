"""What EPCIS documents are held to: each rule has a stable name, and each breach says where, which rule and why.

A reader deep in an event raises a :class:`Fault`, which collects its path on the way up; the document's reader makes of
it an :class:`EventError` (that event is refused, the others stand) or a :class:`DocumentError` (nothing stands).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from idtrace.errors import InputError, Reason

# A capture of 2,000 plain events has 2 MB; four times that leaves room for sensor data, and a parsed document takes ten
# times its bytes in memory.
DOCUMENT_BYTES_MAX: Final = 8 * 1024 * 1024
# As many as a batch of registrations: each event becomes one record.
EVENTS_MAX: Final = 2_000
# More than fit into the 124 KiB of an event (idtrace/epcis/statement.py): the shortest entry takes 10 bytes.
LIST_MAX: Final = 10_000
# What scanners and browsers carry (idtrace/scan.py has the same bound).
URI_CHARS_MAX: Final = 2_048
# Of a text of ours and of a name; an extension's text may fill its event.
TEXT_CHARS_MAX: Final = 4_096
# Of brackets within one document; the standard's own fields take 8, the rest is for extensions. Python's parser has
# no stack to fear below 1,000.
NESTING_MAX: Final = 32
# xsd:dateTime knows more years than any clock of a supply chain shows; between these two nothing overflows.
TIME_MS_MIN: Final = -2_208_988_800_000  # 1900-01-01T00:00:00Z
TIME_MS_MAX: Final = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z


class Rule(StrEnum):
    """The stable names of the rules; beside each the place that states it."""

    # JSON (RFC 8259, RFC 7493)
    JSON = "json"  # one JSON text in UTF-8
    DUPLICATE_KEY = "duplicate-key"  # RFC 7493, 2.3
    NUMBER = "number"  # RFC 7493, 2.2: a number that an IEEE 754 double carries exactly as it is written
    SURROGATE = "surrogate"  # RFC 7493, 2.1
    NESTING = "nesting"
    SIZE = "size"
    # Documents and contexts (EPCIS 2.0, section 10; JSON-LD 1.1)
    DOCUMENT_TYPE = "document-type"
    SCHEMA_VERSION = "schema-version"
    CONTEXT_MISSING = "context-missing"
    CONTEXT_UNKNOWN = "context-unknown"  # nothing remote is ever loaded
    CONTEXT_MALFORMED = "context-malformed"
    CONTEXT_PROTECTED = "context-protected"  # JSON-LD 1.1, 4.1.11: the terms of the EPCIS context cannot be redefined
    PREFIX_UNDECLARED = "prefix-undeclared"
    # Fields (EPCIS 2.0, sections 7.3 and 7.4)
    FIELD_MISSING = "field-missing"
    FIELD_UNKNOWN = "field-unknown"
    FIELD_OF_OTHER_EVENT = "field-of-other-event"  # a field of the standard that this type of event does not have
    NAMESPACE_MISSING = "namespace-missing"  # 7.4.1.2 and ILMD: what is not the standard's has a namespace
    TYPE = "type"  # a text where a text belongs, a list where a list
    URI = "uri"  # RFC 3986
    TIME = "time"  # xsd:dateTimeStamp
    OFFSET = "offset"  # 7.3.1.1: +hh:mm or -hh:mm
    EMPTY = "empty"
    TWICE = "twice"  # lists of identifiers are sets
    CHOICE = "choice"  # one of the texts of an enumeration
    HEX = "hex"  # xsd:hexBinary
    # Vocabulary (CBV 2.0, sections 7 and 10)
    VOCABULARY = "vocabulary"
    UOM = "uom"  # UN/ECE Recommendation 20; 7.3.7.2: of the quantity that is measured
    # Events as a whole
    NO_OBJECTS = "no-objects"  # 7.4.2 to 7.4.6: an event is about something
    PARENT_MISSING = "parent-missing"  # 7.4.3
    ILMD_NOT_ALLOWED = "ilmd-not-allowed"  # 7.4.2: only where objects begin their life
    SENSOR_ATTRIBUTE_TWICE = "sensor-attribute-twice"  # conformance test TCR-53, step 29
    SENSOR_REPORT_EMPTY = "sensor-report-empty"  # 7.3.7.2: a report has a type, an exception, or both


_REASONS: Final = {
    Rule.FIELD_MISSING: Reason.FIELD_MISSING,
    Rule.CONTEXT_MISSING: Reason.FIELD_MISSING,
    Rule.NO_OBJECTS: Reason.FIELD_MISSING,
    Rule.PARENT_MISSING: Reason.FIELD_MISSING,
    Rule.SIZE: Reason.FIELD_TOO_LARGE,
    Rule.NESTING: Reason.FIELD_TOO_LARGE,
}
# Names that a path shows as they are; any other stands in brackets and quotes, and is cut.
_PLAIN: Final = re.compile(r"[A-Za-z@_][\w@:.-]{0,79}\Z")


class Fault(Exception):  # noqa: N818  # it never leaves this package: two kinds of InputError are made of it
    """A rule is broken somewhere below: the rule, one sentence, and the steps from there up."""

    def __init__(self, rule: Rule, sentence: str, *steps: str | int) -> None:
        super().__init__(sentence)
        self.rule = rule
        self.sentence = sentence
        self._steps: list[str | int] = list(reversed(steps))

    def below(self, *steps: str | int) -> Fault:
        """The same fault, seen from further up."""
        self._steps.extend(reversed(steps))
        return self

    def path(self) -> str:
        """``epcisBody.eventList[1].quantityList[0].weight``, from the document."""
        shown = ""
        for step in reversed(self._steps):
            if isinstance(step, int):
                shown += f"[{step}]"
            elif _PLAIN.match(step):
                shown += f".{step}"
            else:
                shown += f"[{step[:80]!a}]"
        return shown.removeprefix(".")


class DocumentError(InputError):
    """A document that is broken as a whole: none of its events can be read.

    Attributes:
        rule: the stable name of the rule.
        path: the place within the document ("" for all of it).
    """

    def __init__(self, fault: Fault, *, field: str) -> None:
        self.rule = fault.rule
        self.path = fault.path()
        reason = _REASONS.get(fault.rule, Reason.FIELD_MALFORMED)
        super().__init__(reason, f"{fault.rule}: {fault.sentence}", field=f"{field}.{self.path}".strip("."))


class EventError(DocumentError):
    """One event of a document that breaks a rule; the others stand.

    Attributes:
        index: the event's place in the document, from 0.
        rule, path: as of :class:`DocumentError`.
    """

    def __init__(self, index: int, fault: Fault, *, field: str) -> None:
        super().__init__(fault, field=field)
        self.index = index
