"""Raw data in, cache/conversations out: finds the files, shares them out to processes, closes the ledger.

The folder changes hands in one step: parts and quarantine get names made of their content, the manifest is replaced
last, and only then are files removed that it does not name. Killed before, the old state stands whole.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from dataprep.core.lock import locked
from dataprep.normalize.choices import Choices, Settled, settle
from dataprep.normalize.gather import FirstCopies, Gathered, gather, placed
from dataprep.normalize.held_out import held_out_by
from dataprep.normalize.share import file_segments, normalized
from dataprep.normalize.unchanged import Unchanged
from dataprep.stages.read.caches import CONVERSATIONS_FILES
from dataprep.stages.read.inputs import STDIN, RawFile, Segment, find_files
from dataprep.stages.retry import quarantine_segments
from schemas.conversation import CONVERSATIONS_FORMAT, CONVERSATIONS_VERSION
from schemas.errors import CacheError, InputError
from schemas.files import sha256_file, written_whole
from schemas.manifest import (
    Artefact,
    ConversationsManifest,
    InputFile,
    NormalizeOptions,
    Reading,
    read_conversations_manifest,
    write_manifest,
)


def normalize_corpus(
    inputs: list[str], out: Path, *, workers: int | None = None, choices: Choices | None = None
) -> ConversationsManifest:
    """Turn raw files, folders, globs or standard input ("-") into `out`/conversations and give its manifest.

    `workers` is the number of processes, by default one per core where there is enough to do; the output's bytes don't
    depend on it. Raises InputError for choices that can't be followed and for inputs that hold no row at all,
    CacheError where `out` can't be written.
    """
    settled = settle(choices or Choices())
    folder = _conversations(out)
    files = find_files(inputs, leave_out=folder)
    _refuse_own(files, folder)
    read: list[InputFile] = []
    endless = any(file.name == STDIN for file in files)
    total_bytes = None if endless else sum(file.bytes for file in files)
    gathered = Gathered(sources=Counter({file.source: 0 for file in files}))
    with _writing(folder):
        unchanged = Unchanged(files)
        segments = file_segments(files, settled.options.encoding, settled.columns, read)
        quarantine = _gather(gathered, segments, total_bytes, folder, settled, workers)
        unchanged.check()
        if gathered.rows == 0:
            raise InputError(_no_rows(files))
        return _finished(folder, gathered, read, settled.options, quarantine)


def retry_quarantine(
    quarantine: Path, out: Path, *, workers: int | None = None, choices: Choices | None = None
) -> ConversationsManifest:
    """Take up again what was turned away, by new choices; what is kept now joins `out`/conversations as further parts.

    `quarantine` is the file that the manifest there names. What was kept before stays as it is. Raises InputError and
    CacheError.
    """
    settled = settle(choices or Choices())
    folder = _conversations(out)
    read_conversations_manifest(folder)  # before a folder is made
    with _writing(folder):
        before = read_conversations_manifest(folder)
        _check_retried(quarantine, folder / before.quarantine.file, before.quarantine)
        gathered = Gathered.of(before)
        segments = quarantine_segments(quarantine)
        unplaced = _gather(gathered, segments, before.quarantine.bytes, folder, settled, workers)
        return _finished(folder, gathered, before.inputs, settled.options, unplaced)


def _gather(
    gathered: Gathered,
    segments: Iterable[Segment],
    total_bytes: int | None,
    folder: Path,
    settled: Settled,
    workers: int | None,
) -> Path:
    """Normalise the rows of all segments; returns where the rows that were turned away are listed."""
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: must be 1 or more; leave it out to use every core")
    near = settled.settings.clean["near-duplicates"]
    first_copies = FirstCopies(
        exact=settled.settings.clean["duplicates"] == "drop", threshold=None if near == "off" else float(near)
    )
    first_copies.add_parts([folder / part.file for part in gathered.parts])
    normalizer = settled.settings, held_out_by(settled)
    unplaced = folder / f".quarantine-{os.getpid()}.jsonl"
    with (
        written_whole(unplaced) as temporary,
        temporary.open("wb") as quarantine,
        closing(normalized(segments, total_bytes, folder, normalizer, workers)) as results,
    ):
        gather(results, folder, quarantine, gathered, first_copies)
    return unplaced


def _check_retried(given: Path, own: Path, record: Artefact) -> None:
    if given.is_file() and sha256_file(given) == record.sha256:
        return
    if given.resolve() == own.resolve():
        raise InputError(
            f"--retry {given}: missing or changed since it was written; mend the rows in the input, and normalize that"
        )
    raise InputError(f"--retry {given}: not the quarantine of {own.parent}; name {own}")


def _finished(
    folder: Path, gathered: Gathered, read: list[InputFile], options: NormalizeOptions, unplaced: Path
) -> ConversationsManifest:
    """Put the quarantine file in its place, and the manifest last."""
    digest, rejected = sha256_file(unplaced), gathered.turned_away.total()
    record = Artefact(file=unplaced.name, rows=rejected, bytes=unplaced.stat().st_size, sha256=digest)
    assert gathered.rows + gathered.branched == gathered.kept + gathered.joined + rejected, "each row is accounted for"
    manifest = ConversationsManifest(
        format=CONVERSATIONS_FORMAT,
        version=CONVERSATIONS_VERSION,
        inputs=read,
        options=options,
        rows=gathered.rows,
        branched=gathered.branched,
        joined=gathered.joined,
        kept=gathered.kept,
        turned_away=_most_first(gathered.turned_away),
        cleaned=_most_first(gathered.cleaned),
        seen=_most_first(gathered.seen),
        readings=[Reading(reading=r, rows=n, example=first) for r, (n, first) in sorted(gathered.readings.items())],
        formats=_most_first(gathered.formats),
        sources=dict(gathered.sources),
        parts=gathered.parts,
        quarantine=placed(unplaced, f"quarantine-{digest[:8]}.jsonl", record),
    )
    write_manifest(folder / "manifest.json", manifest)
    return manifest


def _conversations(out: Path) -> Path:
    """Name the folder that is written to. Raises InputError where Parquet's writer can't take its name."""
    try:
        str(out).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"--out {out}: the name is not UTF-8; choose another") from error
    return out / "conversations"


def _refuse_own(files: list[RawFile], folder: Path) -> None:
    """Refuse to read what the run would replace."""
    for file in files:
        if file.path.resolve().parent == folder.resolve():
            raise InputError(
                f"{file.name}: lies in the folder that is written to; choose another --out, or take up a quarantine "
                "with --retry"
            )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make the folder that is written to, for this run alone; nothing is left in it that its manifest doesn't name.

    What goes wrong there is the cache's.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent):
            _remove_unnamed(folder)
            try:
                yield
            finally:
                _remove_unnamed(folder)
    except IsADirectoryError as error:
        place = error.filename2 or error.filename
        raise CacheError(f"{place}: a folder is in a file's place; remove it, then run the command again") from error
    except OSError as error:
        reason = error.strerror or str(error)
        what = "make it writable" if isinstance(error, PermissionError) else "free space there"
        raise CacheError(f"{folder}: cannot be written: {reason}; {what} or choose another --out") from error


def _remove_unnamed(folder: Path) -> None:
    """Remove our files that the manifest doesn't name: those of runs that didn't end, or that were replaced."""
    named: set[str] = set()
    if (folder / "manifest.json").exists():
        try:
            manifest = read_conversations_manifest(folder)
        except CacheError:  # of another version: what it names can't be told
            return
        named = {manifest.quarantine.file, *(part.file for part in manifest.parts)}
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name not in named and CONVERSATIONS_FILES.fullmatch(path.name):
                with suppress(OSError):
                    path.unlink()


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _no_rows(files: list[RawFile]) -> str:
    if len(files) == 1:
        return f"{files[0].name}: holds no rows; name a file with at least one"
    return f"{files[0].name} and {len(files) - 1} more: none of these files holds a row; name one that does"
