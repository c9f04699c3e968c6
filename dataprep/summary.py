"""What `dataprep normalize` prints when it is done: the ledger, with an example and the remedy for each reason."""

from pathlib import Path
from typing import Any

import orjson

from schemas.manifest import ConversationsManifest

_DETAIL_CHARACTERS = 200
_SOURCES_SHOWN = 20


def summary_text(manifest: ConversationsManifest, out: Path) -> str:
    """Tell what became of the rows, as lines of aligned text without a newline at the end.

    Reads the quarantine file in `out`/conversations up to the first row of each reason.
    """
    folder = out / "conversations"
    turned_away = manifest.rows - manifest.kept
    counts = {"rows": manifest.rows, "kept": manifest.kept, "turned away": turned_away}
    nested = {f"  {reason}": number for reason, number in manifest.turned_away.items()}
    formats = {f"  {name}": number for name, number in manifest.formats.items()}
    sources = {f"  {name}": number for name, number in list(manifest.sources.items())[:_SOURCES_SHOWN]}
    width = max(map(len, [*counts, *nested, *formats, *sources]))
    digits = len(f"{manifest.rows:,}")
    examples = first_of_each_reason(manifest, folder) if turned_away else {}

    def counted(name: str, number: int) -> str:
        return f"{name:<{width}}  {number:>{digits},}"

    lines = [counted(name, number) for name, number in counts.items()]
    for name, number in nested.items():
        lines += [counted(name, number), *_example(examples.get(name.strip()))]
    if manifest.kept == 0:
        return "\n".join([*lines, "", "no row was kept, so there is nothing to tokenize", *_places(manifest, folder)])
    for title, table in (("kept, by format", formats), ("kept, by source", sources)):
        lines += ["", title, *(counted(name, number) for name, number in table.items())]
    if len(manifest.sources) > _SOURCES_SHOWN:
        lines.append(f"  and {len(manifest.sources) - _SOURCES_SHOWN:,} more")
    return "\n".join([*lines, "", *_places(manifest, folder)])


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
    if manifest.kept < manifest.rows:
        places.append(f"the rows turned away are listed in {folder / manifest.quarantine.file}")
    return notes + places
