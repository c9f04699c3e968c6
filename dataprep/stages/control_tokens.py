"""Texts of a chunk in which messages hold the strings of control tokens, encoded anew so that those stay text.

Where the template's own control tokens stand is known from the plan: in its literals. Only texts that have other
control tokens than these come here; what of them can't be shown stays as it was, and is turned away.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dataprep.core.as_text import Span, controls_pattern
from dataprep.core.encode import Encoder, Encoding
from dataprep.stages.plan import Plan

CONTROL_TOKENS_AS_TEXT = "control tokens as text"  # the note on conversations that hold such a string


def own_controls(plan: Plan, pieces: Sequence[str], control_tokens: Sequence[str]) -> Iterator[Span]:
    """Where the template itself wrote control tokens, in characters of the joined pieces (Plan.pieces)."""
    pattern = controls_pattern(control_tokens)
    place = 0
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            yield from ((place + found.start(), place + found.end()) for found in pattern.finditer(piece))
        place += len(piece)


def encode_as_text(
    text: str, lengths: NDArray[np.int64], plan: Plan, encoder: Encoder, control_tokens: Sequence[str]
) -> Encoding | None:
    """Encode the text of a plan, whose pieces have these lengths; None where its ids can't be shown."""
    pieces = encoder.cut(text, lengths)
    encoding = encoder.encode_as_text(text, list(own_controls(plan, pieces, control_tokens)), control_tokens)
    return encoding if encoding is not None and encoding.faithful[0] else None
