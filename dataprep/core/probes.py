"""Probes of a tokenizer: may the fast encoder be used for it?"""

import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataprep.core.encode import fastokens_ids, huggingface_ids, is_byte_level, token_bytes

PROBE_SEED = 20_260
NUM_RANDOM_PROBES = 6_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Whether fastokens may be used for a tokenizer, and why."""

    equal: bool
    note: str


def prove_fast(tokenizer_json: str, record: dict[str, Any]) -> Proof:
    """Compare fastokens' ids with Hugging Face's on a probe set for a tokenizer; `record` is its JSON, parsed."""
    if not is_byte_level(record):
        return Proof(equal=False, note="not a byte-level BPE")
    try:
        fast = fastokens_ids(tokenizer_json)
    except ImportError:
        return Proof(equal=False, note="fastokens is not installed")
    except (ValueError, RuntimeError) as error:
        return Proof(equal=False, note=f"fastokens can't read this tokenizer: {error}")
    probes = probe_texts(record)
    ids, bounds = huggingface_ids(tokenizer_json)(probes)
    try:
        fast_ids, fast_bounds = fast(
            [unicodedata.normalize("NFC", probe) for probe in probes] if record.get("normalizer") else probes
        )
    except (ValueError, RuntimeError) as error:
        return Proof(equal=False, note=f"fastokens failed on a probe: {error}")
    if not np.array_equal(bounds, fast_bounds) or not np.array_equal(ids, fast_ids):
        return Proof(equal=False, note=f"fastokens gave other ids on {len(probes)} probes")
    return Proof(equal=True, note=f"gave Hugging Face's ids on {len(probes)} probes ({len(ids)} tokens)")


def probe_texts(record: dict[str, Any]) -> list[str]:
    """Texts that reach into a vocabulary's corners: its own tokens in new company, and characters of every kind."""
    chance = random.Random(PROBE_SEED)
    table = [token.decode("utf-8", "ignore") for token in token_bytes(record)]
    words = [word for word in table if word]
    chance.shuffle(words)
    probes = ["".join(words[i : i + 24]) for i in range(0, len(words), 24)]  # every token of the vocabulary once
    added = [token["content"] for token in record["added_tokens"]]
    for number in range(NUM_RANDOM_PROBES):
        kind = _KINDS[number % len(_KINDS)]
        parts = [kind(chance) for _ in range(chance.randint(1, 12))]
        if number % 5 == 0 and added:
            parts.insert(chance.randrange(len(parts) + 1), chance.choice(added))
        probes.append(chance.choice(("", " ", "\n")).join(parts))
    return [*probes, *_FIXED_PROBES]


def _chars(low: int, high: int) -> Callable[[random.Random], str]:
    return lambda chance: "".join(chr(chance.randint(low, high)) for _ in range(chance.randint(1, 8)))


def _any_char(chance: random.Random) -> str:
    point = chance.choice((chance.randrange(0x3000), chance.randrange(0x20000), chance.randrange(0x110000)))
    return "\ufffd" if 0xD800 <= point <= 0xDFFF else chr(point)


_BLANKS = (" ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u200b", "\x0b", "\x85")

_KINDS: tuple[Callable[[random.Random], str], ...] = (
    _chars(0x20, 0x7E),
    _chars(0x4E00, 0x9FFF),
    _chars(0x00A0, 0x024F),
    _chars(0x0300, 0x036F),  # combining marks, which NFC composes
    _chars(0x0370, 0x06FF),
    _chars(0x0900, 0x0DFF),
    _chars(0x1F300, 0x1FAFF),
    _chars(0xAC00, 0xD7A3),
    _chars(0x3040, 0x30FF),
    _chars(0x2000, 0x206F),
    _any_char,
    lambda chance: chance.choice(("'s", "'LL", "don't", " the", "The", "tokenizer", "中文", "é", "e\u0301", "ﬁ", "½")),
    lambda chance: chance.choice(_BLANKS) * chance.randint(1, 6),
    lambda chance: str(chance.randrange(10 ** chance.randint(1, 12))),
    lambda chance: "".join(chance.choice("!?.,:;-_=+*/\\|<>[]{}()#@$%^&~`\"'") for _ in range(chance.randint(1, 10))),
)

_FIXED_PROBES = (
    "",
    " ",
    "a" * 5_000,
    "哈" * 2_000,
    " " * 3_000 + "x",
    "\n" * 500,
    "ab " * 2_000,
    "0123456789" * 300,
    "x = {'a': [1, 2.5e-3], \"b\": None}  # комментарий\n\tif x:\n\t\treturn y[::-1]\n",
    "👩‍👩‍👧‍👦🏳️‍🌈 ﷽ ก็ नमस्ते Ａｂｃ ①② ℃ Å Ω ẛ̣",
)
