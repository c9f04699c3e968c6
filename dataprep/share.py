"""Input files, or a quarantine that is taken up again, shared out to processes as units of work.

Which rows make a unit follows from the input alone, never from how many processes there are.
"""

import os
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from dataprep.core.progress import progress_bar
from dataprep.core.workers import num_cores, run_tasks
from dataprep.stages.cut import cut
from dataprep.stages.inputs import RawFile, Segment
from dataprep.stages.normalize.settings import Settings
from dataprep.stages.normalize.unit import Tally, Unit, normalize_unit, prepare
from schemas.manifest import Artefact, InputFile

# A unit is one part and one process's task.
UNIT_BYTES = 32 << 20
UNIT_ROWS = 100_000


def file_segments(files: list[RawFile], read: list[InputFile]) -> Iterator[Segment]:
    """Cut files in their order; `read` gets each once it has been cut to its end."""
    for file in files:
        digest, taken, encoding = sha256(), 0, None
        for segment in cut(file, digest):
            taken, encoding = taken + segment.bytes, segment.encoding
            yield segment
        num_bytes = file.bytes or taken
        read.append(InputFile(path=file.name, bytes=num_bytes, sha256=digest.hexdigest(), encoding=encoding))


def normalized(
    segments: Iterable[Segment], total_bytes: int | None, folder: Path, settings: Settings, workers: int | None
) -> Iterator[tuple[Artefact | None, Tally]]:
    """Yield what became of each unit, in order; parts lie in `folder` under names that say they are unplaced yet.

    `total_bytes` is the size of the input, None where it isn't known.
    """
    num_workers = workers or num_cores()
    if total_bytes is not None:
        num_workers = min(num_workers, 1 + total_bytes // UNIT_BYTES)
    with progress_bar(total_bytes, "B", "normalize") as bar:
        for unit, result in run_tasks(normalize_unit, _units(segments, folder), num_workers, prepare, (settings,)):
            bar.update(sum(segment.bytes for segment in unit.segments))
            yield result


def _units(segments: Iterable[Segment], folder: Path) -> Iterator[Unit]:
    for number, share in enumerate(_shares(segments)):
        yield Unit(segments=share, path=folder / f".unit-{os.getpid()}-{number:05d}.parquet")


def _shares(segments: Iterable[Segment]) -> Iterator[list[Segment]]:
    share: list[Segment] = []
    size = rows = 0
    for segment in segments:
        share.append(segment)
        size += segment.bytes if segment.data is None else len(segment.data)
        rows += segment.rows
        if size >= UNIT_BYTES or rows >= UNIT_ROWS:
            yield share
            share, size, rows = [], 0, 0
    if share:
        yield share
