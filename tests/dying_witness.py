"""``python -m tests.dying_witness CONFIG POINT``: a witness that kills itself (-9) at its next checkpoint.

POINT is where it dies: ``judged`` before the state is swapped, ``stored`` when it is on the disk and nothing is signed,
``signed`` when nothing is sent yet. A process of its own, because only a process dies with everything in hand.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

from idtrace.cli import main
from registry.witness_server import Witness
from registry.witness_store import WitnessStore


def die(*arguments: Any, **named: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("outlived SIGKILL")


def arm(point: str) -> None:
    """Put the end where it is wanted."""
    match point:
        case "judged":
            WitnessStore.swap = die  # type: ignore[method-assign] # never returns
        case "stored":
            Witness._cosigned = die  # type: ignore[method-assign] # never returns
        case "signed":
            sign = Witness._cosigned

            def sign_and_die(*arguments: Any) -> NoReturn:
                sign(*arguments)
                die()

            Witness._cosigned = sign_and_die  # type: ignore[method-assign,assignment] # never returns
        case _:
            raise ValueError(point)


if __name__ == "__main__":
    arm(sys.argv[2])
    sys.argv[1:] = ["witness", "run", "--config", sys.argv[1]]
    main()
