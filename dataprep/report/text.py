"""Conversations in, one number a conversation out: turns, characters, scripts, tools; a row group at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataprep.core.arrays import to_numpy
from dataprep.core.errors import first_line
from dataprep.core.progress import progress_bar
from dataprep.report.scripts import SCRIPTS, scripts_of
from dataprep.stages.pack import mixed
from schemas.errors import CacheError
from schemas.manifest import ConversationsManifest

LANGUAGE_SAMPLES = 1_000
_LATIN = SCRIPTS.index("Latin")
_TEXT_CHARACTERS = 600  # of a conversation, for telling its language
_TELLING_LETTERS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """C conversations; arrays are (C,)."""

    turns: NDArray[np.int32]
    characters: NDArray[np.int64]
    reasoning_characters: NDArray[np.int64]
    calls: NDArray[np.int32]
    has_tools: NDArray[np.bool_]
    scripts: NDArray[np.int8]
    roles: Counter[str]  # messages
    answer_characters: int  # of assistant turns and documents
    latin_texts: list[str]  # beginnings of a sample of the conversations in Latin script
    records: dict[int, dict[str, Any]]  # the rows that were asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Where the C conversations come from."""

    ids: pa.ChunkedArray
    sources: NDArray[np.int32]  # (C,): index into names
    names: list[str]
    files: dict[str, str]  # file -> source


def read_index(folder: Path, manifest: ConversationsManifest) -> Index:
    """Read ids, sources and files of all conversations."""
    columns = ["id", "source", "origin.file"]
    tables = [_read_columns(path, columns) for path in _parts(folder, manifest)]
    if not tables:
        return Index(ids=pa.chunked_array([], pa.string()), sources=np.empty(0, np.int32), names=[], files={})
    table = pa.concat_tables(tables)
    encoded = table.column("source").combine_chunks().dictionary_encode()
    files = pc.struct_field(table.column("origin").combine_chunks(), "file")
    pairs = pa.table({"file": files, "source": table.column("source")}).group_by(["file", "source"]).aggregate([])
    return Index(
        ids=table.column("id"),
        sources=to_numpy(encoded.indices).astype(np.int32),
        names=encoded.dictionary.to_pylist(),
        files=dict(zip(pairs.column("file").to_pylist(), pairs.column("source").to_pylist(), strict=True)),
    )


def measure_texts(folder: Path, manifest: ConversationsManifest, wanted: Sequence[int], seed: int) -> Texts:
    """Measure every conversation and pick out the rows `wanted`, reading each row group once."""
    pieces: list[dict[str, NDArray[Any]]] = []
    roles: Counter[str] = Counter()
    records: dict[int, dict[str, Any]] = {}
    latin: list[tuple[int, str]] = []
    rows, start, answers = np.sort(np.array(wanted, dtype=np.int64)), 0, 0
    with progress_bar(manifest.kept, " conversations", "report") as bar:
        for batch in _batches(folder, manifest):
            measured, group_roles, group_answers = _measure(batch)
            pieces.append(measured)
            roles.update(group_roles)
            answers += group_answers
            own = rows[(rows >= start) & (rows < start + batch.num_rows)]
            taken = pa.Table.from_batches([batch]).take(own - start).to_pylist() if len(own) else []
            records.update(zip(own.tolist(), taken, strict=True))
            latin += _latin_samples(batch, measured["scripts"], start, manifest.kept, seed)
            start += batch.num_rows
            bar.update(batch.num_rows)
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    texts = [text for _, text in sorted(latin)[:LANGUAGE_SAMPLES]]
    return Texts(**joined, roles=roles, answer_characters=answers, latin_texts=texts, records=records)


def languages_of(texts: Sequence[str]) -> Counter[str]:
    """The language of each text, as ISO codes, told by py3langid; "" for a text too short to tell."""
    from py3langid import classify

    return Counter(classify(text)[0] if sum(map(str.isalpha, text)) >= _TELLING_LETTERS else "" for text in texts)


