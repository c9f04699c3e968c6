"""A cache that one run at a time may write to: the kernel's lock, which ends with its process however that ends."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import CacheError

LOCK_FILE = ".lock"  # stays; only the kernel's lock on it counts, what stands in it says whose that is
_PATIENCE_S = 1.0  # the workers of a run that was killed hold its lock until they are gone, too


@contextmanager
def locked(cache: Path, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a cache, a folder that is there. Raises CacheError where another run holds it.

    `shared` holds it together with others that share it. Where the file system has no locks, or the folder can't be
    written to, there is none.
    """
    path = cache / LOCK_FILE
    descriptor = _open(path)
    try:
        if descriptor is not None:
            _take(descriptor, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open(path: Path) -> int | None:
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # NFS locks only what is open for writing
        with suppress(OSError):
            return os.open(path, flags, 0o666)
    return None


def _take(descriptor: int, path: Path, kind: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise CacheError(
                    f"{path.parent}: another run{_holder(path)} is writing to it; wait for it to end, or choose "
                    "another cache"
                ) from error
            time.sleep(0.05)
        except OSError:
            return
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)


def _holder(path: Path) -> str:
    """Name the process that holds the lock, as far as it is told."""
    with suppress(OSError, ValueError):
        process, host = path.read_text(encoding="utf-8").split()
        where = "" if host == socket.gethostname() else f" on {host}"
        return f" (process {process}{where})"
    return ""
