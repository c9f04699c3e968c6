"""Fetch: examples in the order of packs in, their ids and masks out of the cached chunks, chunk after chunk.

Each chunk is opened once for all the examples that are asked for and then let go, so that memory holds what is asked
for and never the corpus.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataprep.core.arrays import to_numpy
from dataprep.core.chunk_files import open_chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """E examples as spans of cached conversations; arrays are (E,)."""

    rows: NDArray[np.int32]  # row of conversations/
    starts: NDArray[np.int32]  # first token of the span in its conversation
    lengths: NDArray[np.int32]
    sources: NDArray[np.int32]
    chunks: NDArray[np.int32]  # which cached chunk
    places: NDArray[np.int32]  # first token of the span in that chunk

    def __getitem__(self, chosen: Any) -> "Examples":
        """The chosen examples."""
        return Examples(**{name: getattr(self, name)[chosen] for name in self.__slots__})


def fetch_tokens(examples: Examples, files: Sequence[Path], ids: NDArray[np.int32], masks: NDArray[np.bool_]) -> None:
    """Put ids and masks of E examples, laid end to end in their order, into arrays; `files` are those of all chunks."""
    lengths, places = examples.lengths, examples.places.astype(np.int64)
    stops = np.cumsum(lengths)
    in_order = np.argsort(examples.chunks, kind="stable")
    of_chunk = examples.chunks[in_order]
    firsts = np.flatnonzero(np.diff(of_chunk, prepend=-1)).tolist()
    spans = np.stack([stops - lengths, stops, places, places + lengths], axis=1)[in_order]
    for first, last in zip(firsts, [*firsts[1:], len(of_chunk)], strict=True):
        batch = open_chunk(files[of_chunk[first]])
        chunk_ids, chunk_masks = (to_numpy(batch.column(name).values) for name in ("input_ids", "assistant_masks"))
        for start, stop, low, high in spans[first:last].tolist():
            ids[start:stop] = chunk_ids[low:high]
            masks[start:stop] = chunk_masks[low:high]
