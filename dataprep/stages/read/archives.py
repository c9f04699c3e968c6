"""A .zip or .tar file in; its members and their bytes out. Nothing is unpacked to disk, so no name can lead outside.

A compressed .tar can't be entered in the middle: members read in their order cost one pass over it.
"""

import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from dataprep.core.errors import first_line
from schemas.errors import InputError

ARCHIVE_ENDINGS = {
    ".zip": ("zip", ""),
    ".tar": ("tar", ""),
    ".tar.gz": ("tar", ".gz"),
    ".tgz": ("tar", ".gz"),
    ".tar.bz2": ("tar", ".bz2"),
    ".tbz2": ("tar", ".bz2"),
    ".tar.xz": ("tar", ".xz"),
    ".txz": ("tar", ".xz"),
    ".tar.zst": ("tar", ".zst"),
    ".tzst": ("tar", ".zst"),
}

_ARROW_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_READ_BYTES = 1 << 20
_ENCRYPTED = 1  # a bit of a zip member's flags
_DAMAGED = (
    pa.ArrowException,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class Member(NamedTuple):
    """A file in an archive: `place` is its number in a zip's directory, or where in a tar its bytes begin."""

    name: str
    place: int
    bytes: int


class Archive:
    """An archive named `name` in messages; `kind` is zip or tar, `packing` how a tar is compressed."""

    def __init__(self, path: Path, name: str, kind: str, packing: str) -> None:
        self._given = (path, name, kind, packing)
        self.name = name
        self._path, self._kind, self._packing = path, kind, packing
        self._zip: zipfile.ZipFile | None = None
        self._tar: _Unpacked | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out what is open: another process opens the archive anew."""
        return Archive, self._given

    def members(self) -> list[Member]:
        """List the files in it, a zip's sorted by name, a tar's in its order. Raises InputError."""
        with self._named():
            found = self._zip_members() if self._kind == "zip" else list(self._tar_members())
        last = {member.name: member for member in found}
        return [member for member in found if last[member.name] is member]

    @contextmanager
    def opened(self, place: int, num_bytes: int) -> Iterator[BinaryIO]:
        """Open the member at `place`; reading it raises InputError where it is damaged."""
        with self._named():
            if self._kind == "zip":
                self._zip = self._zip or zipfile.ZipFile(self._path)
                with self._zip.open(self._zip.infolist()[place]) as member:
                    yield member  # type: ignore[misc]
                return
            if self._tar is None or self._tar.taken > place:
                self.close()
                self._tar = _Unpacked(self._path, self._packing)
            self._tar.skip_to(place)
            yield _Part(self._tar, num_bytes)  # type: ignore[misc]

    def close(self) -> None:
        """Close what is open; it opens again when it is needed."""
        for opened in (self._zip, self._tar):
            if opened is not None:
                opened.close()
        self._zip = self._tar = None

    def _zip_members(self) -> list[Member]:
        with zipfile.ZipFile(self._path) as archive:
            infos = archive.infolist()
        found = []
        for place, info in enumerate(infos):
            if info.is_dir():
                continue
            if info.flag_bits & _ENCRYPTED:
                raise InputError(f"{self.name}: encrypted; unpack it with its password and name the folder")
            found.append(Member(info.filename, place, info.file_size))
        return sorted(found, key=lambda member: member.name)

    def _tar_members(self) -> Iterator[Member]:
        unpacked = _Unpacked(self._path, self._packing)
        try:
            with tarfile.open(fileobj=unpacked, mode="r|") as archive:  # type: ignore[call-overload]
                for info in archive:
                    if info.isreg() and not info.issparse():
                        name = os.fsencode(info.name).decode("utf-8", "replace")
                        yield Member(name, info.offset_data, info.size)
            while unpacked.read(_READ_BYTES):  # to know that it is whole
                pass
        finally:
            unpacked.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGED as error:
            self.close()
            reason = first_line(error)
            raise InputError(
                f"{self.name}: not a whole archive: {reason}; pack or download it again, or unpack it and name the "
                "folder"
            ) from error
        except BaseException:
            self.close()
            raise


class _Unpacked:
    """A tar's bytes, read forward; of one that is not compressed, parts can be passed over."""

    def __init__(self, path: Path, packing: str) -> None:
        self.taken = 0
        self._file: BinaryIO = path.open("rb")
        self._seekable = not packing
        self._stream: Any = self._file
        if packing == ".xz":
            self._stream = lzma.LZMAFile(self._file)  # noqa: SIM115
        elif packing:
            self._stream = pa.CompressedInputStream(pa.PythonFile(self._file, mode="r"), _ARROW_CODECS[packing])

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self.taken += len(data)
        return data

    def skip_to(self, place: int) -> None:
        if self._seekable:
            self._file.seek(place)
            self.taken = place
        while self.taken < place:
            if not self.read(min(_READ_BYTES, place - self.taken)):
                raise EOFError("it ends early")

    def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


class _Part(io.RawIOBase):
    """The next `size` bytes of a tar."""

    def __init__(self, unpacked: _Unpacked, size: int) -> None:
        self._unpacked = unpacked
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._unpacked.read(wanted) if wanted else b""
        if wanted and not data:
            raise EOFError("it ends early")
        self._left -= len(data)
        return data
