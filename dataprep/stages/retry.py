"""A quarantine file in, the rows that stand in it out, each under the file and number that it had."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from dataprep.stages.normalize.reasons import FIXES, TurnedAway
from dataprep.stages.read.inputs import RawFile, RawRow, Segment
from dataprep.stages.read.values import value_of
from schemas.errors import InputError

SEGMENT_BYTES = 8 << 20

_KEPT = ("duplicate", "near-duplicate", "bad-encoding")


def quarantine_segments(path: Path) -> Iterator[Segment]:
    """Cut a quarantine file: a segment holds the lines of one input file, about 8 MiB of them at most.

    Raises InputError for a line that `dataprep normalize` didn't write.
    """
    with path.open("rb") as lines:
        for (name, source), run in groupby(enumerate(lines, 1), lambda line: _origin(path, *line)):
            held: list[bytes] = []
            for _, line in run:
                held.append(line)
                if sum(map(len, held)) >= SEGMENT_BYTES:
                    yield _segment(name, source, held)
                    held = []
            if held:
                yield _segment(name, source, held)


def quarantined_rows(segment: Segment) -> Iterator[RawRow]:
    """Yield the rows of a segment's lines.

    Those that no mapping mends keep the reason they were turned away for: copies, bytes and values that can't be read.
    """
    assert segment.data is not None
    for line in segment.data.splitlines():
        record = orjson.loads(line)
        raw = record["raw"].encode("utf-8", "surrogatepass")
        value: Any = value_of(raw)
        if record.get("raw_cut") or isinstance(value, TurnedAway) or record["reason"] in _KEPT:
            value = TurnedAway(record["reason"], record["detail"], record["fix"])
        yield record["row"], value, raw


def _origin(path: Path, number: int, line: bytes) -> tuple[str, str]:
    try:
        record = orjson.loads(line)
        known = record["reason"] in FIXES and type(record["row"]) is int and type(record["raw"]) is str
        if known and type(record["file"]) is str and type(record["source"]) is str:
            return record["file"], record["source"]
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path}:{number}: not a line that normalize wrote; give --retry its quarantine file unchanged")


def _segment(name: str, source: str, lines: list[bytes]) -> Segment:
    data = b"".join(lines)
    file = RawFile(path=Path(name), name=name, source=source, ending="", packing="", bytes=len(data))
    return Segment(
        file=file, kind="quarantine", start=0, end=0, first_row=1, rows=len(lines), data=data, bytes=len(data)
    )
