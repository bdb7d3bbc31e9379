"""``@context``: the known ones are recognised by their names, inline maps give prefixes, and nothing is ever loaded.

Whoever could change a file on the web could else change what a signed event says. So a context that is named by a URL
is one of GS1's for EPCIS 2.0, all of which give the words of the standard the same meaning; what else an event needs it
declares itself. Sources: EPCIS 2.0, section 10.2; JSON-LD 1.1, sections 3.1 and 4.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from idtrace.epcis.model import NOTHING, Json
from idtrace.epcis.rules import URI_CHARS_MAX, Fault, Rule
from idtrace.errors import quoted

# The one that we write: it names its version, so its meaning stays.
STANDARD_CONTEXT: Final = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"
_KNOWN: Final = re.compile(
    r"https?://(ref\.gs1\.org/standards/epcis/(2\.0\.\d{1,2}/)?|gs1\.github\.io/EPCIS/)epcis-context\.jsonld\Z"
)
# What the EPCIS context declares, first as GS1 writes it now, then as drafts and the XML binding did.
STANDARD_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "epcis": ("https://ref.gs1.org/epcis/", "https://ns.gs1.org/epcis/", "urn:epcglobal:epcis:xsd:2"),
    "cbv": ("https://ref.gs1.org/cbv/", "https://ns.gs1.org/cbv/"),
    "cbvmda": ("urn:epcglobal:cbv:mda:", "urn:epcglobal:cbv:mda"),
    "gs1": ("https://gs1.org/voc/", "https://ref.gs1.org/voc/", "https://www.gs1.org/voc/"),
    "rdfs": ("http://www.w3.org/2000/01/rdf-schema#",),
    "owl": ("http://www.w3.org/2002/07/owl#",),
    "xsd": ("http://www.w3.org/2001/XMLSchema#",),
    "dcterms": ("http://purl.org/dc/terms/",),
}
# To declare one of these would give every identifier of an event a second reading.
_SCHEMES: Final = frozenset(("http", "https", "urn", "ni", "idtrace", "tag", "did", "data", "mailto", "geo"))
_PREFIX: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_NAMESPACE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`\x00-\x1f\x7f]+\Z")
# Keywords that leave the meaning of the EPCIS context alone; "@vocab" and "@base" for example would not.
_HARMLESS: Final = frozenset(("@version", "@protected"))
# Ten companies' namespaces at most meet in one event; entries and prefixes are bounded well above that.
ENTRIES_MAX: Final = 32
PREFIXES_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class Context:
    """What is declared where an event stands.

    Attributes:
        standard: whether one of GS1's contexts is among them.
        prefixes: those that were declared inline, with their namespaces; the standard's own are known besides.
        entries: all that was read, outer first, each a URL or a map.
    """

    standard: bool = False
    prefixes: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    entries: tuple[Json, ...] = ()

    def namespace(self, prefix: str) -> str | None:
        """What a prefix stands for, or None where nobody has declared it."""
        own = self.prefixes.get(prefix)
        if own is None and self.standard and prefix in STANDARD_PREFIXES:
            return STANDARD_PREFIXES[prefix][0]
        return own

    def expand(self, text: str) -> str:
        """A URI in full: ``cbv:BizStep-shipping`` is ``https://ref.gs1.org/cbv/BizStep-shipping``."""
        prefix, colon, rest = text.partition(":")
        if not colon or rest.startswith("//"):
            return text
        namespace = self.namespace(prefix)
        return text if namespace is None else namespace + rest


