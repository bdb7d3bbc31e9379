"""Event queries of EPCIS 2.0 (section 8.2.7.1, SimpleEventQuery): parameters become a query, and a query judges events.

A query is the conjunction of its conditions; the values of one parameter are alternatives. Identifiers are compared by
the thing that they name (:func:`idtrace.epcis.uris.key`), words of CBV in all their spellings, measured values across
units. A parameter that is unknown or malformed is refused by its name (QueryParameterException).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from idtrace.epcis.context import Context, read_context
from idtrace.epcis.model import NOTHING, Event
from idtrace.epcis.query_extensions import extension_judge
from idtrace.epcis.query_fields import field_judge
from idtrace.epcis.query_sensors import sensor_judge
from idtrace.epcis.query_values import VALUES_MAX, Asked, Judge, Test, asked
from idtrace.epcis.rules import Fault
from idtrace.errors import InputError, Reason, quoted

# Parameters of one query: the standard's own with a dozen fields of one's own besides.
PARAMETERS_MAX: Final = 64
# Those of them that look for fields of others, each of which may go through an event to its last bracket: 20 ms in one
# that was made for it.
EXTENSIONS_MAX: Final = 16
# A field of another namespace may be named by its URI.
NAME_CHARS_MAX: Final = 2_048


@dataclass(frozen=True, slots=True)
class Condition:
    """One parameter of a query.

    Attributes:
        name: the parameter's, as it was given.
        values: as they were given.
        test: whether an event meets it.
        keys: keys one of which every event that meets it mentions (``uris.mentions``), empty where that is not known.
    """

    name: str
    values: tuple[str, ...]
    test: Test = field(compare=False, repr=False)
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for.

    Attributes:
        conditions: all of which an event meets.
        order_by: ``eventTime`` or ``recordTime``; "" where the asker does not care.
        descending: the latest first (only with ``order_by``).
        event_count_limit: after so many events the others do not matter (the first ones in order).
        max_event_count: if there are more events than this, none is wanted (QueryTooLargeException).
        per_page: how many at a time; None where the asker does not care.
        next_page_token: where the asker stands, "" at the beginning.
        time_from_ms, time_until_ms: what the conditions say of the event time: from (inclusive), until (exclusive).
        record_from_ms, record_until_ms: the same of the record time.
    """

    conditions: tuple[Condition, ...] = ()
    order_by: str = ""
    descending: bool = False
    event_count_limit: int | None = None
    max_event_count: int | None = None
    per_page: int | None = None
    next_page_token: str = ""
    time_from_ms: int | None = None
    time_until_ms: int | None = None
    record_from_ms: int | None = None
    record_until_ms: int | None = None


def parse(
    parameters: Mapping[str, Sequence[str]] | Mapping[str, object],
    *,
    namespaces: Mapping[str, str] = NOTHING,
    split: bool = True,
) -> Query:
    """The query of a URL's parameters, or of the ``query`` object of a query definition in JSON.

    Args:
        parameters: by name a list of texts (a URL), or a JSON value: a text, a number, true, or a list of these.
            ``EXISTS_…`` has no value, or null, "", 1 or true. ``@context`` declares namespaces.
        namespaces: what the prefixes of others' fields stand for (the header GS1-Extensions). A prefix that nobody
            declares is compared as it stands in the events.
        split: whether ``a|b`` in a text are two values, as in URLs; give False for a JSON body.

    Raises:
        InputError: FIELD_MALFORMED, FIELD_TOO_LARGE; ``field`` is the name of the parameter.
    """
    if len(parameters) > PARAMETERS_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"a query has at most {PARAMETERS_MAX} parameters", field="query")
    context = _context(parameters, namespaces)
    conditions: list[Condition] = []
    controls: dict[str, Any] = {}
    left, extensions = VALUES_MAX, 0
    for name, value in parameters.items():
        if name == "@context":
            continue
        shown = quoted(name)[1:-1]
        if not name or len(name) > NAME_CHARS_MAX:
            raise InputError(Reason.FIELD_TOO_LARGE, "this is no name of a parameter", field=shown)
        one = asked(name, value, context, split=split)
        left -= len(one.values)
        if left < 0:
            raise one.refuse(f"a query has at most {VALUES_MAX} values", Reason.FIELD_TOO_LARGE)
        if name in _CONTROLS:
            field_name, read = _CONTROLS[name]
            controls[field_name] = read(one)
            continue
        judge, of_others = _judge(one)
        extensions += of_others
        if extensions > EXTENSIONS_MAX:
            rule = f"a query looks for at most {EXTENSIONS_MAX} fields of others"
            raise one.refuse(rule, Reason.FIELD_TOO_LARGE)
        conditions.append(Condition(name, one.values, judge.test, judge.keys))
        if name in _BOUNDS:
            controls[_BOUNDS[name]] = one.time_ms()
    _require_consistent(controls)
    return Query(conditions=tuple(conditions), **controls)


