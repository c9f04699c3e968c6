"""Texts in which messages hold the strings of control tokens: ids in which those stay text.

The tokenizer is loaded a second time with every control token under another name, a private character, and the text's
own control tokens are written so. What messages hold of the old names is text to it like any other, and all else, such
as added tokens that are no control tokens or a blank before the first word, is as ever. That this gives what the
tokenizer gives is shown for each text: with the strings taken out of it, its ids must be the tokenizer's own.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

_STAND_IN = "*"  # takes the place of a control token's string where the two tokenizers are compared
_FIRST_NAME = 0x100000  # the private characters of plane 16

Span = tuple[int, int]  # of characters


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecedText:
    """N tokens of a text; bounds are characters."""

    ids: NDArray[np.int32]  # (N,)
    bounds: NDArray[np.int64]  # (N, 2)


class TextOnly:
    """Encodes texts in which only the places that are given are control tokens; loads the tokenizer when asked."""

    def __init__(self, tokenizer_json: str) -> None:
        self._json = tokenizer_json
        self._loaded: _Loaded | None = None

    def encode(self, text: str, controls: Sequence[Span], control_tokens: Sequence[str]) -> PiecedText | None:
        """Encode a text whose control tokens are `controls`, in order; None where the ids can't be shown."""
        if self._loaded is None:
            self._loaded = _Loaded(self._json, control_tokens)
        return self._loaded.encode(text, controls)


class _Loaded:
    """A tokenizer as it is, and with other names for its control tokens."""

    def __init__(self, tokenizer_json: str, control_tokens: Sequence[str]) -> None:
        self._names = {token: chr(_FIRST_NAME + number) for number, token in enumerate(control_tokens)}
        self._official = _loaded(tokenizer_json)
        self._renamed = _loaded(json.dumps(renamed(json.loads(tokenizer_json), self._names)))
        ids = [self._official.token_to_id(token) for token in control_tokens]
        self._ids = {token: number for token, number in zip(control_tokens, ids, strict=True) if number is not None}
        self._controls = np.array(sorted(self._ids.values()), dtype=np.int32)
        self._strings = controls_pattern(control_tokens)
        self._taken = re.compile(f"[{chr(_FIRST_NAME)}-{chr(_FIRST_NAME + max(1, len(self._names)) - 1)}]")

    def encode(self, text: str, controls: Sequence[Span]) -> PiecedText | None:
        """See TextOnly.encode."""
        regions, tokens = _cut(text, controls)
        if self._taken.search(text):
            return None
        written = self._written(regions, tokens)
        encoding = self._renamed.encode(written, add_special_tokens=False)
        ids = np.array(encoding.ids, dtype=np.int32)
        if ids[np.isin(ids, self._controls)].tolist() != [self._ids[token] for token in tokens]:
            return None
        if _bare(self._official.decode(ids.tolist(), skip_special_tokens=False)) != _bare(text):
            return None
        without = [self._strings.sub(_STAND_IN, region) for region in regions]
        same = self._renamed.encode(self._written(without, tokens), add_special_tokens=False)
        if same.ids != self._official.encode(_joined(without, tokens), add_special_tokens=False).ids:
            return None
        # "x" + name + "y" of a text "x<|im_end|>y" -> places [0, 1, 11, 12]
        lengths = [1] * len(written)
        place = 0
        for region, token in zip(regions, tokens, strict=False):
            place += len(region) + 1
            lengths[place - 1] = len(token)
        places = np.cumsum([0, *lengths])
        return PiecedText(ids=ids, bounds=places[np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)])

    def _written(self, regions: list[str], tokens: list[str]) -> str:
        return _joined(regions, [self._names[token] for token in tokens])


def renamed(record: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A parsed tokenizer.json with other names for these tokens, which nothing else is merged into or found as."""
    model = record["model"]
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
    elif isinstance(vocabulary, list):  # Unigram: [[piece, score], …]
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("merges"):
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [merge for merge in merges if names.keys().isdisjoint((*merge, "".join(merge)))]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    for token in record["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    return record


def controls_pattern(control_tokens: Sequence[str]) -> re.Pattern[str]:
    """Matches control tokens, the longest that stands at a place."""
    longest_first = sorted(control_tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _loaded(tokenizer_json: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _cut(text: str, controls: Sequence[Span]) -> tuple[list[str], list[str]]:
    """A text as n + 1 regions and the n control tokens between them."""
    edges = [0, *(edge for span in controls for edge in span), len(text)]
    parts = [text[low:high] for low, high in pairwise(edges)]
    return parts[0::2], parts[1::2]


def _joined(regions: list[str], between: list[str]) -> str:
    return "".join(part for pair in zip(regions, [*between, ""], strict=True) for part in pair)


def _bare(text: str) -> str:
    return "".join(text.split())
