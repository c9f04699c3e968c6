"""Tokenised data of other tools, row by row: datasets folders, .arrow, .parquet and .jsonl files, folders of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.errors import InputError

IGNORED = -100  # a label that no loss is taken of
_MASKS = ("assistant_masks", "completion_mask", "loss_mask")
_BOUNDS = ("seq_lengths", "cu_seqlens", "cu_seq_lens_q")
_WANTED = ("input_ids", "labels", "attention_mask", "position_ids", *_MASKS, *_BOUNDS)
_SUFFIXES = (".arrow", ".parquet", ".jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenisedRow:
    """One row of N tokens; `place` is its file and row."""

    place: str
    ids: NDArray[np.int64]  # (N,)
    targets: NDArray[np.bool_]  # (N,): as the row has them, by labels where there are any
    labels: NDArray[np.int64] | None  # (N,)
    attended: NDArray[np.bool_] | None  # (N,)
    positions: NDArray[np.int64] | None  # (N,)
    bounded: bool  # lengths of the examples inside are given


def read_tokenised(place: Path) -> Iterator[TokenisedRow]:
    """Read every row. Raises InputError where there is nothing to read or a column is missing."""
    if not place.exists():
        raise InputError(f"--dataset {place}: no such file or folder")
    files = [place] if place.is_file() else sorted(f for end in _SUFFIXES for f in place.rglob(f"*{end}"))
    files = [file for file in files if not file.name.startswith(("cache-", "."))]
    if not files or any(file.suffix not in _SUFFIXES for file in files):
        raise InputError(f"--dataset {place}: no {', '.join(_SUFFIXES)} in it; give a datasets folder or such a file")
    for file in files:
        for number, record in enumerate(_records(file)):
            yield _row(f"{file.name}:{number}", file, record)


def _records(file: Path) -> Iterator[dict[str, Any]]:
    try:
        if file.suffix == ".jsonl":
            with file.open("rb") as lines:
                yield from (orjson.loads(line) for line in lines if line.strip())
        elif file.suffix == ".parquet":
            with pq.ParquetFile(file) as parquet:
                names = [name for name in parquet.schema_arrow.names if name in _WANTED]
                for batch in parquet.iter_batches(batch_size=256, columns=names):
                    yield from _of_batch(batch)
        else:
            with pa.memory_map(str(file)) as source:
                for batch in _arrow_batches(source):
                    yield from _of_batch(batch)
    except (pa.ArrowException, OSError, orjson.JSONDecodeError) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: can't be read: {detail}; tokenise it anew") from error


def _arrow_batches(source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        source.seek(0)
        opened = pa.ipc.open_file(source)
        yield from (opened.get_batch(number) for number in range(opened.num_record_batches))
        return
    yield from reader


def _of_batch(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    names = [name for name in batch.schema.names if name in _WANTED]
    columns = [batch.column(name) for name in names]
    for row in range(batch.num_rows):
        values = [column[row] for column in columns]
        yield {
            name: value.values.to_numpy(zero_copy_only=False) if isinstance(value, pa.ListScalar) else value.as_py()
            for name, value in zip(names, values, strict=True)
            if value.is_valid
        }


def _row(place: str, file: Path, record: Any) -> TokenisedRow:
    if not isinstance(record, dict):
        raise InputError(f"{place}: not an object with input_ids and labels (or assistant_masks)")
    ids, labels, attended, positions = (
        _numbers(place, name, record) for name in ("input_ids", "labels", "attention_mask", "position_ids")
    )
    mask = next((mask for name in _MASKS if (mask := _numbers(place, name, record)) is not None), None)
    marked = mask if labels is None else labels
    if ids is None or marked is None:
        it_has = ", ".join(record) or "none of these"
        raise InputError(f"{file}: needs columns input_ids and labels (or assistant_masks); it has {it_has}")
    for name, values in (("labels", marked), ("attention_mask", attended), ("position_ids", positions)):
        if values is not None and len(values) != len(ids):
            raise InputError(f"{place}: {len(ids)} input_ids but {len(values)} {name}; tokenise it anew")
    return TokenisedRow(
        place=place,
        ids=ids,
        targets=marked != (0 if labels is None else IGNORED),
        labels=labels,
        attended=None if attended is None else attended != 0,
        positions=positions,
        bounded=any(record.get(name) is not None for name in _BOUNDS),
    )


def _numbers(place: str, name: str, record: dict[str, Any]) -> NDArray[np.int64] | None:
    """A column of a row. Raises InputError where it isn't a flat list of whole numbers."""
    values = record.get(name)
    if values is None:
        return None
    try:
        numbers = np.asarray(values)
    except ValueError:  # lists of unequal lengths
        numbers = np.empty((0, 0))
    if numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind not in "iub"):
        raise InputError(f"{place}: {name} is no flat list of whole numbers; tokenise it anew, one row an example")
    return numbers.astype(np.int64)
