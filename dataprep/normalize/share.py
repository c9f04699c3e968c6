"""Input files, or a quarantine that is taken up again, shared out to processes as units of work.

Which rows make a unit follows from the input alone, never from how many processes there are.
"""

import os
from collections.abc import Generator, Iterable, Iterator
from hashlib import sha256
from itertools import chain, groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataprep.core.progress import progress_bar
from dataprep.core.workers import num_cores, run_tasks
from dataprep.stages.normalize.convert import KEYS
from dataprep.stages.normalize.formats.flat_trees import holds_flat_trees
from dataprep.stages.normalize.formats.turn_rows import holds_turn_rows
from dataprep.stages.normalize.settings import Settings
from dataprep.stages.normalize.unit import Tally, Unit, normalize_unit, prepare
from dataprep.stages.read.cut import cut
from dataprep.stages.read.inputs import RawFile, Segment
from dataprep.stages.read.rows import read_rows
from schemas.manifest import Artefact, InputFile

# A unit is one part and one process's task.
UNIT_BYTES = 32 << 20
UNIT_ROWS = 100_000


def file_segments(
    files: list[RawFile], encoding: str | None, columns: tuple[str, ...], read: list[InputFile]
) -> Iterator[Segment]:
    """Cut files in their order; `read` gets each once it has been cut to its end. The rest: stages/read/cut.py."""
    for file in files:
        digest, found = _Digest(), None
        for segment in cut(file, digest, encoding=encoding, columns=columns):
            found = segment.encoding
            yield segment
        read.append(InputFile(path=file.name, bytes=digest.bytes, sha256=digest.hexdigest(), encoding=found))


def normalized(
    segments: Iterable[Segment],
    total_bytes: int | None,
    folder: Path,
    normalizer: tuple[Settings, NDArray[np.uint64] | None],
    workers: int | None,
) -> Generator[tuple[Artefact | None, Tally], None, None]:
    """Yield what became of each unit, in order; parts lie in `folder` under names that say they are unplaced yet.

    `total_bytes` is the size of the input, None where it isn't known; `normalizer` is what `prepare` is given.
    """
    num_workers = workers or num_cores()
    if total_bytes is not None:
        num_workers = min(num_workers, 1 + total_bytes // UNIT_BYTES)
    with progress_bar(total_bytes, "B", "normalize") as bar:
        for unit, result in run_tasks(
            normalize_unit, _units(segments, folder, normalizer[0]), num_workers, prepare, normalizer
        ):
            bar.update(sum(segment.bytes for segment in unit.segments))
            yield result


class _Digest:
    """SHA-256 of what it is fed, and how many bytes that were."""

    def __init__(self) -> None:
        self.bytes = 0
        self._hash = sha256()

    def update(self, data: bytes) -> None:
        self.bytes += len(data)
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _units(segments: Iterable[Segment], folder: Path, settings: Settings) -> Iterator[Unit]:
    for number, (share, joined_by) in enumerate(_shares(segments, settings)):
        path = folder / f".unit-{os.getpid()}-{number:05d}.parquet"
        yield Unit(segments=share, path=path, joined_by=joined_by)


def _shares(segments: Iterable[Segment], settings: Settings) -> Iterator[tuple[list[Segment], str]]:
    """Put segments together to units; a file whose rows are messages is a unit of its own, however large."""
    share: list[Segment] = []
    size = rows = 0
    for _, own in groupby(segments, lambda segment: segment.file.name):
        rest = iter(own)
        first = next(rest)
        of_file = chain([first], rest)
        if joined_by := _joined_by(first, settings):
            if share:
                yield share, ""
                share, size, rows = [], 0, 0
            yield list(of_file), joined_by
        for segment in of_file:
            share.append(segment)
            size += segment.bytes if segment.data is None else len(segment.data)
            rows += segment.rows
            if size >= UNIT_BYTES or rows >= UNIT_ROWS:
                yield share, ""
                share, size, rows = [], 0, 0
    if share:
        yield share, ""


def _joined_by(segment: Segment, settings: Settings) -> str:
    """What makes conversations of a file's rows, by its first; nothing where each row is one."""
    first = next(read_rows(segment, columns=KEYS), None) if segment.kind != "quarantine" else None
    if first is not None and holds_flat_trees(first[1]):
        return "trees"
    if first is None or settings.shapes or settings.format not in (None, "openai"):
        return ""
    return "turns" if holds_turn_rows(first[1], settings.roles) else ""
