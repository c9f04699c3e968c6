"""Making the chunks of examples that aren't in the cache, in processes of this machine.

A task is a run of consecutive chunks, and writes them itself; nothing but their files' names comes back.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from dataprep.core.chunk_files import write_chunk
from dataprep.core.chunks import Chunk
from dataprep.core.columns import RowReader
from dataprep.core.encode import Encoder
from dataprep.core.progress import progress_bar
from dataprep.core.tokenizer import ModelTokenizer
from dataprep.core.workers import num_cores, run_tasks
from dataprep.tokenize.token_cache import TokenizeEngine
from schemas.manifest import ConversationsManifest, TargetRules, TokenOptions

ROWS_AT_ONCE = 1_024
_MOST_READS_PER_TASK = 4  # where there are many: two tasks decode the row group in which they meet
_TASKS_PER_WORKER = 16
BYTES_AT_ONCE = 8 << 20
_MIN_ROWS_PER_WORKER = 2_000  # below this, starting another worker costs more than it saves


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWork:
    """What chunks are made of and where they go; workers elsewhere find all of it under the same paths."""

    conversations: Path
    manifest: ConversationsManifest
    tokenizer: ModelTokenizer
    options: TokenOptions
    targets: dict[str, TargetRules] = field(default_factory=dict)  # of the sources with rules of their own
    folder: Path

    @property
    def columns(self) -> list[str]:
        """What of a conversation decides its tokens."""
        return ["messages", "tools", *(["source"] if self.targets else [])]

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


def fill_cache(work: TokenWork, chunks: Sequence[Chunk], workers: int | None = None) -> Filled:
    """Make these chunks."""
    for _ in fill(work, chunks, workers):
        pass
    return Filled(tokenized=num_rows(chunks))


def fill(
    work: TokenWork, chunks: Sequence[Chunk], workers: int | None = None, encoder: Encoder | None = None
) -> Generator[tuple[Chunk, Path]]:
    """Yield each of these chunks with its file as they are made, in order; `encoder` is the tokenizer's, if at hand."""
    if not chunks:
        return
    work.folder.mkdir(parents=True, exist_ok=True)
    workers = min(workers or num_cores(), most_workers(chunks))
    load(work, encoder)
    with progress_bar(num_rows(chunks), " conversations", "tokenize") as bar:
        for task, files in run_tasks(make_chunks, list(tasks_of(chunks, workers)), workers, load, (work,)):
            yield from zip(task, files, strict=True)
            bar.update(num_rows(task))
    _unload()


def most_workers(chunks: Sequence[Chunk]) -> int:
    """How many workers these chunks are worth."""
    return max(1, num_rows(chunks) // _MIN_ROWS_PER_WORKER)


def num_rows(chunks: Sequence[Chunk]) -> int:
    """The conversations of these chunks."""
    return sum(chunk.stop - chunk.start for chunk in chunks)


def packed_bytes(conversations: ConversationsManifest) -> int:
    """The bytes of all parts, which are about half of their text."""
    return sum(part.bytes for part in conversations.parts)


def tasks_of(chunks: Sequence[Chunk], workers: int) -> Iterator[list[Chunk]]:
    """Tasks for so many workers: longer ones where there are many."""
    reads = num_rows(chunks) // (workers * _TASKS_PER_WORKER * ROWS_AT_ONCE)
    return groups(chunks, ROWS_AT_ONCE * max(1, min(reads, _MOST_READS_PER_TASK)))


def groups(chunks: Sequence[Chunk], most_rows: int) -> Iterator[list[Chunk]]:
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


def load(work: TokenWork, encoder: Encoder | None = None) -> None:
    """Prepare this process for `make_chunks`."""
    global _loaded
    if _loaded is None or _loaded[0] != work:
        encoder = encoder or work.tokenizer.encoder(packed_bytes(work.manifest))
        engine = TokenizeEngine.load(work.tokenizer, work.options, work.targets, encoder)
        _loaded = work, engine, RowReader(work.conversations, work.manifest, work.columns)


def _unload() -> None:
    global _loaded
    _loaded = None


def make_chunks(chunks: list[Chunk]) -> list[Path]:
    """Make consecutive chunks; returns their files."""
    assert _loaded is not None
    work, engine, reader = _loaded
    return [
        write_chunk(work.folder, key, batch)
        for group in groups(chunks, ROWS_AT_ONCE)
        for key, batch in examples_of(engine, reader.rows(group[0].start, group[-1].stop), group)
    ]


def examples_of(engine: TokenizeEngine, table: pa.Table, chunks: list[Chunk]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield the key and the examples of consecutive chunks, whose conversations the table holds."""
    first, table = chunks[0].start, table.combine_chunks()
    for own in _runs(table, chunks):
        start, stop = own[0].start - first, own[-1].stop - first
        batch = engine.tokenize(table.slice(start, stop - start))
        for chunk in own:
            part = batch.slice(chunk.start - own[0].start, chunk.stop - chunk.start)
            yield chunk.key, pa.concat_batches([part, part.slice(0, 0)])  # a copy: not its neighbours' bytes


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
