"""Layout: pieces of texts in, in whatever order; out all texts as one run of UTF-8, in the order of their rows.

A piece is the content of a message, a literal of a plan, or a text that was put together elsewhere. Nothing is copied
before all are known: then Arrow lays them end to end at once. The tokenizer's normalizer is asked about each text, and
those that it changes are laid again.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import ragged, to_arrow
from dataprep.core.encode import Encoder
from dataprep.stages.plan import RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """D texts of P pieces, laid end to end from S sources."""

    rows: NDArray[np.int64]  # (D,)
    plan_numbers: NDArray[np.int64]  # (D,)
    num_pieces: NDArray[np.int64]  # (D,)
    lengths: NDArray[np.int64]  # (P,): in the encoder's unit
    num_sources: NDArray[np.int64]  # (D,)
    sources: NDArray[np.int64]  # (S,)
    texts: list[str]
    joined: NDArray[np.uint8]

    def chosen(self, texts: NDArray[np.int64]) -> "Laid":
        """Some of the texts, not joined yet."""
        pieces = ragged((np.cumsum(self.num_pieces) - self.num_pieces)[texts], self.num_pieces[texts])
        sources = ragged((np.cumsum(self.num_sources) - self.num_sources)[texts], self.num_sources[texts])
        return replace(
            self,
            rows=self.rows[texts],
            plan_numbers=self.plan_numbers[texts],
            num_pieces=self.num_pieces[texts],
            lengths=self.lengths[pieces],
            num_sources=self.num_sources[texts],
            sources=self.sources[sources],
        )


@dataclass(slots=True)
class Layout:
    """Texts as they come; a source is the place of a content, or -1 - the place of a string."""

    contents: pa.StringArray
    strings: list[str] = field(default_factory=list)
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    numbers: list[tuple[int, int, int, int]] = field(default_factory=list)  # the text's, its plan's, pieces, sources
    lengths: list[NDArray[np.int64]] = field(default_factory=list)
    sources: list[NDArray[np.int64]] = field(default_factory=list)

    def add_strings(self, strings: list[str]) -> int:
        """Add strings; returns the source of the first, from which that of each other is one less than the last."""
        first = -1 - len(self.strings)
        self.strings += strings
        return first

    def add(
        self,
        rows: NDArray[np.int64],
        number: int,
        plan_number: int,
        lengths: NDArray[np.int64],
        sources: NDArray[np.int64],
    ) -> None:
        """Add the text `number` of each row: lengths of its pieces (rows, pieces), sources (rows, sources)."""
        self.rows.append(rows)
        self.numbers.append((number, plan_number, lengths.shape[1], sources.shape[1]))
        self.lengths.append(lengths.ravel())
        self.sources.append(sources.ravel())

    def laid_out(self, encoder: Encoder, refused: dict[int, RefusedError]) -> Laid:
        """All texts in order, normalised, but for those of refused rows; rows that can't be normalised are refused."""
        nothing = np.empty(0, dtype=np.int64)
        rows = np.concatenate([nothing, *self.rows])
        numbers = np.array(self.numbers, dtype=np.int64).reshape(-1, 4).repeat(list(map(len, self.rows)), axis=0)
        all_texts = Laid(
            rows=rows,
            plan_numbers=numbers[:, 1],
            num_pieces=numbers[:, 2],
            lengths=np.concatenate([nothing, *self.lengths]),
            num_sources=numbers[:, 3],
            sources=np.concatenate([nothing, *self.sources]),
            texts=[],
            joined=np.empty(0, dtype=np.uint8),
        )
        order = np.lexsort((numbers[:, 0], rows))
        laid = self._joined(all_texts.chosen(order[~np.isin(rows[order], list(refused))]))
        if self._normalize(laid, encoder, refused):
            laid = self._joined(laid.chosen(np.flatnonzero(~np.isin(laid.rows, list(refused)))))
        return laid

    def _joined(self, laid: Laid) -> Laid:
        """Lay the pieces end to end."""
        pool = pa.concat_arrays([self.contents.cast(pa.large_string()), pa.array(self.strings, pa.large_string())])
        places = np.where(laid.sources < 0, len(self.contents) - 1 - laid.sources, laid.sources)
        _, offsets, data = pool.take(to_arrow(places)).buffers()
        bounds = np.concatenate(([0], np.cumsum(laid.num_sources)))
        ends = np.frombuffer(offsets, dtype=np.int64)[bounds]
        texts = pa.LargeStringArray.from_buffers(len(laid.rows), pa.py_buffer(ends), data)
        joined = np.frombuffer(data, dtype=np.uint8)[: ends[-1]] if data is not None else laid.joined
        return replace(laid, texts=texts.to_pylist(), joined=joined)

    def _normalize(self, laid: Laid, encoder: Encoder, refused: dict[int, RefusedError]) -> bool:
        """Put normalised texts in the place of those that aren't; True where there were any.

        A text's pieces are normalised one by one, which must give the normalised text: else its row is refused.
        """
        piece_ends, source_ends = np.cumsum(laid.num_pieces), np.cumsum(laid.num_sources)
        any_changed = False
        for number, text in enumerate(laid.texts):
            if text.isascii() or (normal := encoder.normalize(text)) is text or normal == text:
                continue
            own = slice(piece_ends[number] - laid.num_pieces[number], piece_ends[number])
            pieces = [encoder.normalize(piece) for piece in encoder.cut(text, laid.lengths[own])]
            laid.lengths[own] = list(map(encoder.length, pieces))
            if "".join(pieces) != normal:
                detail = "a combining character stands at the start of a message"
                refused[int(laid.rows[number])] = RefusedError("bound-inside-token", detail)
            sources = slice(source_ends[number] - laid.num_sources[number], source_ends[number])
            laid.sources[sources] = self.add_strings([normal] + [""] * int(laid.num_sources[number] - 1)) - np.arange(
                laid.num_sources[number]
            )
            any_changed = True
        return any_changed
