"""A unit of work: some segments in, one Parquet part and the rows that were turned away out.

A unit is what one process does at a time. What it writes follows from its segments and the settings only.
"""

import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.stages.clean.clean import make_cleaner
from dataprep.stages.clean.cleaned import Clean
from dataprep.stages.clean.overlap import make_overlap
from dataprep.stages.clean.personal import make_personal
from dataprep.stages.near_duplicates import signatures
from dataprep.stages.normalize.branches import parts_of
from dataprep.stages.normalize.columns import Columns, add_messages, to_batch
from dataprep.stages.normalize.convert import columns_read, convert_as
from dataprep.stages.normalize.formats.flat_trees import trees_of_rows
from dataprep.stages.normalize.formats.turn_rows import dialogues_of_rows
from dataprep.stages.normalize.message import as_json, identify
from dataprep.stages.normalize.part import write_part
from dataprep.stages.normalize.readings import reading_of
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.normalize.settings import Settings
from dataprep.stages.quarantine import quarantine_line
from dataprep.stages.read.inputs import RawFile, RawRow, Segment
from dataprep.stages.read.rows import read_rows
from schemas.manifest import Artefact

GROUP_BYTES = 2 << 20
JOINS = {"trees": trees_of_rows, "turns": dialogues_of_rows}


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What one process is told: read `segments`, write the conversations to `path`."""

    segments: list[Segment]
    path: Path
    joined_by: str = ""  # the rows are messages of one file: what makes conversations of them, a name in JOINS


@dataclass(kw_only=True, slots=True)
class Tally:
    """What became of a unit's rows. The lists have one item a conversation, in the order of the part."""

    rows: int = 0
    branched: int = 0  # conversations, kept or not, beyond one a row
    joined: int = 0  # rows beyond one a conversation
    turned_away: Counter[str] = field(default_factory=Counter)
    cleaned: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    formats: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)  # rows
    signatures: list[NDArray[np.uint16]] = field(default_factory=list)  # (N, P) each, if near duplicates are asked for
    sources: Counter[str] = field(default_factory=Counter)
    readings: dict[str, tuple[int, str]] = field(default_factory=dict)  # in words -> rows, file:row of the first
    quarantine: list[bytes] = field(default_factory=list)  # lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalizer:
    """The settings, and what a process makes of them once."""

    settings: Settings
    columns: tuple[str, ...]  # that are read of tables
    steps: tuple[Clean, ...]  # of cleaning, in their order

    @classmethod
    def of(cls, settings: Settings, held_out: NDArray[np.uint64] | None) -> "Normalizer":
        """`held_out` are hashes of text that must not be trained on."""
        steps = [make_cleaner(settings.clean), make_personal(settings.pii)]
        if held_out is not None:
            steps.append(make_overlap(held_out))
        columns = columns_read(settings)
        return cls(settings=settings, columns=columns, steps=tuple(step for step in steps if step is not None))

    def normalize(self, unit: Unit) -> tuple[Artefact | None, Tally]:
        """Convert a unit's rows and write its part, whole or not at all; no part where no row was kept.

        Rows are many small objects in no cycles: looking for cycles among them would cost a third of the time.
        """
        tally = Tally()
        collecting = gc.isenabled()
        gc.disable()
        try:
            return write_part(unit.path, self._batches(unit, tally)), tally
        finally:
            if collecting:
                gc.enable()

    def _batches(self, unit: Unit, tally: Tally) -> Iterator[pa.RecordBatch]:
        columns, size = Columns(), 0
        for file, row in self._rows(unit, tally):
            size += self._add_row(columns, tally, file, row)
            if size >= GROUP_BYTES:
                yield self._finished(columns, tally)
                columns, size = Columns(), 0
        if columns.ids:
            yield self._finished(columns, tally)

    def _rows(self, unit: Unit, tally: Tally) -> Iterator[tuple[RawFile, RawRow]]:
        """Yield the unit's rows; those that are messages as one a conversation."""
        rows = ((segment.file, row) for segment in unit.segments for row in read_rows(segment, columns=self.columns))
        if not unit.joined_by:
            for file, row in rows:
                tally.rows += 1
                yield file, row
            return
        file = unit.segments[0].file
        messages: list[tuple[int, Any]] = []
        for file, row in rows:
            if isinstance(row[1], TurnedAway):
                tally.rows += 1
                yield file, row
            else:
                messages.append(row[:2])
        for number, conversation, joined in JOINS[unit.joined_by](messages):
            tally.rows += joined
            tally.joined += joined - 1
            yield file, (number, conversation, None)

    def _add_row(self, columns: Columns, tally: Tally, file: RawFile, row: RawRow) -> int:
        """Convert one row and append what it gives; returns the bytes of text."""
        value = row[1]
        try:
            if isinstance(value, TurnedAway):
                raise value
            name, parts = parts_of(value, self.settings)
        except TurnedAway as reason:
            _turn_away(tally, file, row, reason)
            return 0
        tally.branched += len(parts) - 1
        size = 0
        for part in parts:
            try:
                size += self._add(columns, tally, file, row[0], part, name)
            except TurnedAway as reason:
                _turn_away(tally, file, row, reason)
        return size

    def _add(self, columns: Columns, tally: Tally, file: RawFile, number: int, value: Any, name: str) -> int:
        messages, tools = convert_as(value, name, self.settings)
        canonical = as_json(messages, tools)
        for step in self.steps:
            done = step(messages, canonical)
            if done is not None:
                tally.cleaned.update(done.changed)
                tally.seen.update(done.seen)
                if done.messages is not messages:
                    messages = done.messages
                    canonical = as_json(messages, tools)
        columns.ids.append(identify(messages, tools, canonical))
        columns.sources.append(file.source)
        columns.files.append(file.name)
        columns.rows.append(number)
        columns.tools.append(tools)
        add_messages(columns, messages)
        tally.formats.append(name)
        reading = reading_of(name, value)
        if reading is not None:
            rows, example = tally.readings.get(reading, (0, f"{file.name}:{number}"))
            tally.readings[reading] = rows + 1, example
        return len(canonical)

    def _finished(self, columns: Columns, tally: Tally) -> pa.RecordBatch:
        tally.ids += columns.ids
        tally.files += columns.files
        tally.origins += columns.rows
        tally.sources.update(columns.sources)
        if self.settings.clean.get("near-duplicates", "off") != "off":
            tally.signatures.append(signatures(columns.texts()))
        return to_batch(columns)


_normalizer: Normalizer | None = None


def prepare(settings: Settings, held_out: NDArray[np.uint64] | None = None) -> None:
    """Make this process ready for `normalize_unit`."""
    global _normalizer
    _normalizer = Normalizer.of(settings, held_out)


def normalize_unit(unit: Unit) -> tuple[Artefact | None, Tally]:
    """Normalise a unit by the settings that this process was prepared with."""
    assert _normalizer is not None, "prepare() comes first"
    return _normalizer.normalize(unit)


def _turn_away(tally: Tally, file: RawFile, row: RawRow, reason: TurnedAway) -> None:
    tally.turned_away[reason.reason] += 1
    tally.quarantine.append(quarantine_line(file.name, file.source, row, reason))
