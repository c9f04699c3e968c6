"""What raw data is while it is read: files, the segments that they are cut into, and rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.stages.read.archives import Archive
from dataprep.stages.read.remote import Remote

RawRow = tuple[int, Any, bytes | None]  # number from 1, value, the row's own bytes where it has them

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow")
STDIN = "-"
PACKINGS = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True, kw_only=True, slots=True)
class RawFile:
    """One input file."""

    path: Path
    name: str  # the path as the user gave it, with forward slashes
    source: str  # the file's name without its endings
    ending: str  # one of ENDINGS: what it holds
    packing: str  # one of PACKINGS: how it is compressed; or empty
    bytes: int
    archive: Archive | None = None  # that it is a member of; `path` is then the archive's
    place: int = 0  # in the archive
    remote: Remote | None = None  # where it isn't on this machine; `path` is then its own name

    @property
    def is_streamed(self) -> bool:
        """Whether it can't be opened in the middle."""
        return self.archive is not None or self.remote is not None or self.name == STDIN


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Part of one input file: bytes `start` to `end` of lines or of JSON values, or those row groups of Parquet.

    Of a stream, which can't be read from the middle, it holds the bytes themselves; of .csv after the header.
    """

    file: RawFile
    kind: str  # lines | too-long | values | viewer | delimited | document | parquet | arrow | batches | lost
    start: int  # of .arrow: stages/read/arrow.py
    end: int
    first_row: int  # from 1
    rows: int  # at most so many
    first_line: int = 1  # of JSON values
    encoding: str | None = None  # that the file was read in where it is not UTF-8; `data` is UTF-8
    data: bytes | None = None  # of a stream: what to read
    bytes: int  # its share of the file
