"""Every error that idtrace raises, split by whose fault it is.

::

    IdtraceError
    ├── InputError          the caller's: malformed; names the field and the rule it breaks
    ├── VerificationError   a signer's: something signed is forged, misplaced, expired or rolled back
    ├── RefusedError        the caller's: well-formed, but this node may not or will not do it
    ├── BusyError           nobody's: a limit is reached; the same call may go through later
    └── OutcomeUnknownError the machine's: a write may or may not have happened; ask again with the same key

Each carries a stable :class:`Reason`, which travels as ``google.rpc.ErrorInfo.reason`` (so its text never changes
once published). Verdicts about the world (absent, unreachable, bogus) are values, never exceptions: see
``resolver/walk.py``. ``assert`` states our own bugs and never judges input.
"""

from __future__ import annotations

from enum import StrEnum

# google.rpc.ErrorInfo.domain of every error that a node of ours returns.
ERROR_DOMAIN = "idtrace.v1"


class Reason(StrEnum):
    """Why something was refused, one code for each way to be wrong."""

    # Identifiers and scanned text
    IDENTIFIER_MALFORMED = "IDENTIFIER_MALFORMED"
    IDENTIFIER_NOT_CANONICAL = "IDENTIFIER_NOT_CANONICAL"
    IDENTIFIER_TOO_LONG = "IDENTIFIER_TOO_LONG"
    SCAN_UNKNOWN_SCHEME = "SCAN_UNKNOWN_SCHEME"
    GS1_MALFORMED = "GS1_MALFORMED"
    GS1_CHECK_DIGIT = "GS1_CHECK_DIGIT"
    GS1_AI_RULE = "GS1_AI_RULE"
    GS1_NO_KEY = "GS1_NO_KEY"
    DRUG_CODE_MALFORMED = "DRUG_CODE_MALFORMED"
    # Requests and bodies
    FIELD_MISSING = "FIELD_MISSING"
    FIELD_MALFORMED = "FIELD_MALFORMED"
    FIELD_TOO_LARGE = "FIELD_TOO_LARGE"
    BODY_NOT_CANONICAL = "BODY_NOT_CANONICAL"
    PAYLOAD_TYPE_UNKNOWN = "PAYLOAD_TYPE_UNKNOWN"
    ALGORITHM_UNKNOWN = "ALGORITHM_UNKNOWN"
    KEY_MALFORMED = "KEY_MALFORMED"
    KEY_LOW_ORDER = "KEY_LOW_ORDER"
    BUNDLE_MALFORMED = "BUNDLE_MALFORMED"
    BUNDLE_DIGEST = "BUNDLE_DIGEST"
    # Signatures and chains: someone who signs, or who forwards, lied
    SIGNATURE_MISSING = "SIGNATURE_MISSING"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    SIGNER_UNKNOWN = "SIGNER_UNKNOWN"
    TOO_MANY_SIGNATURES = "TOO_MANY_SIGNATURES"
    THRESHOLD_NOT_MET = "THRESHOLD_NOT_MET"
    PROOF_OF_POSSESSION = "PROOF_OF_POSSESSION"
    ROOT_MISMATCH = "ROOT_MISMATCH"
    CHAIN_EMPTY = "CHAIN_EMPTY"
    CHAIN_TOO_DEEP = "CHAIN_TOO_DEEP"
    REFERRAL_SIDEWAYS = "REFERRAL_SIDEWAYS"
    REFERRAL_UPWARD = "REFERRAL_UPWARD"
    REFERRAL_UNSIGNED = "REFERRAL_UNSIGNED"
    DELEGATION_EXPIRED = "DELEGATION_EXPIRED"
    DELEGATION_NOT_YET_VALID = "DELEGATION_NOT_YET_VALID"
    DELEGATION_ROLLED_BACK = "DELEGATION_ROLLED_BACK"
    DELEGATION_FORKED = "DELEGATION_FORKED"
    DELEGATION_REVOKED = "DELEGATION_REVOKED"
    RECORD_OUT_OF_ZONE = "RECORD_OUT_OF_ZONE"
    RECORD_WRONG_IDENTIFIER = "RECORD_WRONG_IDENTIFIER"
    RECORD_ROLLED_BACK = "RECORD_ROLLED_BACK"
    RECORD_FORKED = "RECORD_FORKED"
    RECORD_FROM_FUTURE = "RECORD_FROM_FUTURE"
    VALUE_UNSIGNED = "VALUE_UNSIGNED"
    VALUE_CHANGED = "VALUE_CHANGED"
    VALUE_DUPLICATE = "VALUE_DUPLICATE"
    VALUE_WITHHELD = "VALUE_WITHHELD"
    DENIAL_WRONG_IDENTIFIER = "DENIAL_WRONG_IDENTIFIER"
    DENIAL_WRONG_ZONE = "DENIAL_WRONG_ZONE"
    DENIAL_EXPIRED = "DENIAL_EXPIRED"
    DENIAL_NOT_YET_VALID = "DENIAL_NOT_YET_VALID"
    DENIAL_TOO_LONG = "DENIAL_TOO_LONG"
    SEAL_PATH = "SEAL_PATH"
    SEAL_WRONG_ZONE = "SEAL_WRONG_ZONE"
    CURRENCY_WRONG_RECORD = "CURRENCY_WRONG_RECORD"
    CURRENCY_EXPIRED = "CURRENCY_EXPIRED"
    CURRENCY_NOT_YET_VALID = "CURRENCY_NOT_YET_VALID"
    CURRENCY_TOO_LONG = "CURRENCY_TOO_LONG"
    RECEIPT_WRONG_RECORD = "RECEIPT_WRONG_RECORD"
    ANSWER_MALFORMED = "ANSWER_MALFORMED"
    ANSWER_EMPTY = "ANSWER_EMPTY"
    ANSWER_CONTRADICTS_ITSELF = "ANSWER_CONTRADICTS_ITSELF"
    TOO_MUCH_CRYPTO = "TOO_MUCH_CRYPTO"
    # Logs: notes, checkpoints, proofs, witnesses
    NOTE_MALFORMED = "NOTE_MALFORMED"
    CHECKPOINT_MALFORMED = "CHECKPOINT_MALFORMED"
    CHECKPOINT_STALE = "CHECKPOINT_STALE"
    PROOF_MALFORMED = "PROOF_MALFORMED"
    PROOF_INVALID = "PROOF_INVALID"
    TILE_MALFORMED = "TILE_MALFORMED"
    LOG_UNKNOWN = "LOG_UNKNOWN"
    LOG_INCONSISTENT = "LOG_INCONSISTENT"
    COSIGNATURE_INVALID = "COSIGNATURE_INVALID"
    COSIGNATURE_FROM_FUTURE = "COSIGNATURE_FROM_FUTURE"
    WITNESS_QUORUM = "WITNESS_QUORUM"
    POLICY_MALFORMED = "POLICY_MALFORMED"
    ENTRY_MALFORMED = "ENTRY_MALFORMED"
    LOG_TIME = "LOG_TIME"
    STATEMENT_CONTRADICTED = "STATEMENT_CONTRADICTED"
    NOT_LOGGED = "NOT_LOGGED"
    CLOCK_BACK = "CLOCK_BACK"
    # Admission: well-formed and genuine, but not allowed here
    NOT_AUTHORITATIVE = "NOT_AUTHORITATIVE"
    ZONE_DELEGATED = "ZONE_DELEGATED"
    PREFIX_UNKNOWN = "PREFIX_UNKNOWN"
    PREFIX_NOT_ENABLED = "PREFIX_NOT_ENABLED"
    PREFIX_STATUS_TRANSITION = "PREFIX_STATUS_TRANSITION"
    IDENTIFIER_TAKEN = "IDENTIFIER_TAKEN"
    IDENTIFIER_UNKNOWN = "IDENTIFIER_UNKNOWN"
    IDENTIFIER_RETIRED = "IDENTIFIER_RETIRED"
    VERSION_GAP = "VERSION_GAP"
    VERSION_UNKNOWN = "VERSION_UNKNOWN"
    PREVIOUS_HASH_MISMATCH = "PREVIOUS_HASH_MISMATCH"
    KIND_CHANGED = "KIND_CHANGED"
    VALUE_MISSING = "VALUE_MISSING"
    ISSUED_AT_IMPLAUSIBLE = "ISSUED_AT_IMPLAUSIBLE"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    WRITE_CONFLICT = "WRITE_CONFLICT"
    COMMAND_STALE = "COMMAND_STALE"
    CLASS_UNKNOWN = "CLASS_UNKNOWN"
    CLASS_NOT_PUBLISHED = "CLASS_NOT_PUBLISHED"
    CLASS_FIELD_REQUIRED = "CLASS_FIELD_REQUIRED"
    CLASS_FIELD_TYPE = "CLASS_FIELD_TYPE"
    CLASS_FIELD_UNKNOWN = "CLASS_FIELD_UNKNOWN"
    CLASS_FIELD_NOT_UNIQUE = "CLASS_FIELD_NOT_UNIQUE"
    CLASS_FIELD_REPEATED = "CLASS_FIELD_REPEATED"
    TEMPLATE_MALFORMED = "TEMPLATE_MALFORMED"
    BATCH_TOO_LARGE = "BATCH_TOO_LARGE"
    SEAL_REFUSED = "SEAL_REFUSED"
    SEAL_CLOSED = "SEAL_CLOSED"
    # Capture: what an event's record is, and who may report what
    EVENT_RECORD = "EVENT_RECORD"
    EVENT_IMMUTABLE = "EVENT_IMMUTABLE"
    PARTY_UNLICENSED = "PARTY_UNLICENSED"
    PARTY_SUSPENDED = "PARTY_SUSPENDED"
    LICENCE_PERIOD = "LICENCE_PERIOD"
    LICENCE_UNREACHABLE = "LICENCE_UNREACHABLE"
    ROLE_BIZ_STEP = "ROLE_BIZ_STEP"
    LOCATION_OF_ANOTHER = "LOCATION_OF_ANOTHER"
    CUSTODY_ELSEWHERE = "CUSTODY_ELSEWHERE"
    ROLLED_BACK = "ROLLED_BACK"
    CAPTURE_UNSIGNED = "CAPTURE_UNSIGNED"
    JOB_UNKNOWN = "JOB_UNKNOWN"
    # EPCIS over HTTP: pages and stored queries
    PAGE_GONE = "PAGE_GONE"
    QUERY_UNKNOWN = "QUERY_UNKNOWN"
    QUERY_NAME_TAKEN = "QUERY_NAME_TAKEN"
    QUERIES_TOO_MANY = "QUERIES_TOO_MANY"
    # Verdicts: an operator's policy, and saved verdicts
    VERDICT_POLICY_LOOSER = "VERDICT_POLICY_LOOSER"
    VERDICT_MALFORMED = "VERDICT_MALFORMED"
    VERDICT_DIFFERS = "VERDICT_DIFFERS"
    VERDICT_STALE = "VERDICT_STALE"
    # Event queries
    QUERY_TOO_LARGE = "QUERY_TOO_LARGE"
    # Operation
    OVERLOADED = "OVERLOADED"
    CHANGES_GONE = "CHANGES_GONE"
    SCHEMA_MISMATCH = "SCHEMA_MISMATCH"
    DEADLINE_MISSING = "DEADLINE_MISSING"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    INTERNAL = "INTERNAL"
    # Walk: nobody lied, but there is no answer
    NO_ENDPOINT = "NO_ENDPOINT"
    NO_ANSWER = "NO_ANSWER"
    BUDGET_CALLS = "BUDGET_CALLS"
    BUDGET_TIME = "BUDGET_TIME"
    BUDGET_DEPTH = "BUDGET_DEPTH"
    # Why something is absent or gone
    IDENTIFIER_ABSENT = "IDENTIFIER_ABSENT"
    PREFIX_DISABLED = "PREFIX_DISABLED"
    # Recalls
    RECALL_ABSENT = "RECALL_ABSENT"


