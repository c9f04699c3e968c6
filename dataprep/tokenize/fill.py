"""Making the chunks of examples that aren't in the cache: in processes of this machine, or on a Ray cluster.

A task is a run of consecutive chunks, and writes them itself; nothing but counts comes back.
"""

import importlib.util
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from dataprep.core.chunk_files import chunk_files, write_chunk
from dataprep.core.chunks import Chunk
from dataprep.core.columns import RowReader
from dataprep.core.progress import progress_bar
from dataprep.core.ray_tasks import connected, run_on_ray
from dataprep.core.tokenizer import ModelTokenizer
from dataprep.core.workers import num_cores, run_tasks
from dataprep.tokenize.token_cache import TokenizeEngine
from schemas.errors import CacheError, SftpackError
from schemas.files import sha256_file
from schemas.manifest import ConversationsManifest, TargetRules, TokenOptions

ROWS_AT_ONCE = 1_024
_MOST_READS_PER_TASK = 4  # where there are many: two tasks decode the row group in which they meet
_TASKS_PER_WORKER = 16
BYTES_AT_ONCE = 8 << 20
_MIN_ROWS_PER_WORKER = 2_000  # below this, starting another worker costs more than it saves
_UNSEEN_S = 90.0  # how long a network file system may hide what other machines have written
_DECIDING = ("sftpack", "transformers", "tokenizers", "fastokens", "jinja2")  # programs that ids and masks hang on


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWork:
    """What chunks are made of and where they go; workers elsewhere find all of it under the same paths."""

    conversations: Path
    manifest: ConversationsManifest
    tokenizer: ModelTokenizer
    options: TokenOptions
    targets: dict[str, TargetRules] = field(default_factory=dict)  # of the sources with rules of their own
    folder: Path

    def absolute(self) -> "TokenWork":
        """The same, for processes with other working folders."""
        return replace(
            self,
            conversations=self.conversations.absolute(),
            tokenizer=replace(self.tokenizer, folder=str(Path(self.tokenizer.folder).absolute())),
            folder=self.folder.absolute(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What `fill_cache` did."""

    tokenized: int  # conversations
    cluster: str = ""  # which did it; empty: this machine


def fill_cache(work: TokenWork, chunks: Sequence[Chunk], workers: int | None = None, engine: str = "local") -> Filled:
    """Make these chunks; the engine is "local" or "ray".

    Raises CacheError where what a cluster made isn't to be seen here.
    """
    if not chunks:
        return Filled(tokenized=0)
    rows = num_rows(chunks)
    work.folder.mkdir(parents=True, exist_ok=True)
    most = max(1, rows // _MIN_ROWS_PER_WORKER)
    tasks = list(_tasks(chunks, min(workers or num_cores(), most)))
    if engine == "ray" and most > 1:
        return Filled(tokenized=rows, cluster=_fill_by_ray(work, chunks, tasks, workers))
    _load(work)
    with progress_bar(rows, " conversations", "tokenize") as bar:
        for _, done in run_tasks(_make_chunks, tasks, min(workers or num_cores(), most), _load, (work,)):
            bar.update(done)
    _unload()
    return Filled(tokenized=rows)


def num_rows(chunks: Sequence[Chunk]) -> int:
    """The conversations of these chunks."""
    return sum(chunk.stop - chunk.start for chunk in chunks)


def _fill_by_ray(work: TokenWork, chunks: Sequence[Chunk], tasks: Sequence[list[Chunk]], workers: int | None) -> str:
    """Make chunks on a Ray cluster; returns which."""
    begin = work.absolute(), sha256_file(work.conversations / "manifest.json"), _programs()
    with (
        connected(workers or num_cores()) as cluster,
        progress_bar(num_rows(chunks), " conversations", "tokenize") as bar,
    ):
        for _, done in run_on_ray(_make_chunks, tasks, workers, _load_elsewhere, begin):
            bar.update(done)
        text = cluster.text()
    _await_chunks(work.folder, chunks)
    return text


def _await_chunks(folder: Path, chunks: Sequence[Chunk]) -> None:
    """Wait until they are to be seen here: network file systems keep listings for up to a minute."""
    until = time.monotonic() + _UNSEEN_S
    while unseen := {chunk.key for chunk in chunks} - chunk_files(folder).keys():
        if time.monotonic() > until:
            raise CacheError(
                f"{folder}: {len(unseen)} chunks that the cluster wrote aren't to be seen here; CACHE must lie in "
                "a folder that all nodes share, under the same path"
            )
        time.sleep(1)


def _tasks(chunks: Sequence[Chunk], workers: int) -> Iterator[list[Chunk]]:
    """Tasks for so many workers: longer ones where there are many."""
    reads = num_rows(chunks) // (workers * _TASKS_PER_WORKER * ROWS_AT_ONCE)
    return _groups(chunks, ROWS_AT_ONCE * max(1, min(reads, _MOST_READS_PER_TASK)))


def _groups(chunks: Sequence[Chunk], most_rows: int) -> Iterator[list[Chunk]]:
    """Runs of consecutive chunks of so many rows at most, or of one chunk."""
    group: list[Chunk] = []
    for chunk in chunks:
        if group and (chunk.start != group[-1].stop or chunk.stop - group[0].start > most_rows):
            yield group
            group = []
        group.append(chunk)
    if group:
        yield group


_loaded: tuple[TokenWork, TokenizeEngine, RowReader] | None = (
    None  # of this process; a forked worker finds its parent's
)


def _load(work: TokenWork) -> None:
    global _loaded
    if _loaded is None or _loaded[0] != work:
        engine = TokenizeEngine.load(work.tokenizer, work.options, work.targets)
        columns = ["messages", "tools", *(["source"] if engine.by_source else [])]
        _loaded = work, engine, RowReader(work.conversations, work.manifest, columns)


def _unload() -> None:
    global _loaded
    _loaded = None


def _load_elsewhere(work: TokenWork, conversations_sha256: str, programs: dict[str, str]) -> None:
    """Load in a worker of a cluster, once it is shown to see the same cache, and to have the same programs."""
    node, path = socket.gethostname(), work.conversations / "manifest.json"
    if not path.is_file() or sha256_file(path) != conversations_sha256:
        raise CacheError(
            f"{path}: node {node} doesn't find it, or another file; CACHE must lie in a folder that all nodes share, "
            "under the same path"
        )
    for name, here in _programs().items():
        if programs.get(name) != here:
            raise SftpackError(
                f"node {node} has {name} {here}, not {programs.get(name)}; install the same on every node"
            )
    _load(work)


def _programs() -> dict[str, str]:
    """Versions of what decides ids and masks."""
    return {name: version(name) for name in _DECIDING if name == "sftpack" or importlib.util.find_spec(name)}


def _make_chunks(chunks: list[Chunk]) -> int:
    """Make consecutive chunks; returns of how many conversations."""
    for group in _groups(chunks, ROWS_AT_ONCE):
        _make_group(group)
    return num_rows(chunks)


def _make_group(chunks: list[Chunk]) -> None:
    """Make those that are read at once."""
    assert _loaded is not None
    work, engine, reader = _loaded
    first, last = chunks[0].start, chunks[-1].stop
    table = reader.rows(first, last).combine_chunks()
    for own in _runs(table, chunks):
        start, stop = own[0].start - first, own[-1].stop - first
        batch = engine.tokenize(table.slice(start, stop - start))
        for chunk in own:
            part = batch.slice(chunk.start - own[0].start, chunk.stop - chunk.start)
            part = pa.concat_batches([part, part.slice(0, 0)])  # a copy: its bytes don't depend on the chunks beside it
            write_chunk(work.folder, chunk.key, part)


def _runs(table: pa.Table, chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks of the table in runs of at most BYTES_AT_ONCE, or of one chunk: what is in memory with its tokens."""
    run: list[Chunk] = []
    held = 0
    for chunk in chunks:
        size = table.slice(chunk.start - chunks[0].start, chunk.stop - chunk.start).nbytes
        if run and held + size > BYTES_AT_ONCE:
            yield run
            run, held = [], 0
        run.append(chunk)
        held += size
    yield run
