"""What `dataprep normalize` prints when it is done: the ledger, with an example and the remedy for each reason."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from dataprep.stages.clean.steps import STEPS
from schemas.manifest import ConversationsManifest

_DETAIL_CHARACTERS = 200
_SOURCES_SHOWN = 20


def summary_text(manifest: ConversationsManifest, out: Path) -> str:
    """Tell what became of the rows, as lines of aligned text without a newline at the end.

    Reads the quarantine file in `out`/conversations up to the first row of each reason.
    """
    folder = out / "conversations"
    examples = first_of_each_reason(manifest, folder) if manifest.turned_away else {}
    tables = [_ledger(manifest, examples)]
    if manifest.kept:
        tables += [
            _Table("kept, by format", list(manifest.formats.items())),
            _by_source(manifest),
            _Table("mended, in conversations", list(manifest.cleaned.items())),
            _Table("found and left, in conversations", [_found(name, n) for name, n in manifest.seen.items()]),
        ]
    width = max(len(name) for table in tables for name, *_ in table.rows) + 2
    digits = len(f"{max(manifest.rows, manifest.rows + manifest.branched):,}")
    lines: list[str] = []
    for table in tables:
        lines += table.text(width, digits)
    for reading in manifest.readings:
        rows = "1 row" if reading.rows == 1 else f"{reading.rows:,} rows"
        lines += ["", f"read as one of two: {reading.reading}", f"  {rows}, first {reading.example}"]
    if manifest.kept == 0:
        lines += ["", "no row was kept, so there is nothing to tokenize"]
        return "\n".join([*lines, *_places(manifest, folder)])
    return "\n".join([*lines, "", *_places(manifest, folder)])


@dataclass(kw_only=False, slots=True)
class _Table:
    """Counts under a title; a row is a name, its count, and lines to stand below it."""

    title: str
    rows: Sequence[tuple[str, int] | tuple[str, int, str]]
    lines: list[str] = field(default_factory=list)  # at the end
    below: dict[str, list[str]] = field(default_factory=dict)

    def text(self, width: int, digits: int) -> list[str]:
        """Lines, after a blank one; none where there are no rows."""
        if not self.rows:
            return []
        lines = ["", self.title] if self.title else []
        for name, count, *note in self.rows:
            indent = "" if name in ("rows", "kept", "turned away") else "  "
            lines.append("  ".join([f"{indent + name:<{width}}", f"{count:>{digits},}", *note]))
            lines += self.below.get(name, [])
        return lines + self.lines


def _ledger(manifest: ConversationsManifest, examples: dict[str, dict[str, Any]]) -> _Table:
    """The rows, and what is not kept of them: more conversations than one a row, or fewer, and those turned away."""
    rows: list[Any] = [("rows", manifest.rows)]
    if manifest.branched:
        rows.append(("branched", manifest.branched, "conversations beyond one a row"))
    if manifest.joined:
        rows.append(("joined", manifest.joined, "rows that are part of another's conversation"))
    rows += [("kept", manifest.kept), ("turned away", sum(manifest.turned_away.values()))]
    rows += list(manifest.turned_away.items())
    return _Table("", rows, [], {reason: _example(record) for reason, record in examples.items()})


def _by_source(manifest: ConversationsManifest) -> _Table:
    """The largest sources, and the names of those of which nothing was kept."""
    filled = sorted(((n, c) for n, c in manifest.sources.items() if c), key=lambda source: -source[1])
    empty = [name for name, count in manifest.sources.items() if not count]
    lines = [f"  and {len(filled) - _SOURCES_SHOWN:,} more"] if len(filled) > _SOURCES_SHOWN else []
    if empty:
        more = f" and {len(empty) - _SOURCES_SHOWN:,} more" if len(empty) > _SOURCES_SHOWN else ""
        lines.append(f"  none of {', '.join(empty[:_SOURCES_SHOWN])}{more}")
    return _Table("kept, by source", filled[:_SOURCES_SHOWN], lines)


def _found(name: str, count: int) -> tuple[str, int, str]:
    """What a step saw and left, with the option by which it acts."""
    step = STEPS.get(name)
    if step is None:
        return name, count, "--pii redact or drop acts on it" if name.startswith("pii-") else ""
    return name, count, f"--clean {name}={step.acting} acts on it" if step.acting else ""


def first_of_each_reason(manifest: ConversationsManifest, folder: Path) -> dict[str, dict[str, Any]]:
    """Give the first quarantined row of each reason, as it stands in the quarantine file."""
    examples: dict[str, dict[str, Any]] = {}
    with (folder / manifest.quarantine.file).open("rb") as lines:
        for line in lines:
            record = orjson.loads(line)
            examples.setdefault(record["reason"], record)
            if len(examples) == len(manifest.turned_away):
                break
    return examples


def _example(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    detail = record["detail"]
    if len(detail) > _DETAIL_CHARACTERS:
        detail = detail[: _DETAIL_CHARACTERS - 1] + "…"
    return [f"      {record['file']}:{record['row']}: {detail}", f"      to mend: {record['fix']}"]


def _places(manifest: ConversationsManifest, folder: Path) -> list[str]:
    num_parts = len(manifest.parts)
    others = [file for file in manifest.inputs if file.encoding]
    notes = [f"{file.path}: not UTF-8; read as {file.encoding}" for file in others[:_SOURCES_SHOWN]]
    if len(others) > _SOURCES_SHOWN:
        notes.append(f"and {len(others) - _SOURCES_SHOWN:,} more files that are not UTF-8: see manifest.json")
    places = [f"written to {folder} ({num_parts} {'part' if num_parts == 1 else 'parts'})"] if num_parts else []
    if manifest.quarantine.rows:
        places.append(f"the rows turned away are listed in {folder / manifest.quarantine.file}")
    return notes + places
