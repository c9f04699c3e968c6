"""A folder that one run at a time may write to: the kernel's lock, which ends with its process however that ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import CacheError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that is there. Raises CacheError where another run holds it.

    Where the file system has no locks, there is none.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            _take(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CacheError(
            f"{folder}: another run{_holder(os.fstat(descriptor).st_ino)} is writing to it; wait for it to end, or "
            "choose another --out"
        ) from error


def _holder(inode: int) -> str:
    """Name the process that holds the lock of a file, as far as the kernel tells."""
    with suppress(OSError):
        # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
                return f" (process {words[4]})"
    return ""
