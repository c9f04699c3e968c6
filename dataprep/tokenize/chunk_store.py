"""Tokenised chunks on storage that machines share, anything that fsspec reads: `URL/<tokens folder>/<chunk file>`.

A run takes from there what it lacks, and leaves there what it made. A chunk's name holds its checksum: what isn't whole
there is removed, and made anew. Nothing else lies there: shards are memory-mapped, and so are local.
"""

import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

import pyarrow as pa

from dataprep.core.chunk_files import CHUNK_FILE, chunk_files, write_chunk_file
from dataprep.core.chunks import Chunk
from dataprep.core.errors import first_line
from dataprep.core.file_systems import file_system
from schemas.errors import CacheError

_WITHOUT_FOLDERS = {"s3", "s3a", "gs", "gcs", "abfs", "az", "oss"}  # to make one there would make a bucket
_AT_ONCE = 16  # requests under way: each is short, and waits for the network


class ChunkStore:
    """The shared counterpart of one local tokens folder."""

    def __init__(self, url: str, folder: Path) -> None:
        """Raises InputError where the URL is of a kind that can't be read here."""
        self._url, self._folder = url, folder
        self._system, root = file_system(url)
        self._path = f"{root.rstrip('/')}/{folder.name}"

    def keys(self) -> set[str]:
        """The keys of the chunks that lie there. Raises CacheError."""
        return {name[:32] for name in self._sizes()}

    def fetch(self, chunks: Sequence[Chunk]) -> None:
        """Take those of the chunks that aren't here. Raises CacheError."""
        here = chunk_files(self._folder)
        lacking = {chunk.key for chunk in chunks} - here.keys()
        names = [name for name in self._sizes() if name[:32] in lacking]
        with self._told("read"), ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._fetch, names))

    def leave(self, chunks: Sequence[Chunk]) -> None:
        """Put there those of the chunks that it lacks. Raises CacheError."""
        there, keys = self._sizes(), {chunk.key for chunk in chunks}
        paths = [path for key, own in chunk_files(self._folder).items() if key in keys for path in own]
        lacking = [path for path in paths if there.get(path.name) != path.stat().st_size]
        with self._told("written"), ThreadPoolExecutor(_AT_ONCE) as pool:
            protocol = self._system.protocol
            if _WITHOUT_FOLDERS.isdisjoint({protocol} if isinstance(protocol, str) else protocol):
                self._system.makedirs(self._path, exist_ok=True)
            list(pool.map(self._leave, lacking))

    def _sizes(self) -> dict[str, int]:
        """The chunk files there, by name."""
        with self._told("read"):
            self._system.invalidate_cache()
            with suppress(FileNotFoundError):
                entries = self._system.ls(self._path, detail=True)
                sizes = {entry["name"].rpartition("/")[2]: int(entry["size"] or 0) for entry in entries}
                return {name: size for name, size in sorted(sizes.items()) if CHUNK_FILE.fullmatch(name)}
        return {}

    def _fetch(self, name: str) -> None:
        path = f"{self._path}/{name}"
        content = self._system.cat_file(path)
        if name[-14:-6] == f"{crc32(content):08x}":
            write_chunk_file(self._folder, name, pa.py_buffer(content))
        else:
            with suppress(Exception):  # somebody else removed it, or it may only be read
                self._system.rm_file(path)

    def _leave(self, path: Path) -> None:
        temporary = f"{self._path}/.{path.name}.{secrets.randbits(48)}.tmp"
        try:
            self._system.put_file(str(path), temporary)
            self._system.mv(temporary, f"{self._path}/{path.name}")
        except BaseException:
            with suppress(Exception):
                self._system.rm_file(temporary)
            raise

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        """Turn what a server, a network or a protocol's package raises into one line."""
        try:
            yield
        except CacheError:
            raise
        except Exception as error:
            raise CacheError(
                f"--chunks {self._url}: cannot be {done}: {first_line(error)}; check the name, the network and the "
                "credentials, then run the command again: it goes on"
            ) from error