def read_context(value: Json, outer: Context) -> Context:
    """The context that holds below ``value``, which stands inside of ``outer``.

    Raises:
        Fault: CONTEXT_UNKNOWN, CONTEXT_MALFORMED, CONTEXT_PROTECTED or SIZE.
    """
    entries = value if isinstance(value, list) else [value]
    if len(entries) + len(outer.entries) > ENTRIES_MAX:
        raise Fault(Rule.SIZE, f"a context has at most {ENTRIES_MAX} entries")
    standard, prefixes = outer.standard, dict(outer.prefixes)
    for index, entry in enumerate(entries):
        try:
            declared = _declared(entry)
        except Fault as fault:
            raise fault.below(index) if isinstance(value, list) else fault from None
        standard = standard or declared is None
        prefixes.update(declared or {})
    if len(prefixes) > PREFIXES_MAX:
        raise Fault(Rule.SIZE, f"at most {PREFIXES_MAX} prefixes are declared")
    return Context(standard, prefixes, (*outer.entries, *entries))


def _declared(entry: Json) -> dict[str, str] | None:
    """The prefixes of a map, or None for a context that is known by its name."""
    if isinstance(entry, dict):
        return dict(_prefixes(entry))
    if not isinstance(entry, str):
        raise Fault(Rule.CONTEXT_MALFORMED, "a context is a URL, an object or a list of these")
    if _KNOWN.match(entry) is None:
        sentence = (
            f"{quoted(entry)} is no context of EPCIS 2.0 by GS1, and nothing is loaded: declare the prefixes here"
        )
        raise Fault(Rule.CONTEXT_UNKNOWN, sentence)
    return None


def _prefixes(entry: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    for name, value in entry.items():
        if name in _HARMLESS:
            continue
        if _PREFIX.match(name) is None or name in _SCHEMES:
            raise Fault(Rule.CONTEXT_MALFORMED, f"{quoted(name)} cannot be declared as a prefix", name)
        # A term may be written at length: {"@id": namespace, "@prefix": true}.
        namespace = value.get("@id") if isinstance(value, dict) else value
        if not isinstance(namespace, str) or len(namespace) > URI_CHARS_MAX or _NAMESPACE.match(namespace) is None:
            raise Fault(Rule.CONTEXT_MALFORMED, "the namespace of a prefix is a URI", name)
        if name in STANDARD_PREFIXES and namespace not in STANDARD_PREFIXES[name]:
            meaning = STANDARD_PREFIXES[name][0]
            raise Fault(Rule.CONTEXT_PROTECTED, f"{name} stands for {meaning} in every EPCIS document", name)
        yield name, namespace


def require_declared(name: str, context: Context) -> None:
    """Require that the name of a field that is not the standard's has a namespace: a declared prefix, or a URI in full.

    Raises:
        Fault: FIELD_UNKNOWN or PREFIX_UNDECLARED.
    """
    prefix, colon, rest = name.partition(":")
    if not colon:
        raise Fault(Rule.FIELD_UNKNOWN, f"{quoted(name)} is not a field of the standard here, and has no namespace")
    if (rest.startswith("//") or prefix in {"urn", "idtrace"}) and _NAMESPACE.match(name):
        return
    if context.namespace(prefix) is None:
        raise Fault(Rule.PREFIX_UNDECLARED, f"no context declares the prefix {quoted(prefix)}")
    if not rest:
        raise Fault(Rule.FIELD_UNKNOWN, f"{quoted(name)} names a namespace and no field of it")


def needed(event: Mapping[str, Json], context: Context) -> Json:
    """The smallest ``@context`` with which ``event`` means the same: GS1's, and the prefixes that occur in it.

    One form for one event, so that it does not matter in whose company it was captured. A prefix counts as used where
    a name or a text of the event begins with it.
    """
    used: dict[str, str] = {}
    if context.prefixes:
        starts = {text.partition(":")[0] for text in _texts(event) if ":" in text}
        used = {name: namespace for name, namespace in context.prefixes.items() if name in starts}
        # What the standard declares anyway need not be said again, unless it was said otherwise.
        used = {name: uri for name, uri in used.items() if STANDARD_PREFIXES.get(name, ("",))[0] != uri}
    return [STANDARD_CONTEXT, used] if used else STANDARD_CONTEXT


def _texts(value: Json) -> Iterator[str]:
    """All names and texts in a JSON value; its nesting was bounded when it was read."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name != "@context":
                yield name
                yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
