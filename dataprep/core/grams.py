"""Texts as runs of tokens, and hashes of so many tokens in a row, by numpy alone: no Python per word.

A token is a word (letters, digits and their marks in a row, small and capital letters alike) or, in scripts written
without spaces (Han, kana, Bopomofo, Thai, Lao, Burmese, Khmer), a character. All else only separates. Hashes are
polynomials modulo 2^64 with an odd base, whose powers have inverses: the hash of a run is a difference of two sums.
"""

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

_BASE = 0x9E3779B97F4A7C15
_PLANES = 0x40000  # the last code point below is unassigned, and stands for all above
_SPACELESS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # 々〆〇
    (0x3040, 0x312F),  # kana, Bopomofo
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),  # narrow katakana
    (0x20000, 0x3FFFF),
)
_SEPARATOR, _LETTER, _CHARACTER = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """T tokens of N texts laid end to end."""

    hashes: NDArray[np.uint64]  # (T,)
    characters: NDArray[np.bool_]  # (T,): of a script without spaces
    starts: NDArray[np.int64]  # (T,): where each begins in "\n".join(texts)
    offsets: NDArray[np.int64]  # (N + 1,): tokens of text n are [offsets[n], offsets[n + 1])


def find_tokens(texts: Sequence[str]) -> Tokens:
    """Cut texts into tokens and hash each."""
    points = np.frombuffer("\n".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds, values = _tables()
    kind = kinds.take(points, mode="clip")
    begins = kind == _CHARACTER
    letters = kind == _LETTER
    begins[1:] |= letters[1:] > letters[:-1]
    begins[:1] |= letters[:1]
    starts = begins.nonzero()[0]
    bounds = list(accumulate((len(text) + 1 for text in texts), initial=0))
    return Tokens(
        hashes=_token_hashes(values.take(points, mode="clip"), starts),
        characters=kind[starts] == _CHARACTER,
        starts=starts,
        offsets=starts.searchsorted(bounds),
    )


def run_hashes(hashes: NDArray[np.uint64], starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash the runs of tokens [start, stop): equal runs, equal hashes."""
    powers, inverses = _powers(len(hashes))
    sums = np.zeros(len(hashes) + 1, dtype=np.uint64)
    np.cumsum(hashes * powers[: len(hashes)], out=sums[1:])
    return (sums[stops] - sums[starts]) * inverses[starts]


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread each value over all 64 bits (the finalizer of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _token_hashes(values: NDArray[np.uint64], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    powers, inverses = _powers(len(values))
    values *= powers[: len(values)]  # separators are 0, and so add nothing to the token before them
    sums = np.add.reduceat(values, starts) * inverses[starts]
    return (sums ^ (sums >> np.uint64(32))) * np.uint64(_BASE)  # else "ab c" and "ac b" would be one run


def _powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    return _powers_up_to(max(12, int(count).bit_length()))


@functools.lru_cache(maxsize=4)
def _powers_up_to(bits: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The powers 0 to 2^bits of the base, and of its inverse, modulo 2^64."""
    both = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        powers = np.full((1 << bits) + 1, base, dtype=np.uint64)
        powers[0] = 1
        both.append(np.cumprod(powers, dtype=np.uint64))
    return both[0], both[1]


@functools.cache
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Of each code point: what it is, and the hash of its small letter (0 for a separator)."""
    kinds = np.zeros(_PLANES, dtype=np.uint8)
    small = np.arange(_PLANES, dtype=np.uint64)
    for point in range(_PLANES):
        category = unicodedata.category(chr(point))
        if category[0] in "LNM":
            kinds[point] = _LETTER
            if category == "Lu" and len(lower := chr(point).lower()) == 1:
                small[point] = ord(lower)
    for first, last in _SPACELESS:
        kinds[first : last + 1][kinds[first : last + 1] == _LETTER] = _CHARACTER
    values = mixed(small + np.uint64(1))
    values[kinds == _SEPARATOR] = 0
    return kinds, values