def matches(query: Query, event: Event, record_time_ms: int) -> bool:
    """Whether an event that was recorded at this time (UTC ms) meets all conditions of a query."""
    return all(condition.test(event, record_time_ms) for condition in query.conditions)


_BOUNDS: Final[Mapping[str, str]] = {
    "GE_eventTime": "time_from_ms",
    "LT_eventTime": "time_until_ms",
    "GE_recordTime": "record_from_ms",
    "LT_recordTime": "record_until_ms",
}


def _context(parameters: Mapping[str, Any], namespaces: Mapping[str, str]) -> Context:
    try:
        outer = read_context(dict(namespaces), Context(standard=True))
        return read_context(parameters["@context"], outer) if "@context" in parameters else outer
    except Fault as fault:
        raise InputError(Reason.FIELD_MALFORMED, f"{fault.rule}: {fault.sentence}", field="@context") from None


def _judge(one: Asked) -> tuple[Judge, bool]:
    """What judges events by a parameter, and whether it looks for a field of others."""
    comparison, _, rest = one.name.partition("_")
    if one.name.startswith("EQ_ATTR_"):  # so the REST binding's schema writes EQATTR_
        comparison, rest = "EQATTR", one.name.removeprefix("EQ_ATTR_")
    judge = field_judge(comparison, rest, one) or sensor_judge(comparison, rest, one)
    if judge is None and (judge := extension_judge(comparison, rest, one)) is not None:
        return judge, True
    if judge is None:
        rule = f"EPCIS 2.0 has no query parameter {quoted(one.name)}; names tell capital letters from small ones"
        raise InputError(Reason.FIELD_MALFORMED, rule, field=quoted(one.name)[1:-1])
    return judge, False


def _order_by(one: Asked) -> str:
    if one.one() not in {"eventTime", "recordTime"}:
        raise one.refuse("events are ordered by eventTime or recordTime")
    return one.one()


def _descending(one: Asked) -> bool:
    if one.one() not in {"ASC", "DESC"}:
        raise one.refuse("a direction is ASC or DESC")
    return one.one() == "DESC"


_CONTROLS: Final[Mapping[str, tuple[str, Callable[[Asked], Any]]]] = {
    "orderBy": ("order_by", _order_by),
    "orderDirection": ("descending", _descending),
    "eventCountLimit": ("event_count_limit", Asked.count),
    "maxEventCount": ("max_event_count", Asked.count),
    "perPage": ("per_page", Asked.count),
    "nextPageToken": ("next_page_token", Asked.one),
}


def _require_consistent(controls: dict[str, Any]) -> None:
    """Hold the controls to what the standard says of them together; the latest come first unless it is said."""
    if "event_count_limit" in controls and "max_event_count" in controls:
        rule = "eventCountLimit and maxEventCount exclude each other"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="eventCountLimit")
    if "order_by" in controls:
        controls.setdefault("descending", True)
    elif "descending" in controls:
        raise InputError(Reason.FIELD_MALFORMED, "a direction needs orderBy", field="orderDirection")
