"""Held-out files in, hashes of their text out: what no conversation that is trained on may repeat."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dataprep.normalize.choices import Settled
from dataprep.normalize.share import file_segments
from dataprep.stages.clean.overlap import compared_texts, held_out_hashes
from dataprep.stages.normalize.branches import parts_of
from dataprep.stages.normalize.convert import convert_as
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read.rows import read_rows
from schemas.errors import InputError


def held_out_by(settled: Settled) -> NDArray[np.uint64] | None:
    """Read the held-out files by the same settings as the rest. Raises InputError where no row of them can be read."""
    if not settled.held_out:
        return None
    hashes = held_out_hashes(_texts(settled))
    if not len(hashes):
        raise InputError(
            f"--held-out {settled.held_out[0].name}: no conversation or document in it is long enough to compare; "
            "normalize it alone to see why"
        )
    return hashes


def _texts(settled: Settled) -> Iterator[str]:
    for segment in file_segments(settled.held_out, settled.options.encoding, settled.columns, []):
        for _, value, _ in read_rows(segment, columns=settled.columns):
            if isinstance(value, TurnedAway):
                continue
            try:
                name, parts = parts_of(value, settled.settings)
                for part in parts:
                    yield from compared_texts(convert_as(part, name, settled.settings)[0])
            except TurnedAway:
                continue
