"""Bytes of a .csv or .tsv file in; pieces of it that can be read alone, and a piece's rows, out.

The first record is the header; a row is an object of strings, an empty cell is "". Cells may hold quotes and newlines
inside double quotes. A record that breaks these rules costs its first line: reading goes on at the next. Where the
header of a .csv has no comma, what it has instead divides the cells: semicolons or tabs.
"""

import csv
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice

from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read.raw import RawFile, RawRow, Segment
from schemas.errors import InputError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
RECORD_CHARACTERS = 16 << 20  # more in one record: a quote is not closed

_BOM = b"\xef\xbb\xbf"
_FIX = "put cells that hold quotes or newlines in double quotes, quotes in them doubled, and as many as the header has"


def delimited_pieces(
    file: RawFile, chunks: Iterator[bytes], piece_bytes: int, piece_rows: int
) -> Iterator[tuple[bytes, int, int]]:
    """Yield (the header and then records, the first record's line, number of records) until `chunks` end.

    Raises InputError for a header that can't be read or names a column twice.
    """
    lines_of_file = _lines(chunks)  # as Latin-1: every byte is a character
    top = list(islice(lines_of_file, 1))
    records = _records(chain(top, lines_of_file), _delimiter(file, top))
    header, line = "", 1
    for text, num_lines, cells in records:
        header, line = text, line + num_lines
        if cells is None:
            raise InputError(f"{file.name}:1: the header is no row of cells; close its quotes or write it anew")
        if twice := [name for name in cells if cells.count(name) > 1]:
            name = twice[0].encode("latin-1").decode("utf-8", "replace")
            raise InputError(f"{file.name}:1: column {name!r} stands twice in the header; rename one")
        if cells:
            break
    held, size, first, lines = [header], 0, line, 0
    for text, num_lines, _ in records:
        held.append(text)
        size += len(text)
        lines += num_lines
        if size >= piece_bytes or len(held) > piece_rows:
            yield "".join(held).encode("latin-1"), first, len(held) - 1
            held, size, first, lines = [header], 0, first + lines, 0
    if len(held) > 1:
        yield "".join(held).encode("latin-1"), first, len(held) - 1


def delimited_rows(segment: Segment) -> Iterator[RawRow]:
    """Yield the rows of a piece, numbered by the line that each begins on; blank lines are none."""
    assert segment.data is not None
    text = segment.data.decode("utf-8", "surrogateescape")
    lines = [line + "\n" for line in text.removesuffix("\n").split("\n")]
    records = _records(iter(lines), _delimiter(segment.file, lines))
    names: list[str] = next(records)[2] or []
    number = segment.first_row
    for record, num_lines, cells in records:
        if cells != []:
            raw = record.removesuffix("\n").encode("utf-8", "surrogateescape")
            row = _row(names, cells, raw)
            yield number, row, raw if isinstance(row, TurnedAway) else None
        number += num_lines


def _delimiter(file: RawFile, lines: list[str]) -> str:
    """Give what divides the cells of a file that begins with these lines."""
    usual = DELIMITERS[file.ending]
    header = lines[0] if lines else ""
    if usual != "," or usual in header:
        return usual
    return max(",;\t", key=header.count)


def _row(names: list[str], cells: list[str] | None, raw: bytes) -> dict[str, str] | TurnedAway:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return TurnedAway("bad-encoding", f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8")
    if cells is None:
        return TurnedAway("unreadable-rows", "a quote is not closed, or text follows a closing quote", _FIX)
    if len(cells) != len(names):
        return TurnedAway("unreadable-rows", f"{len(cells)} cells; the header has {len(names)}", _FIX)
    return dict(zip(names, cells, strict=True))


def _records(lines: Iterator[str], delimiter: str) -> Iterator[tuple[str, int, list[str] | None]]:
    """Yield each record's text, number of lines and cells: [] for a blank line, None for a line of a broken record."""
    waiting: deque[str] = deque()
    taken: list[str] = []

    def feed() -> Iterator[str]:
        size = 0
        while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
            size = size + len(line) if taken else len(line)
            taken.append(line)
            if size > RECORD_CHARACTERS and len(taken) > 1:
                raise csv.Error("record too long")
            yield line

    csv.field_size_limit(1 << 30)
    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        try:
            cells: list[str] | None = next(reader)
        except StopIteration:
            return
        except csv.Error:
            waiting.extendleft(reversed(taken[1:]))
            del taken[1:]
            cells = None
            reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        if cells and len(taken) == 1 and not taken[0].strip(" \r\n"):
            cells = []
        yield "".join(taken), len(taken), cells
        taken.clear()


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = next(chunks, b"").removeprefix(_BOM)
    for chunk in chunks:
        yield from _whole(rest)
        rest = rest[rest.rfind(b"\n") + 1 :] + chunk
    yield from _whole(rest)
    if rest := rest[rest.rfind(b"\n") + 1 :]:
        yield rest.decode("latin-1") + "\n"


def _whole(data: bytes) -> Iterator[str]:
    for line in data[: data.rfind(b"\n") + 1].decode("latin-1").split("\n")[:-1]:
        yield line + "\n"
