"""Which script a conversation is written in, from its UTF-8 bytes, for all conversations at once.

Up to SAMPLED bytes are taken, evenly spread over each conversation, and each stands for the character that it belongs
to. So a Han character, of three bytes, counts as much as three Latin letters, about what it says.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

SAMPLED = 256

SCRIPTS = (
    "no letters",
    "Latin",
    "Chinese",
    "Japanese",
    "Korean",
    "Cyrillic",
    "Greek",
    "Hebrew",
    "Arabic",
    "Indic",
    "Thai",
    "other script",
)
_LATIN, _HAN, _KANA, _HANGUL, _CYRILLIC, _GREEK, _HEBREW, _ARABIC, _INDIC, _THAI, _OTHER = range(1, 12)
_KANA_SHARE = 0.1  # of Han and kana: from here on the text is Japanese

# Code points [first, last] of a script's letters; a later line overrides.
_RANGES = (
    (0x41, 0x5A, _LATIN),
    (0x61, 0x7A, _LATIN),
    (0xC0, 0x24F, _LATIN),
    (0x370, 0x3FF, _GREEK),
    (0x400, 0x52F, _CYRILLIC),
    (0x530, 0x58F, _OTHER),
    (0x590, 0x5FF, _HEBREW),
    (0x600, 0x77F, _ARABIC),
    (0x780, 0x8FF, _OTHER),
    (0x900, 0xDFF, _INDIC),
    (0xE00, 0xE7F, _THAI),
    (0xE80, 0x10FF, _OTHER),
    (0x1100, 0x11FF, _HANGUL),
    (0x1200, 0x1DFF, _OTHER),
    (0x1E00, 0x1EFF, _LATIN),
    (0x3040, 0x30FF, _KANA),
    (0x3400, 0x9FFF, _HAN),
    (0xAC00, 0xD7BF, _HANGUL),
    (0xF900, 0xFAFF, _HAN),
)


def scripts_of(data: NDArray[np.uint8], bounds: NDArray[np.int64]) -> NDArray[np.int8]:
    """The script of each text, as an index into SCRIPTS; text c is data[bounds[c]:bounds[c + 1]], in UTF-8."""
    starts, lengths = bounds[:-1], np.diff(bounds)
    found = np.zeros(len(lengths), dtype=np.int8)
    some = np.flatnonzero(lengths)
    if not len(some):
        return found
    padded = np.append(data, np.zeros(1, dtype=np.uint8))
    places = starts[some, None] + lengths[some, None] * np.arange(SAMPLED) // SAMPLED
    for _ in range(3):  # from a byte inside a character to its first
        places -= (padded[places] & 0xC0) == 0x80
    pairs = padded[places].astype(np.int64) << 8 | padded[places + 1]
    classes = _table()[pairs]
    size = _OTHER + 1
    counts = np.bincount((classes + size * np.arange(len(some))[:, None]).ravel(), minlength=size * len(some))
    counts = counts.reshape(len(some), size)
    is_japanese = counts[:, _KANA] > _KANA_SHARE * (counts[:, _HAN] + counts[:, _KANA])
    east_asian = counts[:, _HAN] + counts[:, _KANA]
    counts[:, _HAN], counts[:, _KANA] = np.where(is_japanese, 0, east_asian), np.where(is_japanese, east_asian, 0)
    most = counts[:, 1:].argmax(axis=1) + 1
    found[some] = np.where(counts[:, 1:].any(axis=1), most, 0)
    return found


@cache
def _table() -> NDArray[np.int8]:
    """The class of a character by its first two bytes in UTF-8."""
    table = np.zeros(1 << 16, dtype=np.int8)
    for first, last, script in _RANGES:
        if last < 0x80:
            for point in range(first, last + 1):
                table[point << 8 : (point + 1) << 8] = script
            continue
        step = 1 if last < 0x800 else 64  # of three bytes, the first two hold all but the last six bits
        for point in range(first, last + 1, step):
            two = chr(point).encode()[:2]
            table[two[0] << 8 | two[1]] = script
    table[0xF0A0:0xF0B1] = _HAN  # from U+20000 on
    return table
