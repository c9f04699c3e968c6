"""Contamination: conversations that repeat text which is held out, so that no evaluation is trained on.

A gram is 13 words in a row, small letters, no punctuation (as in GPT-3, arXiv:2005.14165, appendix C), or 20 tokens in
a row with a character of a script without spaces among them: 20 Chinese characters say about as much as 13 words. A
message shorter than a gram, but of at least 8 words (GPT-3's least) or 13 tokens, is one gram. Grams that stand in more
than 10 held-out texts are boilerplate and count for nothing. A conversation is turned away if held-out grams cover a
fifth of the tokens of a message of the user's or the assistant's: below a fifth Llama 2 calls a text clean
(arXiv:2307.09288, appendix A.6). One gram in common, GPT-3's first rule, condemns long texts for a quotation.
"""

import hashlib
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dataprep.core.grams import Tokens, find_tokens, run_hashes
from dataprep.stages.clean.cleaned import Clean, Cleaned
from dataprep.stages.normalize.message import Message
from dataprep.stages.normalize.reasons import TurnedAway, shown

WORDS, LEAST_WORDS = 13, 8
MIXED, LEAST_MIXED = 20, 13
BOILERPLATE_TEXTS = 10
LEAST_SHARE = 0.2

_TEXTS_AT_ONCE = 256


def ngram_hashes(text: str) -> NDArray[np.uint64]:
    """Hash the grams of a text, in no order."""
    tokens = find_tokens([text])
    return run_hashes(tokens.hashes, *_grams(tokens))


def held_out_hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Hash the grams of all texts that are held out, less boilerplate: sorted, each once.

    Equal texts count once. A gram takes 8 bytes; while they are gathered, about 40 a gram of all texts.
    """
    seen: set[bytes] = set()
    batch: list[str] = []
    parts: list[NDArray[np.uint64]] = []
    for text in texts:
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if key in seen:
            continue
        seen.add(key)
        batch.append(text)
        if len(batch) == _TEXTS_AT_ONCE:
            parts.append(_once_a_text(batch))
            batch = []
    parts.append(_once_a_text(batch))
    grams, counts = np.unique(np.concatenate(parts), return_counts=True)
    return grams[counts <= BOILERPLATE_TEXTS]


def compared_texts(messages: list[Message]) -> list[str]:
    """The texts of a conversation that are held out or compared: what users and assistants say, and documents."""
    texts = []
    for message in messages:
        if message[0] in ("user", "assistant", "text"):
            texts.append(message[1])
            if len(message) > 2 and message[2]:
                texts.append(message[2])
    return texts


def make_overlap(hashes: NDArray[np.uint64], share: float = LEAST_SHARE) -> Clean:
    """Make the step that turns a conversation away if grams of `hashes` cover at least `share` of a message's tokens.

    A share of 0 turns away for a single gram. `hashes` is what `held_out_hashes` gives.
    """
    is_held_out = _membership(hashes)

    def clean(messages: list[Message], canonical: bytes) -> Cleaned | None:
        texts = compared_texts(messages)
        tokens = find_tokens(texts)
        starts, stops = _grams(tokens)
        held_out = is_held_out(run_hashes(tokens.hashes, starts, stops))
        if held_out.any():
            _refuse_overlap(texts, tokens, starts[held_out], stops[held_out], share)
        return None

    return clean


def _refuse_overlap(
    texts: list[str], tokens: Tokens, starts: NDArray[np.int64], stops: NDArray[np.int64], share: float
) -> None:
    changes = np.zeros(len(tokens.hashes) + 1, dtype=np.int64)
    np.add.at(changes, starts, 1)
    np.add.at(changes, stops, -1)
    covered = np.concatenate(([0], np.cumsum(np.cumsum(changes[:-1]) > 0)))
    counts = np.diff(tokens.offsets)
    shares = np.diff(covered[tokens.offsets]) / np.maximum(counts, 1)
    worst = int(shares.argmax())
    if shares[worst] < share:
        return
    first = starts[(starts >= tokens.offsets[worst]) & (starts < tokens.offsets[worst + 1])].min()
    begin = int(tokens.starts[first]) - sum(len(text) + 1 for text in texts[:worst])
    raise TurnedAway(
        "contaminated",
        f"{shares[worst]:.0%} of the {counts[worst]} words or characters of a message stand in held-out text, "
        f"from {shown(texts[worst][begin : begin + 80])} on",
    )


def _grams(tokens: Tokens) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The runs of tokens [start, stop) that are grams."""
    offsets, total = tokens.offsets, len(tokens.hashes)
    before = np.zeros(total + 1, dtype=np.int64)  # characters of scripts without spaces before each token
    tokens.characters.cumsum(out=before[1:])
    ends = offsets[1:].repeat(offsets[1:] - offsets[:-1])
    starts, stops = [], []
    for length in (WORDS, MIXED) if before[-1] else (WORDS,):
        inside = ends[: max(total - length + 1, 0)] >= np.arange(length, total + 1)
        if before[-1]:
            plain = before[length:] == before[: max(total - length + 1, 0)]
            inside &= plain if length == WORDS else ~plain
        starts.append(inside.nonzero()[0])
        stops.append(starts[-1] + length)
    short = [bounds for bounds in pairwise(offsets.tolist()) if _is_short(*bounds, before)]
    starts.append(np.array([start for start, _ in short], dtype=np.int64))
    stops.append(np.array([stop for _, stop in short], dtype=np.int64))
    return np.concatenate(starts), np.concatenate(stops)


def _is_short(start: int, stop: int, before: NDArray[np.int64]) -> bool:
    """Whether a text of these tokens is one gram."""
    if not LEAST_WORDS <= stop - start < MIXED:
        return False
    if before[start] == before[stop]:
        return stop - start < WORDS
    return stop - start >= LEAST_MIXED


def _once_a_text(texts: list[str]) -> NDArray[np.uint64]:
    """The grams of texts, each once for each text that it stands in."""
    tokens = find_tokens(texts)
    starts, stops = _grams(tokens)
    hashes = run_hashes(tokens.hashes, starts, stops)
    owners = np.searchsorted(tokens.offsets, starts, side="right")
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return hashes[new]


def _membership(hashes: NDArray[np.uint64]) -> Callable[[NDArray[np.uint64]], NDArray[np.bool_]]:
    """Make the test for being among sorted hashes; a table of 8 to 16 bytes a hash spares most others the search."""
    bits = max(10, int(8 * len(hashes)).bit_length())
    shift = np.uint64(64 - bits)
    filled = np.zeros(1 << bits, dtype=bool)
    filled[hashes >> shift] = True

    def are_among(values: NDArray[np.uint64]) -> NDArray[np.bool_]:
        found = filled[values >> shift]
        likely = found.nonzero()[0]
        if len(likely):
            at = np.minimum(hashes.searchsorted(values[likely]), len(hashes) - 1)
            found[likely] = hashes[at] == values[likely]
        return found

    return are_among
