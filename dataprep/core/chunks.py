"""Chunks: runs of consecutive conversations whose bounds follow their content, so that examples are cached by content.

A chunk ends after a conversation whose id begins with one of two bytes of 256, so every 128 on average, and after
MAX_ROWS at the latest. A row that is added or removed moves no bound but those of its own chunk.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MAX_ROWS = 512
ID_DIGITS = 32
_LAST_OF_CHUNK = (b"00", b"80")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Conversations [start, stop) and the key of their contents."""

    start: int
    stop: int
    key: str  # 32 hex digits


def id_digits(ids: pa.ChunkedArray) -> NDArray[np.uint8]:
    """The hex digits of C ids as ASCII, (C, 32): 32 bytes each where a string takes 81."""
    pieces = [np.empty(0, dtype=np.uint8)]
    for array in ids.chunks:
        offsets, text = np.frombuffer(array.buffers()[1], dtype=np.int32), array.buffers()[2]
        low, high = (int(offsets[array.offset + place]) for place in (0, len(array)))
        pieces.append(np.frombuffer(text, dtype=np.uint8)[low:high] if text is not None else pieces[0])
    return np.concatenate(pieces).reshape(len(ids), ID_DIGITS)


def find_chunks(ids: NDArray[np.uint8]) -> list[Chunk]:
    """Cut the conversations with these ids, (C, 32) as `id_digits` gives them, into chunks."""
    is_last = np.zeros(len(ids), dtype=bool)
    is_last[-1:] = True
    for first, second in _LAST_OF_CHUNK:
        is_last |= (ids[:, 0] == first) & (ids[:, 1] == second)
    chunks, start = [], 0
    for end in (np.flatnonzero(is_last) + 1).tolist():
        for stop in (*range(start + MAX_ROWS, end, MAX_ROWS), end):
            key = hashlib.blake2b(ids[start:stop].tobytes(), digest_size=16).hexdigest()
            chunks.append(Chunk(start=start, stop=stop, key=key))
            start = stop
    return chunks
