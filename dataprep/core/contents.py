"""Contents: the texts of all messages of a table as one run of UTF-8, and what is asked of each of them at once.

Templates ask the same of thousands of texts: whether one starts with a tag, holds another, has blanks to strip. What
can be told from the bytes is answered here for all of them; a text becomes a string only where it is needed as one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataprep.core.arrays import to_numpy

# What str.strip() strips.
BLANKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


class Contents:
    """The contents of M messages."""

    def __init__(self, array: pa.StringArray) -> None:
        self.array = array  # (M,), without nulls
        _, offsets, data = array.buffers()
        self._data = data
        self._bounds = np.frombuffer(offsets, dtype=np.int32)[array.offset : array.offset + len(array) + 1]
        self._known: dict[Any, NDArray[np.bool_]] = {}
        self._strings: list[str] | None = None

    def __len__(self) -> int:
        return len(self.array)

    def texts(self, low: int, high: int) -> list[str]:
        """The texts of messages [low, high)."""
        if self._strings is not None:
            return self._strings[low:high]
        return self.array.slice(low, high - low).to_pylist()

    def strings(self) -> list[str]:
        """All texts."""
        if self._strings is None:
            self._strings = self.array.to_pylist()
        return self._strings

    def answers(self, method: str, arguments: tuple[Any, ...]) -> NDArray[np.bool_] | None:
        """What each text answers to a question of core/trace.py; None where the bytes alone don't tell."""
        ask = _ASKED.get(method)
        if ask is None or not all(isinstance(argument, str) for argument in arguments):
            return None
        key = method, arguments
        if key not in self._known:
            answers = ask(self, *arguments)
            if answers is None:
                return None
            self._known[key] = answers
        return self._known[key]

    def _contains(self, part: str) -> NDArray[np.bool_]:
        """Found in all texts at once, and kept where it doesn't reach from one into the next."""
        sought = part.encode()
        if len(sought) < _RARE_BYTES:
            return to_numpy(pc.match_substring(self.array, part))
        found = np.zeros(len(self), dtype=bool)
        low, places = int(self._bounds[0]), []
        whole = self._data.slice(low, int(self._bounds[-1]) - low).to_pybytes() if self._data is not None else b""
        place = whole.find(sought)
        while place >= 0:
            places.append(place + low)
            place = whole.find(sought, place + 1)
        starts = np.array(places, dtype=np.int64)
        texts = np.searchsorted(self._bounds, starts, side="right") - 1
        found[texts[starts + len(sought) <= self._bounds[texts + 1]]] = True
        return found

    def _changed(self, method: str, *arguments: str) -> NDArray[np.bool_] | None:
        """Whether stripping these characters changes a text: whether one of them stands at that end of it."""
        if method not in ("strip", "lstrip", "rstrip"):
            return None
        chars = arguments[0] if arguments else BLANKS
        if max(map(len, map(str.encode, chars)), default=0) > _MOST_BYTES:
            return None
        changed = np.zeros(len(self), dtype=bool)
        for first, other in ((True, "rstrip"), (False, "lstrip")):
            if method != other:
                changed |= self._edge(chars, first=first)
        return changed

    def _edge(self, chars: str, *, first: bool) -> NDArray[np.bool_]:
        """Whether the first (or the last) character of each text is one of these."""
        lengths, is_one = np.diff(self._bounds), np.zeros(len(self), dtype=bool)
        for size in range(1, _MOST_BYTES + 1):
            own = [char.encode() for char in chars if len(char.encode()) == size]
            texts = np.flatnonzero(lengths >= size)
            if own and len(texts):
                data = np.frombuffer(self._data, dtype=np.uint8)
                places = self._bounds[texts] if first else self._bounds[texts + 1] - size
                code = sum(data[places + n].astype(np.uint32) << 8 * n for n in range(size))
                is_one[texts] |= np.isin(code, [int.from_bytes(char, "little") for char in own])
        return is_one


_RARE_BYTES = 3  # what has fewer may stand everywhere
_MOST_BYTES = 3  # of a character that is looked for at an end

_ASKED: dict[str, Callable[..., NDArray[np.bool_] | None]] = {
    "contains": Contents._contains,
    "changed": Contents._changed,
    "equals": lambda contents, other: to_numpy(pc.equal(contents.array, other)),
    "filled": lambda contents: np.diff(contents._bounds) > 0,
    "startswith": lambda contents, part: to_numpy(pc.starts_with(contents.array, part)),
    "endswith": lambda contents, part: to_numpy(pc.ends_with(contents.array, part)),
}
