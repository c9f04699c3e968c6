"""How an artefact comes into being: written beside its place, flushed, then renamed, so that it is absent or whole."""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import CacheError

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
_BLANK = "0" * 64
_HASH_THREADS = 4


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
        raise CacheError(f"{path}: cannot be written: {reason}; {_remedy(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _remedy(error: OSError) -> str:
    if isinstance(error, IsADirectoryError):
        return "remove this folder, then run the command again"
    if isinstance(error, PermissionError):
        return "make it writable or choose another folder"
    return "free space there or choose another folder"


def write_text_whole(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged_files(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Those of the named files of `folder` that are missing or don't have the SHA-256 given for them."""

    def is_damaged(name: str) -> bool:
        try:
            return sha256_file(folder / name) != digests[name]
        except OSError:
            return True

    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        found = pool.map(is_damaged, digests)
        return [name for name, bad in zip(digests, found, strict=True) if bad]


def is_leftover(path: Path) -> bool:
    """Whether a file or folder has the name of one of our temporary ones."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed runs left in `folder`; no run but the caller's may be writing to it."""
    for path in folder.glob(".*.tmp"):
        if is_leftover(path):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def sealed(text: str) -> str:
    """Add a last field to the text of an indented JSON object: its own `checksum`, as `seal_holds` has it."""
    start = f'{text.rstrip().removesuffix("}").rstrip()},\n  "checksum": "'
    digest = hashlib.sha256(f'{start}{_BLANK}"\n}}\n'.encode()).hexdigest()
    return f'{start}{digest}"\n}}\n'


def seal_holds(content: bytes, checksum: object) -> bool:
    """Whether a file that names this checksum is as it was sealed; so is one that names none: it was made by hand.

    The checksum is the hex SHA-256 of the file with the checksum's own 64 digits as zeros.
    """
    if checksum is None:
        return True
    blank = content.replace(str(checksum).encode(), _BLANK.encode())
    return hashlib.sha256(blank).hexdigest() == checksum
