"""What verdicts may cost: apart, since the configuration knows limits and nothing that runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JudgeLimits:
    """What verdicts may cost and how long one is kept."""

    # 4 KiB of findings and 200 identifiers each: 80 MB.
    kept: int = 8_192
    # As answers (effects.Limits.answer_seconds): what nobody announces, such as events of a room that is named by a URI
    # and has no registry, waits so long.
    kept_seconds: int = 300
    # Judging is computing, a fifth of a second for a long history; more at once only makes each wait.
    at_once: int = 8
    # Changes that wait to be judged again; what falls out is judged when it is next asked for.
    again: int = 1_024
    # A scanner that was here an hour ago may come back; nobody waits for the rest.
    idle_seconds: int = 3_600
