"""JSON text in, spans of whole values out, of a size that one process does at a time; the text streams through.

A broken value may hide where it ends: a quote or bracket too few, and all that follows seems to lie within it. The
mark that values begin with (their comma, bracket and first key, as the first value has them) then tells where the next
begins, unless whole values hold that mark too.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import orjson

from dataprep.stages.read.boundaries import Cuts, Scanner
from schemas.errors import InputError

LONGEST_WHOLE = 16 << 20  # a longer value is looked at for the beginning of the next

LONGEST_HELD = (1 << 30) + LONGEST_WHOLE

_SCAN_BYTES = 256 << 10

_FIRST_KEY = re.compile(rb'(\s*)\{\s*("(?:[^"\\]|\\.){0,200}")\s*:', re.DOTALL)
_NO_CUTS = Cuts(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))


class Span(NamedTuple):
    """Values that stand one after another: where, the line of the text that they begin on, and how many at most."""

    begin: int
    end: int
    line: int
    rows: int


class Text:
    """Text of which `held` is what was read and is still needed, from byte `start` on.

    Its boundaries up to byte `scanned` are `cuts`.
    """

    def __init__(self, chunks: Iterator[bytes], name: str = "") -> None:
        self.start = self.scanned = 0
        self.line = 1
        self.held = bytearray()
        self.cuts = _NO_CUTS
        self._chunks = chunks
        self._name = name
        self._scanner = Scanner()

    @property
    def end(self) -> int:
        """Where what was read ends."""
        return self.start + len(self.held)

    def more(self) -> bool:
        """Look for boundaries a little further; False at the end of the text.

        Raises InputError where what must be held is longer than a row can be.
        """
        if len(self.held) > LONGEST_HELD:
            begin = int(self.cuts.begins[-1]) if len(self.cuts.begins) else self.start
            line = self.line + self.held.count(b"\n", 0, begin - self.start)
            raise InputError(
                f"{self._name}: line {line}, byte {begin + 1}: a value is longer than 1 GiB or has no end; mend it"
            )
        if self.scanned == self.end:
            self.held += next(self._chunks, b"")
        piece = self.piece(self.scanned, min(self.end, self.scanned + _SCAN_BYTES))
        found = self._scanner.cuts(piece)
        self.cuts = _joined(self.cuts, Cuts(found.ends + self.scanned, found.begins + self.scanned, found.closing))
        self.scanned += len(piece)
        return bool(piece)

    def restart(self, begin: int) -> None:
        """Look for boundaries anew from `begin`, as if the text began there; what is before it is let go."""
        self.let_go(begin)
        self.cuts, self._scanner, self.scanned = _NO_CUTS, Scanner(), begin

    def drop(self, index: int) -> None:
        """Let go of all before the value that follows the boundary at `index`."""
        self.let_go(int(self.cuts.begins[index]))
        self.cuts = self.cuts.part(index + 1, None)

    def cut_at(self, comma: int, index: int) -> None:
        """Take the comma at `comma` for the boundary at `index`, and look for those after it anew."""
        added = Cuts(np.array([comma]), np.array([comma + 1]), np.array([False]))
        self.cuts = _joined(self.cuts.part(0, index), added)
        self._scanner, self.scanned = Scanner(), comma + 1

    def piece(self, begin: int, end: int) -> bytes:
        """Give the bytes from `begin` to `end`."""
        return bytes(memoryview(self.held)[begin - self.start : end - self.start])

    def let_go(self, begin: int) -> None:
        """Forget the text before `begin`."""
        self.line += self.held.count(b"\n", 0, begin - self.start)
        del self.held[: begin - self.start]
        self.start = begin


def spans(text: Text, span_bytes: int, span_rows: int, *, to_bracket: bool = False) -> Iterator[Span]:
    """Yield the values of a text from where it stands, to its end or the first bracket that closes nothing.

    A value that is broken so that it hides its end is the last of its span.
    """
    mark = _Mark()
    at_end = False
    while True:
        index = _enough(text.cuts, text.start + span_bytes, span_rows, to_bracket)
        broken = mark.broken_value(text, index, at_end)
        index = index if broken is None else broken
        if index is not None:
            closed = bool(text.cuts.closing[index])
            yield Span(text.start, int(text.cuts.ends[index]), text.line, index + 1)
            text.drop(index)
            at_end = False
            if to_bracket and closed:
                return
        elif at_end:
            break
        else:
            at_end = not text.more()
    rows, end = len(text.cuts.ends) + 1, text.end
    if rows > 1 and text.cuts.closing[-1] and not text.piece(int(text.cuts.begins[-1]), end).strip():
        rows, end = rows - 1, int(text.cuts.ends[-1])
    if text.piece(text.start, end).strip():
        yield Span(text.start, end, text.line, rows)
    text.restart(text.end)


def value_places(data: bytes, num_values: int) -> Iterator[tuple[int, int]]:
    """Yield where each of up to `num_values` in a span begins and ends in `data`, blanks around it left out."""
    cuts = Scanner().cuts(data)
    begins, ends = cuts.begins[: num_values - 1].tolist(), cuts.ends[: num_values - 1].tolist()
    for begin, end in zip([0, *begins], [*ends, len(data)], strict=True):
        piece = data[begin:end]
        left = len(piece) - len(piece.lstrip())
        yield begin + left, max(begin + left, begin + len(piece.rstrip()))


class _Mark:
    """How values begin; found at the first one, and given up where a whole value holds it inside."""

    def __init__(self) -> None:
        self._known = False
        self._key = b""
        self._pattern: re.Pattern[bytes] | None = None
        self._longest = LONGEST_WHOLE
        self._looked = 0  # up to where the last value was looked at in vain

    def broken_value(self, text: Text, index: int | None, at_end: bool) -> int | None:
        """Cut the first broken value up to the boundary at `index` where the next begins, and name that boundary.

        Where `index` is None, that is up to the end of what was read, if the last value is suspiciously long.
        """
        if index is not None:
            return self._cut_whole(text, index) if self._is_crowded(text, index) else None
        num_cuts = len(text.cuts.ends)
        begin = int(text.cuts.begins[-1]) if num_cuts else text.start
        if not at_end and text.scanned - begin <= max(self._longest, 2 * (self._looked - begin)):
            return None
        self._looked = text.scanned
        broken = self._cut_whole(text, num_cuts - 1) if num_cuts else None
        return self._cut_last(text, begin, at_end) if broken is None else broken

    def _is_crowded(self, text: Text, index: int) -> bool:
        """Tell quickly whether there may be more marks than values up to the boundary at `index`."""
        if not self._known:
            self._find(text)
        end = int(text.cuts.ends[index]) - text.start
        return self._pattern is not None and text.held.count(self._key, 0, end) > index + 1

    def _cut_whole(self, text: Text, index: int) -> int | None:
        ends = text.cuts.ends[: index + 1]
        commas = self._commas(text, text.start, int(ends[-1]))
        if len(commas) <= index:
            return None
        for comma in np.setdiff1d(commas, ends).tolist():
            number = int(np.searchsorted(ends, comma))
            begin = int(text.cuts.begins[number - 1]) if number else text.start
            if _parses(text.piece(begin, int(ends[number]))):
                self._pattern = None
                return None
            return self._cut(text, comma, number)
        return None

    def _cut_last(self, text: Text, begin: int, at_end: bool) -> int | None:
        commas = self._commas(text, begin, text.scanned)
        if not commas or (at_end and _parses(text.piece(begin, text.end))):
            return None
        return self._cut(text, commas[0], len(text.cuts.ends))

    def _cut(self, text: Text, comma: int, index: int) -> int:
        text.cut_at(comma, index)
        self._longest, self._looked = _SCAN_BYTES, 0
        return index

    def _commas(self, text: Text, begin: int, end: int) -> list[int]:
        """Find the commas before each mark between `begin` and `end`."""
        if not self._known:
            self._find(text)
        if self._pattern is None:
            return []
        found = self._pattern.finditer(text.held, begin - text.start, end - text.start)
        return [text.start + match.start() for match in found]

    def _find(self, text: Text) -> None:
        self._known = True
        first = _FIRST_KEY.match(text.held)
        if first:
            blank = re.escape(first[1]) if b"\n" in first[1] else rb"\s*"
            self._key = first[2]
            self._pattern = re.compile(rb"," + blank + rb"\{\s*" + re.escape(first[2]) + rb"\s*:")


def _enough(cuts: Cuts, end: int, span_rows: int, to_bracket: bool) -> int | None:
    """Name the first boundary that makes a span long enough."""
    index = min(int(np.searchsorted(cuts.ends, end)), span_rows - 1)
    if to_bracket and cuts.closing.any():
        index = min(index, int(np.argmax(cuts.closing)))
    return index if index < len(cuts.ends) else None


def _parses(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except ValueError:
        return False
    return True


def _joined(first: Cuts, second: Cuts) -> Cuts:
    return Cuts(
        np.concatenate((first.ends, second.ends)),
        np.concatenate((first.begins, second.begins)),
        np.concatenate((first.closing, second.closing)),
    )
