"""A folder or a file that belongs to one process at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO

from idtrace.errors import InputError, Reason


def lock_file(path: Path, *, owner: str, field: str) -> BinaryIO:
    """Take the lock that a file stands for; it is held until the file is closed or the process has ended, however.

    Args:
        path: the file, made where there is none.
        owner: who else may hold it, for the complaint: "another node runs on this folder".
        field: what of the configuration the complaint names.

    Raises:
        InputError: FIELD_MALFORMED where another process has it, or where the file cannot be made.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        detail = f"the state cannot be kept here: {error.strerror}"
        raise InputError(Reason.FIELD_MALFORMED, detail, field=field) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(Reason.FIELD_MALFORMED, owner, field=field) from None
    return file
