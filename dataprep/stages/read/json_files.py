"""A JSON file in, segments of whole rows out: an array's items, values one after another, or an object's lists of rows.

An array of messages is one row, and so is an object, unless it wraps lists of rows: those are named after the file and
their key, as in chats.json#train. The text streams through; a row is all that must be held.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import orjson

from dataprep.stages.read.elements import Span, Text, spans
from dataprep.stages.read.raw import RawFile, Segment
from dataprep.stages.read.unpack import Fed
from dataprep.stages.read.wrapped import MEMBER, is_message, lists_of_rows, shape_of

WHOLE_OBJECT_BYTES = 16 << 20  # what an object is follows from so much of it
LONGEST_KEY = 1 << 20  # with the blanks around it

_BOM = b"\xef\xbb\xbf"


def cut_json(
    file: RawFile, fed: Fed, chunks: Iterator[bytes], *, streamed: bool, segment_bytes: int, segment_rows: int
) -> Iterator[Segment]:
    """Cut JSON text into segments, which hold their bytes where the text is `streamed` and can't be read again."""
    first_chunk, second = next(chunks, b""), next(chunks, b"")
    text = Text(chain([first_chunk, second], chunks) if second else iter([first_chunk]), file.name)
    cutter = _Cutter(file, fed, text, streamed, segment_bytes, segment_rows)
    if not second and len(first_chunk) <= segment_bytes and (span := _small(first_chunk, segment_rows)):
        yield cutter.segment(file, "values", span, first_chunk)
        return
    first = _first_byte(text)
    if first == b"[":
        text.restart(text.start + 1)
        if _first_is_message(text):
            yield from cutter.whole_array()
            return
    elif first == b"{":
        begun = _begun_object(text)
        keys, from_viewer = lists_of_rows(shape_of(begun)) if begun else (frozenset[str](), False)
        if keys:
            yield from cutter.lists(keys, from_viewer)
            return
    yield from cutter.rows()
    while text.more():  # so that the digest is that of the whole file
        text.let_go(text.scanned)


def _small(data: bytes, span_rows: int) -> Span | None:
    """Tell at once what most files are, that are small and whole: an array of rows, or one row."""
    try:
        value = orjson.loads(data)
    except ValueError:
        return None
    if isinstance(value, dict) and not lists_of_rows(value)[0]:
        begin, end, rows = 0, len(data), 1
    elif isinstance(value, list) and 0 < len(value) <= span_rows and not is_message(value[0]):
        begin, end, rows = data.index(b"[") + 1, data.rindex(b"]"), len(value)
    else:
        return None
    return Span(begin, end, 1 + data.count(b"\n", 0, begin), rows)


def starts_array_of_rows(head: bytes) -> bool:
    """Tell whether JSON text begins with an array of objects that are no messages, or of lists of messages."""
    text = Text(iter([head]))
    if _first_byte(text) != b"[":
        return False
    text.restart(text.start + 1)
    try:
        first = orjson.loads(_first_value(text))
    except ValueError:
        return False
    if isinstance(first, list):
        return bool(first) and is_message(first[0])
    return isinstance(first, dict) and not is_message(first)


def first_value(head: bytes) -> bytes:
    """Give the first value of JSON text, as far as it goes."""
    text = Text(iter([head]))
    _first_byte(text)
    return _first_value(text)


