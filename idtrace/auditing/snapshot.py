"""What a replay has come to, as a file: so that a new process reads on from there and not from the first entry.

The file is the auditor's own and lies beside what it remembers of the log, which names the file's hash: one that is
torn, old or changed is not read, and the log is replayed from its beginning. Nothing in it is believed of the log's
tree: the hashes over the replayed entries are in it, and with those that follow they have to have the signed root.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from idtrace.audit import Finding, Grade, Replay, ReplayState
from idtrace.auditstate import Life, ZoneWord
from idtrace.chain import Anchor
from idtrace.delegation import Delegation
from idtrace.errors import IdtraceError, Reason
from idtrace.identifier import Prefix
from idtrace.merkle import CompactRange
from idtrace.record import RecordKind

FORMAT: Final = "idtrace-replay/v1"
# 150 bytes each and a few times that while it is read: what a machine that audits millions of entries has to spare.
IDENTIFIERS_MAX: Final = 4_000_000
SNAPSHOT_BYTES_MAX: Final = 2_147_483_648
# Written anew when the log has grown by an eighth: all writing together costs a few times the last file, and a new
# process replays at most an eighth.
SHARE: Final = 8


def snapshot_of(replay: Replay, anchor: Anchor) -> bytes | None:
    """The file; None where there is something that only a replay from the beginning can clear up, or too much."""
    state = replay.state()
    if state is None or len(state.lives) > IDENTIFIERS_MAX:
        return None
    body = {
        "format": FORMAT,
        "anchor": _pinned(anchor),
        "time": state.time,
        "range": state.range.encode().hex(),
        "findings": [[one.index, one.grade, one.reason, one.detail] for one in state.findings],
        "zones": [
            [word.delegation.payload().decode(), word.content.hex(), dict(word.floors), word.whole]
            for word in state.zones.values()
        ],
        "lives": {
            name: [str(life.zone), life.kind, [[index, version, sha.hex()] for index, version, sha in life.entries]]
            for name, life in state.lives.items()
        },
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def resumed(data: bytes, digest: str, anchor: Anchor) -> Replay | None:
    """The replay that a file with this SHA-256 (hex) holds; None where it is another file, form or root key."""
    if hashlib.sha256(data).hexdigest() != digest:
        return None
    try:
        body: dict[str, Any] = json.loads(data)
        if body["format"] != FORMAT or body["anchor"] != _pinned(anchor):
            return None
        state = ReplayState(
            range=CompactRange.decode(bytes.fromhex(body["range"])),
            findings=[Finding(index, Grade(grade), Reason(why), text) for index, grade, why, text in body["findings"]],
            time=body["time"],
            zones=dict(_zone(*one) for one in body["zones"]),
            lives={name: _life(*one) for name, one in body["lives"].items()},
        )
    except (KeyError, TypeError, ValueError, IdtraceError):
        return None  # written by a program of another version
    return Replay.resumed(state, anchor)


def _pinned(anchor: Anchor) -> list[object]:
    return [anchor.threshold, *sorted(anchor.keys)]


def _zone(payload: str, content: str, floors: dict[str, list[Any]], whole: bool) -> tuple[Prefix, ZoneWord]:  # noqa: FBT001 - read from a file
    delegation = Delegation.parse(payload.encode())
    said = {signer: (version, word) for signer, (version, word) in floors.items()}
    return delegation.child, ZoneWord(delegation, bytes.fromhex(content), said, None, whole)


def _life(zone: str, kind: str, entries: list[tuple[int, int, str]]) -> Life:
    found = [(index, version, bytes.fromhex(sha)) for index, version, sha in entries]
    _, version, sha = found[-1]
    return Life(Prefix.parse(zone), version, sha, RecordKind(kind), found)