def _parts(folder: Path, manifest: ConversationsManifest) -> Iterator[Path]:
    for part in manifest.parts:
        path = folder / part.file
        if not path.is_file():
            raise CacheError(f"{path}: missing; run `dataprep normalize` again")
        yield path


def _read_columns(path: Path, columns: list[str]) -> pa.Table:
    with _opened(path) as file:
        return file.read(columns=columns)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise CacheError(f"{path}: damaged: {first_line(error)}; run `dataprep normalize` again") from error


def _batches(folder: Path, manifest: ConversationsManifest) -> Iterator[pa.RecordBatch]:
    for path in _parts(folder, manifest):
        with _opened(path) as file:
            groups = range(file.num_row_groups)
            with ThreadPoolExecutor(max_workers=1) as reader:  # the next is read while one is measured
                pending = [reader.submit(file.read_row_group, group) for group in groups[:1]]
                for group in groups:
                    table = pending.pop().result()
                    pending += [reader.submit(file.read_row_group, after) for after in groups[group + 1 : group + 2]]
                    yield from table.combine_chunks().to_batches()


def _measure(batch: pa.RecordBatch) -> tuple[dict[str, NDArray[Any]], Counter[str], int]:
    """Arrays over the conversations of a batch, its messages by role, and the characters of what answers."""
    lists = batch.column("messages")
    bounds = to_numpy(lists.offsets).astype(np.int64)
    bounds -= bounds[0]
    messages = lists.flatten()
    roles = messages.field("role").dictionary_encode()
    names, indices = roles.dictionary.to_pylist(), to_numpy(roles.indices)
    counts = np.bincount(indices, minlength=len(names))
    characters = _numbers(pc.utf8_length(messages.field("content")))
    not_system = np.array([name != "system" for name in names], dtype=bool)[indices]
    answers = np.array([name in ("assistant", "text") for name in names], dtype=bool)[indices]
    measured: dict[str, NDArray[Any]] = {
        "turns": _sums(not_system, bounds).astype(np.int32),
        "characters": _sums(characters, bounds),
        "reasoning_characters": _sums(_numbers(pc.utf8_length(messages.field("reasoning"))), bounds),
        "calls": _sums(_numbers(pc.list_value_length(messages.field("tool_calls"))), bounds).astype(np.int32),
        "has_tools": to_numpy(pc.is_valid(batch.column("tools"))),
        "scripts": scripts_of(*_utf8(messages.field("content"), bounds)),
    }
    by_role = Counter({name: int(count) for name, count in zip(names, counts, strict=True)})
    return measured, by_role, int(characters[answers].sum())


def _numbers(array: pa.Array) -> NDArray[np.int64]:
    return to_numpy(pc.fill_null(array, 0)).astype(np.int64)


def _sums(values: NDArray[Any], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diff(np.concatenate(([0], np.cumsum(values, dtype=np.int64)))[bounds])


def _utf8(strings: pa.Array, bounds: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of all messages, and where each conversation's begin and end in them."""
    _, offsets, data = strings.buffers()
    width = np.int64 if pa.types.is_large_string(strings.type) else np.int32
    ends = np.frombuffer(offsets, dtype=width)[strings.offset : strings.offset + len(strings) + 1].astype(np.int64)
    content = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8)
    return content, ends[bounds]


def _latin_samples(
    batch: pa.RecordBatch, scripts: NDArray[np.int8], start: int, total: int, seed: int
) -> list[tuple[int, str]]:
    """Texts of a fixed random choice of a batch's conversations in Latin script, each with its rank in that choice."""
    ranks = mixed(np.arange(start, start + len(scripts), dtype=np.uint64), seed)
    share = min(1.0, 4 * LANGUAGE_SAMPLES / total)  # the first of them are taken in the end
    chosen = np.flatnonzero((scripts == _LATIN) & (ranks <= np.uint64(share * (2**64 - 2**11))))
    messages = batch.column("messages")
    return [
        (int(ranks[row]), " ".join(message["content"] for message in messages[row].as_py())[:_TEXT_CHARACTERS])
        for row in chosen.tolist()
    ]