class _Cutter:
    """What segments are made of, and how many rows each list has had so far."""

    def __init__(
        self, file: RawFile, fed: Fed, text: Text, streamed: bool, segment_bytes: int, segment_rows: int
    ) -> None:
        self._file, self._fed, self._text, self._streamed = file, fed, text, streamed
        self._segment_bytes, self._segment_rows = segment_bytes, segment_rows
        self._rows: dict[str, int] = {}
        self._taken = 0

    def rows(self, file: RawFile | None = None, kind: str = "values", *, to_bracket: bool = False) -> Iterator[Segment]:
        """Cut the values that the text goes on with, as rows of `file`."""
        for span in spans(self._text, self._segment_bytes, self._segment_rows, to_bracket=to_bracket):
            yield self.segment(file or self._file, kind, span)

    def lists(self, keys: frozenset[str], from_viewer: bool) -> Iterator[Segment]:
        """Cut the lists of an object under `keys`. What is no member, in a broken object, are rows of the last list."""
        text, file, kind = self._text, self._file, "viewer" if from_viewer else "values"
        text.restart(text.start + 1)
        closed = False
        while not closed:
            key, passed = self._next_member(keys)
            if key is not None:
                file = replace(self._file, name=f"{self._file.name}#{key}")
                yield from self.rows(file, kind, to_bracket=True)
                text.restart(text.start)
            end, closed = self._end_of_member(passed)
            if not passed and text.piece(text.start, end).strip():
                yield self.segment(file, kind, Span(text.start, end, text.line, 1))
            if not len(text.cuts.ends):
                return
            text.drop(0)
        text.restart(text.start)
        yield from self.rows(file, kind)

    def _next_member(self, keys: frozenset[str]) -> tuple[str | None, bool]:
        """Give the key of a list of rows, its first bracket passed; or None, and whether another member begins."""
        text = self._text
        while not (member := MEMBER.match(text.held)) and len(text.held) <= LONGEST_KEY and not len(text.cuts.ends):
            if not text.more():
                break
        if not member:
            return None, False
        key = _key(member[1])
        if member[2] != b"[" or key not in keys:
            return None, True
        text.restart(text.start + member.end())
        return key, False

    def _end_of_member(self, passed: bool) -> tuple[int, bool]:
        """Find where a member ends and whether the object ends there; what is `passed` over is not held."""
        text = self._text
        while not len(text.cuts.ends) and text.more():
            if passed:
                text.let_go(int(text.cuts.ends[0]) if len(text.cuts.ends) else text.scanned)
        if not len(text.cuts.ends):
            return text.end, False
        return int(text.cuts.ends[0]), bool(text.cuts.closing[0])

    def whole_array(self) -> Iterator[Segment]:
        """Give all of the text as one row; its first bracket has been passed."""
        text = self._text
        while text.more():
            pass
        begin = text.start - 1
        data = b"[" + text.held if self._streamed else None
        yield Segment(
            file=self._file,
            kind="values",
            start=begin,
            end=text.end,
            first_row=1,
            rows=1,
            first_line=text.line,
            bytes=self._fed.taken,
            data=data,
        )

    def segment(self, file: RawFile, kind: str, span: Span, whole: bytes = b"") -> Segment:
        """Make a segment of a span of the text, or of the text as a whole where it was not read by parts."""
        first_row = self._rows.get(file.name, 1)
        self._rows[file.name] = first_row + span.rows
        share, self._taken = self._fed.taken - self._taken, self._fed.taken
        if not self._streamed:
            share = span.end - span.begin
        return Segment(
            file=file,
            kind=kind,
            start=span.begin,
            end=span.end,
            first_row=first_row,
            rows=span.rows,
            first_line=span.line,
            bytes=share,
            data=(whole[span.begin : span.end] or self._text.piece(span.begin, span.end)) if self._streamed else None,
        )


def _first_byte(text: Text) -> bytes:
    """Pass over a byte order mark and blanks, and give the byte after them."""
    while len(text.held) < len(_BOM) and text.more():
        pass
    if text.held.startswith(_BOM):
        text.restart(text.start + len(_BOM))
    while True:
        blanks = len(text.held) - len(text.held.lstrip())
        text.restart(text.start + blanks)
        if text.held or not text.more():
            return bytes(text.held[:1])


def _first_is_message(text: Text) -> bool:
    try:
        return is_message(orjson.loads(_first_value(text)))
    except ValueError:
        return False


def _first_value(text: Text) -> bytes:
    _read_first(text)
    return text.piece(text.start, int(text.cuts.ends[0]) if len(text.cuts.ends) else text.scanned)


def _read_first(text: Text) -> None:
    while not len(text.cuts.ends) and text.scanned - text.start <= WHOLE_OBJECT_BYTES and text.more():
        pass


def _begun_object(text: Text) -> bytes:
    """Give a lone object, or the beginning of a large one; nothing where more values follow it."""
    _read_first(text)
    return b"" if len(text.cuts.ends) else text.piece(text.start, text.scanned)


def _key(quoted: bytes) -> str:
    try:
        return str(orjson.loads(quoted))
    except ValueError:
        return ""
