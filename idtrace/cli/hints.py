"""What to do next, for the errors that people meet: one sentence a reason."""

from __future__ import annotations

from typing import Final

from idtrace.errors import Reason

HINTS: Final = {
    Reason.SCAN_UNKNOWN_SCHEME: "native identifiers look like 88.118.8/SN-0001; GS1 and drug codes are read as scanned",
    Reason.GS1_CHECK_DIGIT: "a digit was misread or mistyped: scan the code again",
    Reason.IDENTIFIER_TAKEN: (
        "an identifier is registered once, for ever (perhaps by an earlier try of yours: idtrace resolve shows it); "
        "to change it: idtrace update"
    ),
    Reason.IDENTIFIER_UNKNOWN: "register it first: idtrace register",
    Reason.IDENTIFIER_RETIRED: "a retired identifier is never used again; register a new one",
    Reason.SIGNER_UNKNOWN: "is this the key that the parent's delegation names? compare: idtrace key show KEYFILE",
    Reason.PREFIX_UNKNOWN: "apply for the prefix first: idtrace prefix apply",
    Reason.PREFIX_NOT_ENABLED: "the parent has to enable the prefix: idtrace prefix status shows how far it is",
    Reason.NOT_AUTHORITATIVE: "name the node that serves the zone: idtrace resolve shows the chain",
    Reason.ZONE_DELEGATED: "the zone is delegated; send this to the child's own node",
    Reason.VERSION_GAP: "somebody changed it in the meantime; run the command again",
    Reason.PREVIOUS_HASH_MISMATCH: "somebody changed it in the meantime; run the command again",
    Reason.WRITE_CONFLICT: "somebody wrote at the same time; run the command again",
    Reason.COMMAND_STALE: "a command is good for 300 s: check this machine's clock",
    Reason.ISSUED_AT_IMPLAUSIBLE: "check this machine's clock",
    Reason.RECORD_FROM_FUTURE: "check this machine's clock",
    Reason.CLASS_UNKNOWN: "register the class first: idtrace register --kind class --template FILE.json",
    Reason.OVERLOADED: "the node is busy; try again in a moment",
    Reason.OUTCOME_UNKNOWN: "run the command again: what is already done is recognised",
    Reason.SHUTTING_DOWN: "the node is stopping; try again in a moment",
    Reason.INTERNAL: "the node met an error of its own; its log tells more",
    Reason.QUERY_TOO_LARGE: "narrow the query by times (--ge eventTime=…) or by things (--match epc=…)",
    Reason.ROOT_MISMATCH: "is --root the key of this tree? compare: idtrace key show ROOT.pub",
    Reason.DELEGATION_EXPIRED: "if it was valid earlier, verify at that time with --at",
    Reason.DENIAL_EXPIRED: "a denial lives for 60 s; verify at the time it was given with --at",
    Reason.BUNDLE_DIGEST: "the file was cut or changed; fetch it again: idtrace resolve ID --save FILE",
}


# Where one reason has two causes, the field tells them apart.
_BY_FIELD: Final = {
    (Reason.SIGNER_UNKNOWN, "delegation.keys"): (
        "a hosted zone also names its host's node key: idtrace key enrol NODE.key --zone CHILD --role node, "
        "then --enrol that file too"
    ),
}


def hint_for(reason: Reason, field: str = "") -> str:
    """The hint, or ""."""
    return _BY_FIELD.get((reason, field)) or HINTS.get(reason, "")
