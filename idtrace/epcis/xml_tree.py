"""XML bytes to a tree of elements, within limits and without document types, entities or anything from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from idtrace.errors import InputError, Reason

# A capture call holds 2,000 events at most, and one of usual size has 1 to 2 KiB; 8 MiB are parsed in some seconds.
BYTES_MAX: Final = 8 * 1024 * 1024
# A usual event has 20 to 40 elements.
ELEMENTS_MAX: Final = 200_000
# The standard's own elements go 9 deep; a field of somebody's own has the rest.
DEPTH_MAX: Final = 48
# The richest element of the standard, a sensor report, has 24.
ATTRIBUTES_MAX: Final = 64
# In scope at one place; every element that declares one copies them.
PREFIXES_MAX: Final = 64


@dataclass(slots=True)
class Node:
    """An element. Names are ``local`` or ``{namespace}local``; ``text`` is all its own text, ``prefixes`` in scope."""

    name: str
    attributes: Mapping[str, str]
    prefixes: Mapping[str, str]
    children: list[Node] = field(default_factory=list)
    text: str = ""

    @property
    def local(self) -> str:
        """The name without its namespace."""
        return self.name.rpartition("}")[2]

    @property
    def namespace(self) -> str:
        """The namespace, "" for none."""
        return self.name[1:].partition("}")[0] if self.name.startswith("{") else ""


class _Builder:
    """What the parser tells, made a tree; raises where a limit is passed."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._stack: list[Node] = []
        self._texts: list[list[str]] = []
        self._declared: dict[str, str] = {}
        self._elements = 0
        self.root: Node | None = None

    def start_ns(self, prefix: str | None, uri: str | None) -> None:
        self._declared[prefix or ""] = uri or ""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._elements += 1
        for count, limit, what in (
            (self._elements, ELEMENTS_MAX, "elements"),
            (len(self._stack) + 1, DEPTH_MAX, "elements inside one another"),
            (len(attributes), ATTRIBUTES_MAX, f"attributes of <{name[:80]}>"),
        ):
            if count > limit:
                self._refuse(f"at most {limit} {what}")
        prefixes: Mapping[str, str] = self._stack[-1].prefixes if self._stack else {}
        if self._declared:
            prefixes = {**prefixes, **self._declared}
            self._declared = {}
            if len(prefixes) > PREFIXES_MAX:
                self._refuse(f"at most {PREFIXES_MAX} namespace prefixes in one place")
        node = Node(name, attributes, prefixes)
        if self._stack:
            self._stack[-1].children.append(node)
        else:
            self.root = node
        self._stack.append(node)
        self._texts.append([])

    def end(self, _name: str) -> None:
        self._stack.pop().text = "".join(self._texts.pop())

    def data(self, text: str) -> None:
        self._texts[-1].append(text)

    def close(self) -> Node:
        assert self.root is not None, "the parser refuses a document without a root"
        return self.root

    def _refuse(self, limit: str) -> NoReturn:
        raise InputError(Reason.FIELD_TOO_LARGE, f"an XML document has {limit}", field=self._where)


def read_tree(data: bytes, *, field: str = "document") -> Node:
    """Parse a document.

    Raises:
        InputError: FIELD_TOO_LARGE: beyond a limit. FIELD_MALFORMED: no well-formed XML, or one with a document type.
    """
    if len(data) > BYTES_MAX:
        rule = f"an XML document has at most {BYTES_MAX} bytes, this one {len(data)}"
        raise InputError(Reason.FIELD_TOO_LARGE, rule, field=field)
    builder = _Builder(field)
    parser = DefusedXMLParser(target=builder, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    try:
        parser.feed(data)
        parser.close()
    except DefusedXmlException as error:
        rule = "a document type, an entity or something from outside, none of which is read"
        raise InputError(Reason.FIELD_MALFORMED, f"the document has {rule}", field=field) from error
    # An unknown encoding is a LookupError, one that the parser cannot use a ValueError.
    except (ParseError, LookupError, ValueError) as error:
        raise InputError(Reason.FIELD_MALFORMED, f"no well-formed XML: {error}"[:200], field=field) from error
    return builder.close()
