"""A unit of work: some segments in, one Parquet part and the rows that were turned away out.

A unit is what one process does at a time. What it writes follows from its segments and options only.
"""

import gc
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.stages.inputs import RawFile, Segment
from dataprep.stages.normalize.columns import Columns, add_messages, to_batch
from dataprep.stages.normalize.convert import convert
from dataprep.stages.normalize.message import identify
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read import RawRow, read_rows
from schemas.conversation import CONVERSATION
from schemas.files import sha256_file, written_whole
from schemas.manifest import Artefact

GROUP_BYTES = 2 << 20
RAW_CHARACTERS = 2000

_DICTIONARY_COLUMNS = ["source", "origin.file", "messages.list.element.role"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What one process is told: read `segments`, write the conversations to `path`; `roles` is the whole table."""

    segments: list[Segment]
    path: Path
    format: str | None
    roles: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """What became of a unit's rows; `quarantine` holds one line of JSON for each that was turned away."""

    turned_away: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    quarantine: list[bytes] = field(default_factory=list)


def normalize_unit(unit: Unit) -> tuple[Artefact | None, Tally]:
    """Convert a unit's rows and write its part, whole or not at all; no part where no row was kept.

    Rows are many small objects in no cycles: looking for cycles among them would cost a third of the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _write_part(unit)
    finally:
        if collecting:
            gc.enable()


def _write_part(unit: Unit) -> tuple[Artefact | None, Tally]:
    tally = Tally()
    batches = _batches(unit, tally)
    first = next(batches, None)
    if first is None:
        return None, tally
    rows = 0
    with written_whole(unit.path) as temporary, _writer(temporary) as writer:
        while first is not None:
            writer.write_batch(first)
            rows += first.num_rows
            first = next(batches, None)
    size = unit.path.stat().st_size
    return Artefact(file=unit.path.name, rows=rows, bytes=size, sha256=sha256_file(unit.path)), tally


def _batches(unit: Unit, tally: Tally) -> Iterator[pa.RecordBatch]:
    columns, size = Columns(), 0
    for segment in unit.segments:
        file = segment.file
        for row in read_rows(segment):
            if isinstance(row[1], TurnedAway):
                _turn_away(tally, file, row, row[1])
                continue
            try:
                size += _add_row(columns, tally, file, row, unit)
            except TurnedAway as reason:
                _turn_away(tally, file, row, reason)
            if size >= GROUP_BYTES:
                yield to_batch(columns)
                columns, size = Columns(), 0
    if columns.ids:
        yield to_batch(columns)


def _add_row(columns: Columns, tally: Tally, file: RawFile, row: RawRow, unit: Unit) -> int:
    number, value, _ = row
    name, messages, tools = convert(value, unit.format, unit.roles)
    conversation_id, size = identify(messages, tools)
    columns.ids.append(conversation_id)
    columns.sources.append(file.source)
    columns.files.append(file.name)
    columns.rows.append(number)
    columns.tools.append(tools)
    add_messages(columns, messages)
    tally.formats[name] += 1
    tally.sources[file.source] += 1
    return size


def _turn_away(tally: Tally, file: RawFile, row: RawRow, reason: TurnedAway) -> None:
    tally.turned_away[reason.reason] += 1
    tally.quarantine.append(_quarantine_line(file.name, row, reason))


def _writer(path: Path) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        CONVERSATION,
        compression="zstd",
        compression_level=1,
        use_dictionary=_DICTIONARY_COLUMNS,
        write_statistics=False,
    )


def _quarantine_line(file: str, row: RawRow, reason: TurnedAway) -> bytes:
    number, value, raw = row
    record = {"file": file, "row": number, "reason": reason.reason, "detail": reason.detail, "fix": reason.fix}
    record["raw"] = _raw_text(value, raw)
    try:
        return orjson.dumps(record) + b"\n"  # a copy: what orjson gives holds on to 4 KB however short it is
    except TypeError:  # half of a surrogate pair in the detail or the row
        return json.dumps(record).encode() + b"\n"


def _raw_text(value: Any, raw: bytes | None) -> str:
    if raw is not None:
        return raw[: 4 * RAW_CHARACTERS].decode("utf-8", "replace")[:RAW_CHARACTERS]
    if isinstance(value, TurnedAway):
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)[:RAW_CHARACTERS]
    except (TypeError, ValueError, RecursionError):
        return ""