class IdtraceError(Exception):
    """Base of all errors; never raised itself.

    Attributes:
        reason: the stable code.
        detail: one sentence for a person; may quote input, bounded by :func:`quoted`.
        field: path of the offending field (``record.values[2].type``), or "" where no field is at fault.
    """

    def __init__(self, reason: Reason, detail: str, *, field: str = "") -> None:
        assert type(self) is not IdtraceError, "raise one of the families"
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.field = field

    def __str__(self) -> str:
        """``REASON: detail (field)``, as logs and the command line show it."""
        where = f" ({self.field})" if self.field else ""
        return f"{self.reason}: {self.detail}{where}"


class InputError(IdtraceError):
    """Malformed input. ``field`` names the place and ``detail`` the rule it breaks."""


class VerificationError(IdtraceError):
    """A signature, chain, value or statement that cannot be what it claims to be."""


class RefusedError(IdtraceError):
    """A well-formed request that the node may not or will not carry out."""


class BusyError(IdtraceError):
    """A limit (in-flight calls, pool, batch) is reached."""


class OutcomeUnknownError(IdtraceError):
    """The write may or may not be durable; repeat it with the same idempotency key to learn which."""


def quoted(text: str, limit: int = 80) -> str:
    """Input as it may stand in a message: escaped, quoted and no longer than ``limit`` characters."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"'{shown}'" if shown.isprintable() else ascii(shown)
