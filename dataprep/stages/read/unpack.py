"""A compressed file in, its bytes out, a chunk at a time: .gz, .bz2 and .zst by Arrow's codecs, .xz by Python's."""

import io
import lzma
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, Protocol

import pyarrow as pa

from dataprep.core.errors import first_line
from dataprep.stages.read.raw import RawFile
from schemas.errors import InputError

_ARROW_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


class Digest(Protocol):
    """A hashlib object, fed while the file is read for cutting."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""


class Fed(io.RawIOBase):
    """A stream of raw bytes that feeds `digest` as it is read and counts what was `taken`."""

    def __init__(self, raw: BinaryIO, digest: Digest) -> None:
        self.taken = 0
        self._raw = raw
        self._digest = digest

    def readable(self) -> bool:
        """Say so."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; none at the end."""
        data = self._raw.read(size)
        self._digest.update(data)
        self.taken += len(data)
        return data


def unpacked(file: RawFile, fed: Fed, chunk_bytes: int) -> Iterator[bytes]:
    """Yield what `fed`, the bytes of `file`, unpacks to, in chunks of `chunk_bytes` or less.

    Raises InputError where it is damaged or ends early: how many rows are lost can't be told, so no ledger could close.
    """
    if not file.packing:
        yield from iter(lambda: fed.read(chunk_bytes), b"")
        return
    if not file.bytes:
        return
    try:
        stream = _opened(file.packing, fed)
        while chunk := stream.read(chunk_bytes):
            yield chunk
        while fed.read(chunk_bytes):  # so that the digest is that of the whole file
            pass
    except (pa.ArrowException, OSError, EOFError, lzma.LZMAError) as error:
        reason = first_line(error)
        raise InputError(
            f"{file.name}: not a whole {file.packing} file: {reason}; compress or download it again"
        ) from error


def unpacked_head(head: bytes, packing: str, num_bytes: int) -> bytes:
    """Unpack up to `num_bytes` of what a compressed file begins with; what is damaged or cut off ends it."""
    unpacked = bytearray()
    with suppress(pa.ArrowException, OSError, EOFError, lzma.LZMAError):
        stream = _opened(packing, io.BytesIO(head))
        while len(unpacked) < num_bytes and (chunk := stream.read(64 << 10)):
            unpacked += chunk
    return bytes(unpacked[:num_bytes])


def _opened(packing: str, fed: Fed | io.BytesIO) -> lzma.LZMAFile | pa.CompressedInputStream:
    if packing == ".xz":
        return lzma.LZMAFile(fed)  # type: ignore[arg-type]
    return pa.CompressedInputStream(pa.PythonFile(fed, mode="r"), _ARROW_CODECS[packing])
