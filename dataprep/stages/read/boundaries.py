"""JSON text in, a chunk at a time; where its values end, out. Nothing is parsed: only brackets and quotes are counted.

The text is that of values one after another, with or without commas between them, as within an array: a bracket that
closes nothing ends a value too. So broken values cost what lies between two boundaries.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_COMMA, _QUOTE, _OPENS, _CLOSES = 1, 2, 3, 4
_CODES = bytes(
    {",": _COMMA, '"': _QUOTE, "{": _OPENS, "[": _OPENS, "}": _CLOSES, "]": _CLOSES}.get(chr(byte), 0)
    for byte in range(256)
)
_STEPS = np.array([0, 0, 0, 1, -1], np.int64)


class Cuts(NamedTuple):
    """Where values end and the next begin, as positions in the chunk; `closing` where a bracket closes nothing."""

    ends: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]
    closing: npt.NDArray[np.bool_]

    def part(self, begin: int, end: int | None) -> "Cuts":
        """Give those from number `begin` to `end`."""
        return Cuts(self.ends[begin:end], self.begins[begin:end], self.closing[begin:end])


class Scanner:
    """What is carried from one chunk to the next: how deep it ended, in a string or not, after a backslash or not."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = 0
        self._escaped = False
        self._before = 0

    def cuts(self, chunk: bytes) -> Cuts:
        """Find the boundaries in the next chunk: outermost commas, brackets that close nothing, and `}{`."""
        codes = np.frombuffer(self._unescaped(chunk).translate(_CODES), np.uint8)
        at = np.flatnonzero(codes.astype(np.bool_))  # of booleans it is several times as fast
        kinds = codes[at]
        quotes = kinds == _QUOTE
        inside = (np.cumsum(quotes, dtype=np.uint8) + np.uint8(self._in_string)) & 1  # a count modulo 256 will do
        outside = np.flatnonzero((inside == 0) & ~quotes)
        if len(inside):
            self._in_string = int(inside[-1])
        at, kinds = at[outside], kinds[outside]
        walk = np.cumsum(_STEPS[kinds]) + self._depth
        depths = walk - np.minimum(np.minimum.accumulate(walk), 0)
        outermost = np.concatenate(([self._depth], depths[:-1])) == 0
        after = np.concatenate((np.array([self._before], np.uint8), kinds[:-1]))
        if len(kinds):
            self._depth, self._before = int(depths[-1]), int(kinds[-1])
        closing = (kinds == _CLOSES) & outermost
        opening = (kinds == _OPENS) & outermost & (after == _CLOSES)
        found = np.flatnonzero(closing | opening | ((kinds == _COMMA) & outermost))
        return Cuts(at[found], at[found] + ~opening[found], closing[found])

    def _unescaped(self, chunk: bytes) -> bytes:
        if self._escaped and chunk.startswith((b'"', b"\\")):
            chunk = b"_" + chunk[1:]
        self._escaped = (len(chunk) - len(chunk.rstrip(b"\\"))) % 2 == 1
        if b"\\" in chunk:
            chunk = chunk.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        return chunk
