"""Results of units, in order, into parts and one quarantine file: duplicates leave here, and the counts are summed."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataprep.core.errors import first_line
from dataprep.stages.duplicates import SeenConversations, id_keys
from dataprep.stages.near_duplicates import NearDuplicates, signatures
from dataprep.stages.normalize.part import drop_rows
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.normalize.unit import Tally
from dataprep.stages.quarantine import quarantine_line
from schemas.errors import CacheError
from schemas.manifest import Artefact, ConversationsManifest


@dataclass(kw_only=True, slots=True)
class Gathered:
    """The sums over all units: rows + branched = kept + joined + those turned away."""

    parts: list[Artefact] = field(default_factory=list)
    rows: int = 0
    branched: int = 0
    joined: int = 0
    turned_away: Counter[str] = field(default_factory=Counter)
    cleaned: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    readings: dict[str, tuple[int, str]] = field(default_factory=dict)  # in words -> rows, file:row of the first

    @classmethod
    def of(cls, before: ConversationsManifest) -> "Gathered":
        """Begin with what a manifest says, but for the rows that were turned away: those are to come."""
        rejected = sum(before.turned_away.values())
        return cls(
            parts=list(before.parts),
            rows=before.rows - rejected,
            branched=before.branched,
            joined=before.joined,
            cleaned=Counter(before.cleaned),
            seen=Counter(before.seen),
            formats=Counter(before.formats),
            sources=Counter(before.sources),
            readings={reading.reading: (reading.rows, reading.example) for reading in before.readings},
        )

    @property
    def kept(self) -> int:
        """Conversations in the parts."""
        return sum(part.rows for part in self.parts)


def gather(
    results: Iterable[tuple[Artefact | None, Tally]],
    folder: Path,
    quarantine: BinaryIO,
    gathered: Gathered,
    first_copies: "FirstCopies | None",
) -> None:
    """Add the units' results to `gathered`; with `first_copies`, without the conversations that were there before."""
    for part, tally in results:
        quarantine.writelines(tally.quarantine)
        if part is not None and first_copies is not None:
            part = _without_copies(part, folder, tally, first_copies, quarantine)
        if part is not None:
            name = f"part-{len(gathered.parts):05d}-{part.sha256[:8]}.parquet"
            gathered.parts.append(placed(folder / part.file, name, part))
        gathered.rows += tally.rows
        gathered.branched += tally.branched
        gathered.joined += tally.joined
        gathered.turned_away.update(tally.turned_away)
        gathered.cleaned.update(tally.cleaned)
        gathered.seen.update(tally.seen)
        gathered.formats.update(tally.formats)
        gathered.sources.update(tally.sources)
        for reading, (rows, example) in tally.readings.items():
            before, first = gathered.readings.get(reading, (0, example))
            gathered.readings[reading] = before + rows, first


def placed(path: Path, name: str, artefact: Artefact) -> Artefact:
    """Rename a finished file to the name made of its content."""
    path.replace(path.with_name(name))
    return Artefact(file=name, rows=artefact.rows, bytes=artefact.bytes, sha256=artefact.sha256)


class FirstCopies:
    """Which conversation was the first of its content, or nearly so, and where it stood."""

    def __init__(self, *, exact: bool, threshold: float | None) -> None:
        self._seen = SeenConversations() if exact else None
        self._near = NearDuplicates(threshold) if threshold is not None else None
        self._origins = _Origins()

    def add(self, tally: Tally) -> list[tuple[str, int] | None]:
        """Add a unit's conversations; gives for each the reason it is turned away for and the number of its first copy.

        None for those that are kept.
        """
        self._origins.add(tally.files, tally.origins)
        found: list[tuple[str, int] | None] = [None] * len(tally.ids)
        if self._near is not None and tally.signatures:
            found = _reasons("near-duplicate", self._near.first_of(np.concatenate(tally.signatures)), found)
        if self._seen is not None:
            found = _reasons("duplicate", self._seen.first_of(id_keys(tally.ids)), found)
        return found

    def add_parts(self, parts: list[Path]) -> None:
        """Add the conversations of these parts, all of which are kept. Raises CacheError for one that isn't whole."""
        for part in parts:
            table = _read_part(part, ["id", "origin", "messages"] if self._near else ["id", "origin"])
            origins = table.column("origin").combine_chunks()
            tally = Tally(
                ids=table.column("id").to_pylist(),
                files=origins.field("file").to_pylist(),
                origins=origins.field("row").to_pylist(),
            )
            if self._near:
                tally.signatures.append(signatures([_said(messages) for messages in table["messages"].to_pylist()]))
            self.add(tally)

    def place(self, number: int) -> str:
        """Say where a conversation stood, as file:row."""
        return self._origins.place(number)


def _read_part(part: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(part, columns=columns)
    except (pa.ArrowException, OSError) as error:
        reason = "missing" if not part.exists() else f"damaged: {first_line(error)}"
        raise CacheError(f"{part}: {reason}; run `dataprep normalize` with the input again") from error


class _Origins:
    """Files and rows of conversations by number: eight bytes each, and a run for each change of file."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.int64]] = []
        self._starts: list[int] = [0]  # of the arrays in _rows
        self._run_starts: list[int] = []
        self._run_files: list[str] = []

    def add(self, files: list[str], rows: list[int]) -> None:
        start = self._starts[-1]
        for file, run in groupby(files):
            self._run_starts.append(start)
            self._run_files.append(file)
            start += sum(1 for _ in run)
        self._rows.append(np.array(rows, dtype=np.int64))
        self._starts.append(start)

    def place(self, number: int) -> str:
        file = self._run_files[bisect_right(self._run_starts, number) - 1]
        block = bisect_right(self._starts, number) - 1
        return f"{file}:{self._rows[block][number - self._starts[block]]}"


def _reasons(
    reason: str, first: NDArray[np.int64], otherwise: list[tuple[str, int] | None]
) -> list[tuple[str, int] | None]:
    return [(reason, n) if n >= 0 else other for n, other in zip(first.tolist(), otherwise, strict=True)]


def _said(messages: list[dict[str, Any]]) -> str:
    return "\n".join(m["content"] if m["role"] in ("user", "assistant", "text") else "" for m in messages)


def _without_copies(
    part: Artefact, folder: Path, tally: Tally, first_copies: FirstCopies, quarantine: BinaryIO
) -> Artefact | None:
    found = first_copies.add(tally)
    copies = [copy for copy in found if copy is not None]
    if not copies:
        return part
    left, lost = drop_rows(folder / part.file, np.array([copy is not None for copy in found]))
    for (code, number), record in zip(copies, lost.to_pylist(), strict=True):
        same = "the same conversation as" if code == "duplicate" else "nearly the same conversation as"
        reason = TurnedAway(code, f"{same} {first_copies.place(number)}")
        origin = record["origin"]
        row = (origin["row"], {"messages": record["messages"], "tools": record["tools"]}, None)
        quarantine.write(quarantine_line(origin["file"], record["source"], row, reason))
    tally.turned_away.update(code for code, _ in copies)
    tally.sources.subtract(lost.column("source").to_pylist())
    tally.formats = [name for name, copy in zip(tally.formats, found, strict=True) if copy is None]
    return left
