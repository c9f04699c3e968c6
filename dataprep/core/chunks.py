"""Chunks: runs of consecutive conversations whose bounds follow their content, so that examples are cached by content.

A chunk ends after a conversation whose id begins with one of two bytes of 256, so every 128 on average, and after
MAX_ROWS at the latest. A row that is added or removed moves no bound but those of its own chunk.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

MAX_ROWS = 512
_LAST_OF_CHUNK = ("00", "80")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Conversations [start, stop) and the key of their contents."""

    start: int
    stop: int
    key: str  # 32 hex digits


def find_chunks(ids: Sequence[str]) -> list[Chunk]:
    """Cut the conversations with these ids into chunks."""
    chunks, start = [], 0
    for row, conversation_id in enumerate(ids):
        if conversation_id[:2] in _LAST_OF_CHUNK or row + 1 - start == MAX_ROWS or row + 1 == len(ids):
            key = hashlib.blake2b("".join(ids[start : row + 1]).encode(), digest_size=16).hexdigest()
            chunks.append(Chunk(start=start, stop=row + 1, key=key))
            start = row + 1
    return chunks
