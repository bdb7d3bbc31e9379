"""``python -m tests.clocked_node FILE node run …``: the ``idtrace`` program, whose registry reads the time in a file.

Nothing else of it is changed. Two nodes of another storage can so be compared byte for byte: what they sign holds the
time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

from idtrace.cli import main
from registry import server

if __name__ == "__main__":
    clock = Path(sys.argv.pop(1))
    with patch.object(server, "wall_clock", lambda: int(clock.read_text("ascii"))):
        main()
