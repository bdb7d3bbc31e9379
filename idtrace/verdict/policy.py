"""What each finding comes to: the published policy, and how an operator may make it stricter and never looser.

An operator's file is TOML or JSON with one table of codes that it raises::

    name = "district 3"

    [raise]
    EXCURSION = "HOLD"
    SILENCE = "DO_NOT_USE"

What could not be learned is HOLD: it accuses nobody and lets nobody use a thing. What is contradicted, forbidden or
spoiled is DO_NOT_USE. What is absent (no shipper, no receipt, no making) is HOLD as well, since a report may be late.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from idtrace import canonical
from idtrace.errors import InputError, Reason, quoted
from idtrace.verdict.findings import Code, Use

POLICY_NAME: Final = "idtrace/1"
NAME_MAX: Final = 64
# Every code once, with its word, takes 2 KiB.
POLICY_BYTES_MAX: Final = 16_384

_HOLD, _NO, _USE = Use.HOLD, Use.DO_NOT_USE, Use.USE
_LAW: Final = "疫苗管理法 2019"
_CODES: Final = "NMPAB/T 1002-2019"
_GSP: Final = "GSP 附录 2013 No. 38"
_WHO: Final = "WHO PQS E006"
_EPCIS: Final = "EPCIS 2.0, CBV 2.0"

# Severity and the rule behind it, as a person can look it up.
PUBLISHED: Final[Mapping[Code, tuple[Use, str]]] = MappingProxyType(
    {
        Code.NOT_REGISTERED: (_NO, _CODES),
        Code.FORGED: (_NO, "idtrace: chain of signatures"),
        Code.UNPROVEN: (_HOLD, "idtrace: chain of signatures"),
        Code.ENDED: (_NO, f"{_CODES}: a code is never used again"),
        Code.SUSPENDED: (_HOLD, "idtrace: record status"),
        Code.NOT_COMMISSIONED: (_HOLD, _EPCIS),
        Code.COMMISSIONED_BY_STRANGER: (_NO, f"{_LAW}; {_CODES}"),
        Code.PRODUCT_UNKNOWN: (_HOLD, "idtrace: class record"),
        Code.LOT_MISMATCH: (_NO, f"{_CODES}; DSCSA exception: lot mismatch"),
        Code.RECALLED: (_NO, "药品召回管理办法"),
        Code.RECALL_UNKNOWN: (_HOLD, "药品召回管理办法"),
        Code.EXPIRED: (_NO, f"{_LAW}; GS1 General Specifications 3.4.7"),
        Code.EXPIRY_UNKNOWN: (_HOLD, _LAW),
        Code.DECOMMISSIONED: (_NO, _EPCIS),
        Code.DESTROYED: (_NO, _EPCIS),
        Code.STOLEN: (_NO, _EPCIS),
        Code.DAMAGED: (_NO, _EPCIS),
        Code.DISPENSED: (_NO, _CODES),
        Code.OVER_DISPENSED: (_NO, _CODES),
        Code.VIAL_OPEN_TOO_LONG: (_NO, "WHO multi-dose vial policy (WHO/IVB/14.07)"),
        Code.EVENT_WITHDRAWN: (_HOLD, _EPCIS),
        Code.ON_HOLD: (_HOLD, _EPCIS),
        Code.PARTY_UNLICENSED: (_NO, _LAW),
        Code.PARTY_ROLE: (_HOLD, f"{_LAW}; {_GSP}"),
        Code.REPORTED_BY_STRANGER: (_HOLD, _EPCIS),
        Code.CUSTODY_NO_SHIPPER: (_HOLD, _LAW),
        Code.CUSTODY_NO_RECEIPT: (_HOLD, _LAW),
        Code.CUSTODY_WRONG_RECEIVER: (_HOLD, _LAW),
        Code.CUSTODY_OVERLAP: (_NO, _EPCIS),
        Code.IMPOSSIBLE_TRAVEL: (_NO, "idtrace: 1,000 km/h and an hour on the ground"),
        Code.DOUBLE_PRESENCE: (_NO, "idtrace: one thing, one place"),
        Code.AGGREGATION_CONTRADICTION: (_HOLD, _EPCIS),
        Code.TIME_DISORDER: (_HOLD, _EPCIS),
        Code.FROZEN: (_NO, _WHO),
        Code.TOO_COLD: (_NO, _WHO),
        Code.TOO_WARM: (_NO, _WHO),
        Code.HEAT_CUMULATIVE: (_NO, _WHO),
        Code.BUDGET_SPENT: (_NO, "the product's stability data"),
        Code.MKT_EXCEEDED: (_NO, "USP <1079.2>"),
        Code.EXCURSION: (_USE, "the product's labelled limits"),
        Code.SILENCE: (_HOLD, _GSP),
        Code.NO_TEMPERATURE: (_HOLD, _GSP),
        Code.SENSOR_STUCK: (_HOLD, _GSP),
        Code.SENSOR_JUMP: (_HOLD, _GSP),
        Code.SENSOR_CLOCK: (_HOLD, _GSP),
        Code.SENSOR_CALIBRATION: (_HOLD, _GSP),
        Code.SENSOR_DISAGREE: (_HOLD, _GSP),
        Code.SENSOR_ERROR: (_HOLD, _GSP),
        Code.ALARM_OPEN: (_HOLD, _GSP),
        Code.HISTORY_GAP: (_HOLD, "idtrace: all of it or HOLD"),
        Code.HISTORY_LIMIT: (_HOLD, "idtrace: all of it or HOLD"),
    }
)


@dataclass(frozen=True)
class Policy:
    """Severities by code: the published ones, some of them raised. ``name`` says whose they are."""

    name: str = POLICY_NAME
    raised: Mapping[Code, Use] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for code, use in self.raised.items():
            if use < PUBLISHED[code][0]:
                rule = f"{code} is {PUBLISHED[code][0].name} in the published policy: it may be raised and not lowered"
                raise InputError(Reason.VERDICT_POLICY_LOOSER, rule, field=f"policy.raise.{code}")

    def severity(self, code: Code) -> Use:
        """What a finding comes to."""
        return self.raised.get(code, PUBLISHED[code][0])

    def source(self, code: Code) -> str:
        """The rule behind a finding that names none itself."""
        return PUBLISHED[code][1]

    @cached_property
    def hash(self) -> str:
        """SHA-256 in hex over name and all severities: what a judgement names its policy by."""
        severities: canonical.Json = {str(code): self.severity(code).name for code in Code}
        body = canonical.encode({"name": self.name, "severities": severities})
        return hashlib.sha256(b"idtrace/verdict-policy/v1\0" + body).hexdigest()


def parse_policy(text: str, *, field: str = "policy") -> Policy:
    """Read an operator's file, JSON where it begins with a brace and else TOML.

    Raises:
        InputError: POLICY_MALFORMED naming the key, or VERDICT_POLICY_LOOSER.
    """
    if len(text.encode("utf-8", "replace")) > POLICY_BYTES_MAX:
        raise _malformed(f"a policy has at most {POLICY_BYTES_MAX} bytes", field)
    try:
        body: Any = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"this is neither TOML nor JSON: {quoted(str(error))}", field) from None
    unknown = sorted(set(body) - {"name", "raise"})
    if unknown:
        raise _malformed(f"{quoted(unknown[0])} is not a key of a policy", field)
    name, raised = body.get("name"), body.get("raise", {})
    if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX or name == POLICY_NAME or not name.isprintable():
        raise _malformed(f"a policy has a name of its own with 1 to {NAME_MAX} printable characters", f"{field}.name")
    if not isinstance(raised, dict):
        raise _malformed("raise is a table of codes", f"{field}.raise")
    severities: dict[Code, Use] = {}
    for code, word in raised.items():
        where = f"{field}.raise.{code[:64]}"
        if code not in tuple(Code):
            raise _malformed(f"there is no code {quoted(code)}", where)
        if not isinstance(word, str) or word not in Use.__members__:
            raise _malformed(f"a severity is one of {', '.join(Use.__members__)}", where)
        severities[Code(code)] = Use[word]
    return Policy(name, MappingProxyType(severities))


def _malformed(rule: str, field: str) -> InputError:
    return InputError(Reason.POLICY_MALFORMED, rule, field=field)
