"""Making the chunks of examples that aren't in the cache, on a Ray cluster.

A task is a run of consecutive chunks. A node that sees the cache reads its rows there and writes its chunks there. To
one that doesn't, the rows are sent, and the chunks' files come back to be written here. The tokenizer is sent to all.
"""

import importlib.util
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from dataprep.core.chunk_files import chunk_file, chunk_files, write_chunk, write_chunk_file
from dataprep.core.chunks import Chunk
from dataprep.core.columns import RowReader
from dataprep.core.progress import progress_bar
from dataprep.core.ray_tasks import Supplied, connected, run_on_ray
from dataprep.core.tokenizer import ModelTokenizer
from dataprep.core.workers import num_cores
from dataprep.tokenize.fill import (
    ROWS_AT_ONCE,
    Filled,
    TokenWork,
    examples_of,
    fill_cache,
    groups,
    most_workers,
    num_rows,
)
from dataprep.tokenize.token_cache import TokenizeEngine
from schemas.errors import CacheError, SftpackError
from schemas.files import sha256_file

_UNSEEN_S = 90.0  # how long a network file system may hide what other machines have written
_DECIDING = ("sftpack", "transformers", "tokenizers", "fastokens", "jinja2")  # programs that ids and masks hang on

Files = list[tuple[str, pa.Buffer]]  # chunks' files, by name


def fill_on_ray(work: TokenWork, chunks: Sequence[Chunk], workers: int | None = None) -> Filled:
    """Make these chunks on a Ray cluster; few are made here.

    Raises CacheError where what the cluster made isn't to be seen here.
    """
    if most_workers(chunks) == 1:
        return fill_cache(work, chunks, workers)
    work.folder.mkdir(parents=True, exist_ok=True)
    written, sent = [], 0  # by nodes that see the cache; to those that don't
    with (
        connected(workers or num_cores()) as cluster,
        _marked(work.folder) as mark,
        progress_bar(num_rows(chunks), " conversations", "tokenize") as bar,
    ):
        begin = work.absolute(), mark, _sha256(work), work.tokenizer.encoder_files(), _programs()
        tasks, supply = groups(chunks, ROWS_AT_ONCE), _Rows(work)
        for task, files in run_on_ray(_make_elsewhere, tasks, workers, _load_elsewhere, begin, supply.of):
            for name, content in files:
                write_chunk_file(work.folder, name, content)
            if files:
                sent += num_rows(task)
            else:
                written += task
            bar.update(num_rows(task))
        text = cluster.text() + (f"; {sent:,} sent to nodes that don't see {work.folder.parents[1]}" if sent else "")
    _await_chunks(work.folder, written)
    return Filled(tokenized=num_rows(chunks), cluster=text)


@contextmanager
def _marked(folder: Path) -> Iterator[str]:
    """Put an empty file there, by which a node tells that it sees this very folder; give its name."""
    mark = folder / f".seen.{secrets.randbits(48)}.tmp"  # named like what a killed run leaves
    mark.touch()
    try:
        yield mark.name
    finally:
        with suppress(OSError):
            mark.unlink()


class _Rows:
    """What is sent to nodes that don't see the cache."""

    def __init__(self, work: TokenWork) -> None:
        self._reader = RowReader(work.conversations, work.manifest, work.columns)

    def of(self, chunks: list[Chunk]) -> bytes:
        """The conversations of consecutive chunks, as a compressed Arrow stream."""
        table, sink = self._reader.rows(chunks[0].start, chunks[-1].stop), pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as out:
            out.write_table(table)
        return sink.getvalue().to_pybytes()


def _await_chunks(folder: Path, chunks: Sequence[Chunk]) -> None:
    """Wait until they are to be seen here: network file systems keep listings for up to a minute."""
    until = time.monotonic() + _UNSEEN_S
    while unseen := {chunk.key for chunk in chunks} - chunk_files(folder).keys():
        if time.monotonic() > until:
            raise CacheError(
                f"{folder}: {len(unseen)} chunks that other nodes wrote there aren't to be seen here; wait until "
                "they are, then run the command again"
            )
        time.sleep(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """What a worker process of the cluster holds."""

    work: TokenWork
    engine: TokenizeEngine
    reader: RowReader | None  # None: this node doesn't see the cache


_loaded: _Loaded | None = None


def _load_elsewhere(
    work: TokenWork, mark: str, conversations_sha256: str, tokenizer_files: dict[str, bytes], programs: dict[str, str]
) -> None:
    """Load in a worker of a cluster, once it is shown to have the same programs."""
    global _loaded
    for name, here in _programs().items():
        if programs.get(name) != here:
            raise SftpackError(
                f"node {socket.gethostname()} has {name} {here}, not {programs.get(name)}; install the same on every "
                "node"
            )
    seen = _sees(work, mark, conversations_sha256)
    _loaded = _Loaded(
        work=work,
        engine=_engine(work, tokenizer_files),
        reader=RowReader(work.conversations, work.manifest, work.columns) if seen else None,
    )


def _sees(work: TokenWork, mark: str, conversations_sha256: str) -> bool:
    """Whether this node finds the cache of the run under the same path, and may write there."""
    try:
        return (
            (work.folder / mark).exists() and os.access(work.folder, os.W_OK) and _sha256(work) == conversations_sha256
        )
    except OSError:
        return False


def _engine(work: TokenWork, tokenizer_files: dict[str, bytes]) -> TokenizeEngine:
    with TemporaryDirectory(prefix="sftpack-") as home:
        for name, content in tokenizer_files.items():
            path = Path(home) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        tokenizer: ModelTokenizer = replace(work.tokenizer, folder=f"{home}/files")
        return TokenizeEngine.load(tokenizer, work.options, work.targets)


def _sha256(work: TokenWork) -> str:
    return sha256_file(work.conversations / "manifest.json")


def _programs() -> dict[str, str]:
    """Versions of what decides ids and masks."""
    return {name: version(name) for name in _DECIDING if name == "sftpack" or importlib.util.find_spec(name)}


def _make_elsewhere(chunks: list[Chunk], supplied: Supplied | None) -> Files | None:
    """Make consecutive chunks in a worker of a cluster: gives their files, or none where it could write them.

    None where it doesn't see the cache, and wasn't sent the rows.
    """
    assert _loaded is not None
    if _loaded.reader is not None:
        rows = _loaded.reader.rows(chunks[0].start, chunks[-1].stop)
        for key, batch in examples_of(_loaded.engine, rows, chunks):
            write_chunk(_loaded.work.folder, key, batch)
        return []
    if supplied is None:
        return None
    rows = pa.ipc.open_stream(supplied()).read_all()
    return [chunk_file(key, batch) for key, batch in examples_of(_loaded.engine, rows, chunks)]
