"""Raw data in, cache/conversations out: finds the files, shares them out to processes, closes the ledger.

The folder changes hands in one step: parts and quarantine get names made of their content, the manifest is replaced
last, and only then are files removed that it does not name. Killed before, the old state stands whole.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from dataprep.choices import Choices, record_of, settle
from dataprep.core.progress import progress_bar
from dataprep.core.workers import num_cores, run_tasks
from dataprep.gather import FirstCopies, Gathered, gather, placed
from dataprep.stages.cut import cut
from dataprep.stages.inputs import STDIN, RawFile, Segment, find_files
from dataprep.stages.normalize.settings import Settings
from dataprep.stages.normalize.unit import Tally, Unit, normalize_unit, prepare
from schemas.conversation import CONVERSATIONS_FORMAT, CONVERSATIONS_VERSION
from schemas.errors import CacheError, InputError
from schemas.files import sha256_file, written_whole
from schemas.manifest import Artefact, ConversationsManifest, InputFile, NormalizeOptions, write_manifest

# A unit is one part and one process's task.
UNIT_BYTES = 32 << 20
UNIT_ROWS = 100_000

_OURS = re.compile(
    r"part-\d{5}-[0-9a-f]{8}\.parquet|quarantine-[0-9a-f]{8}\.jsonl|\.+(unit|quarantine)-\d.*|\.manifest\.json\..*"
)


def normalize_corpus(
    inputs: list[str], out: Path, *, workers: int | None = None, choices: Choices | None = None
) -> ConversationsManifest:
    """Turn raw files, folders, globs or standard input ("-") into `out`/conversations and give its manifest.

    `workers` is the number of processes, by default one per core where there is enough to do; the output's bytes don't
    depend on it. Raises InputError for choices that can't be followed and for inputs that hold no row at all,
    CacheError where `out` can't be written.
    """
    choices = choices or Choices()
    settings = settle(choices)
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: must be 1 or more; leave it out to use every core")
    folder = out / "conversations"
    files = find_files(inputs, leave_out=folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        manifest = _write_conversations(files, folder, settings, record_of(choices, settings), workers)
        write_manifest(folder / "manifest.json", manifest)
        _remove_unnamed(folder, manifest)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CacheError(f"{folder}: cannot be written: {reason}; free space there or choose another --out") from error
    finally:
        _remove_unplaced(folder)
    return manifest


def _write_conversations(
    files: list[RawFile], folder: Path, settings: Settings, options: NormalizeOptions, workers: int | None
) -> ConversationsManifest:
    read: list[InputFile] = []
    gathered = Gathered(sources=Counter({file.source: 0 for file in files}))
    first_copies = FirstCopies() if settings.clean["duplicates"] == "drop" else None
    unplaced = folder / f".quarantine-{os.getpid()}.jsonl"
    with written_whole(unplaced) as temporary, temporary.open("wb") as quarantine:
        results = _results(_units(files, folder, read), files, settings, workers)
        gather(results, folder, quarantine, gathered, first_copies)
        if gathered.rows == 0:
            raise InputError(_no_rows(files))
    digest, rejected = sha256_file(unplaced), gathered.turned_away.total()
    record = Artefact(file=unplaced.name, rows=rejected, bytes=unplaced.stat().st_size, sha256=digest)
    assert gathered.rows + gathered.branched == gathered.kept + rejected, "every row is kept or counted"
    return ConversationsManifest(
        format=CONVERSATIONS_FORMAT,
        version=CONVERSATIONS_VERSION,
        inputs=read,
        options=options,
        rows=gathered.rows,
        branched=gathered.branched,
        joined=0,
        kept=gathered.kept,
        turned_away=_most_first(gathered.turned_away),
        cleaned=_most_first(gathered.cleaned),
        seen=_most_first(gathered.seen),
        readings=[],
        formats=_most_first(gathered.formats),
        sources=dict(gathered.sources),
        parts=gathered.parts,
        quarantine=placed(unplaced, f"quarantine-{digest[:8]}.jsonl", record),
    )


def _units(files: list[RawFile], folder: Path, read: list[InputFile]) -> Iterator[Unit]:
    """Yield units in the order of the input; `read` gets each file once it has been cut to its end."""
    for number, segments in enumerate(_shares(files, read)):
        yield Unit(segments=segments, path=folder / f".unit-{os.getpid()}-{number:05d}.parquet")


def _shares(files: list[RawFile], read: list[InputFile]) -> Iterator[list[Segment]]:
    segments: list[Segment] = []
    size = rows = 0
    for file in files:
        digest, taken, encoding = sha256(), 0, None
        for segment in cut(file, digest):
            taken, encoding = taken + segment.bytes, segment.encoding
            segments.append(segment)
            size += segment.bytes if segment.data is None else len(segment.data)
            rows += segment.rows
            if size >= UNIT_BYTES or rows >= UNIT_ROWS:
                yield segments
                segments, size, rows = [], 0, 0
        num_bytes = file.bytes or taken
        read.append(InputFile(path=file.name, bytes=num_bytes, sha256=digest.hexdigest(), encoding=encoding))
    if segments:
        yield segments


def _results(
    units: Iterator[Unit], files: list[RawFile], settings: Settings, workers: int | None
) -> Iterator[tuple[Artefact | None, Tally]]:
    endless = any(file.name == STDIN for file in files)
    total_bytes = sum(file.bytes for file in files)
    num_workers = workers or num_cores()
    if not endless:
        num_workers = min(num_workers, 1 + total_bytes // UNIT_BYTES)
    with progress_bar(None if endless else total_bytes, "B", "normalize") as bar:
        for unit, result in run_tasks(normalize_unit, units, num_workers, prepare, (settings,)):
            bar.update(sum(segment.bytes for segment in unit.segments))
            yield result


def _remove_unnamed(folder: Path, manifest: ConversationsManifest) -> None:
    named = {manifest.quarantine.file, *(part.file for part in manifest.parts)}
    for path in folder.iterdir():
        if path.name not in named and _OURS.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def _remove_unplaced(folder: Path) -> None:
    with suppress(OSError):
        for path in folder.glob(f".*-{os.getpid()}[-.]*"):
            path.unlink()


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _no_rows(files: list[RawFile]) -> str:
    if len(files) == 1:
        return f"{files[0].name}: holds no rows; name a file with at least one"
    return f"{files[0].name} and {len(files) - 1} more: none of these files holds a row; name one that does"
