"""Texts in which messages hold the strings of control tokens: ids in which those stay text.

A tokenizer splits a text at its added tokens first, so what stands between the template's own control tokens can be
encoded apart from them, without looking for special tokens in it. Added tokens that are no control tokens, such as
<think>, are found there as ever. That this gives what the tokenizer gives is shown for each text: with the strings
taken out of it, its ids in pieces must be those of the whole.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

_STAND_IN = "*"  # takes the place of a control token's string where whole and pieces are compared

Span = tuple[int, int]  # of characters


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecedText:
    """N tokens of a text; bounds are characters."""

    ids: NDArray[np.int32]  # (N,)
    bounds: NDArray[np.int64]  # (N, 2)


class TextOnly:
    """Encodes texts in which only the places that are given are control tokens."""

    def __init__(self, tokenizer_json: str, control_tokens: Sequence[str]) -> None:
        """Load the tokenizer twice: as it is, and blind to special tokens."""
        self._official, self._blind = Tokenizer.from_str(tokenizer_json), Tokenizer.from_str(tokenizer_json)
        for tokenizer in (self._official, self._blind):
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self._blind.encode_special_tokens = True
        ids = {token: self._official.token_to_id(token) for token in control_tokens}
        self._ids = {token: number for token, number in ids.items() if number is not None}
        self._controls = set(self._ids.values())
        self._strings = controls_pattern(control_tokens)

    def encode(self, text: str, controls: Sequence[Span]) -> PiecedText | None:
        """Encode a text whose control tokens are `controls`, in order; None where the ids can't be shown."""
        regions, tokens = _cut(text, controls)
        pieced = self._pieced(regions, tokens)
        if pieced is None:
            return None
        if _bare(self._official.decode(pieced.ids.tolist(), skip_special_tokens=False)) != _bare(text):
            return None
        without = [self._strings.sub(_STAND_IN, region) for region in regions]
        same = self._pieced(without, tokens)
        whole = "".join(part for pair in zip(without, [*tokens, ""], strict=True) for part in pair)
        if same is None or same.ids.tolist() != self._official.encode(whole, add_special_tokens=False).ids:
            return None
        return pieced

    def _pieced(self, regions: list[str], tokens: list[str]) -> PiecedText | None:
        """Regions encoded as text, and the ids of the tokens between them; None where a region gives such an id."""
        ids: list[int] = []
        bounds: list[Span] = []
        place = 0
        encodings = self._blind.encode_batch(regions, add_special_tokens=False)
        for region, token, encoding in zip(regions, [*tokens, None], encodings, strict=True):
            if not self._controls.isdisjoint(encoding.ids):
                return None
            ids += encoding.ids
            bounds += [(place + low, place + high) for low, high in encoding.offsets]
            place += len(region)
            if token is not None:
                ids.append(self._ids[token])
                bounds.append((place, place + len(token)))
                place += len(token)
        return PiecedText(ids=np.array(ids, dtype=np.int32), bounds=np.array(bounds, dtype=np.int64).reshape(-1, 2))


def controls_pattern(control_tokens: Sequence[str]) -> re.Pattern[str]:
    """Matches control tokens, the longest that stands at a place."""
    longest_first = sorted(control_tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _cut(text: str, controls: Sequence[Span]) -> tuple[list[str], list[str]]:
    """A text as n + 1 regions and the n control tokens between them."""
    edges = [0, *(edge for span in controls for edge in span), len(text)]
    parts = [text[low:high] for low, high in pairwise(edges)]
    return parts[0::2], parts[1::2]


def _bare(text: str) -> str:
    return "".join(text.split())
