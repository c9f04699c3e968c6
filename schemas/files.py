"""How an artefact comes into being: written beside its place, flushed, then renamed, so that it is absent or whole."""

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import CacheError

_LEFT_FOR_S = 3_600


@contextmanager
def written_whole(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it into place when the block ends well, remove it when it doesn't.

    `durable` waits until the bytes are on disk; leave it out for what can be made again. Processes on several machines
    may write the same path at once. Raises CacheError when the folder can't be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{secrets.randbits(48)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is not None and str(error.filename) not in (str(temporary), str(path), str(path.parent)):
            raise
        reason = error.strerror or str(error)
        raise CacheError(f"{path}: cannot be written: {reason}; free space there or choose another folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text_whole(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed run left in `folder`: those not written to for an hour."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFT_FOR_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
