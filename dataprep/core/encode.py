"""Encoders: texts in; ids out, and where each token begins and ends in its text.

Two programs make ids: Hugging Face `tokenizers`, the reference, and fastokens, some forty times faster. fastokens is
used for a tokenizer only after it gave the reference's ids on a probe set (core/probes.py). In byte-level BPE every
id stands for exact bytes, so token bounds are running sums of byte lengths, and the ids can be shown to spell the text.
Any other tokenizer is encoded by Hugging Face with character offsets.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer

from dataprep.core.arrays import to_arrow, to_numpy
from dataprep.core.as_text import Span, TextOnly


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """The ids of several texts laid end to end; N tokens of D texts.

    Bounds count in the encoder's unit (bytes or characters) over the texts laid end to end.
    """

    ids: NDArray[np.int32]  # (N,)
    text_tokens: NDArray[np.int64]  # (D + 1,): tokens of text d are ids[text_tokens[d]:text_tokens[d + 1]]
    starts: NDArray[Any]  # (N,)
    ends: NDArray[Any]  # (N,)
    faithful: NDArray[np.bool_]  # (D,): the ids of this text spell it, byte for byte

    def with_texts(self, others: Mapping[int, "Encoding"], text_lengths: NDArray[np.int64]) -> "Encoding":
        """The same, but for some of the texts, each of which is encoded anew on its own."""
        ids, starts, ends = (
            [column[low:high] for low, high in pairwise(self.text_tokens.tolist())]
            for column in (self.ids, self.starts, self.ends)
        )
        faithful = self.faithful.copy()
        places = np.cumsum(text_lengths) - text_lengths
        for text, other in others.items():
            ids[text], faithful[text] = other.ids, other.faithful[0]
            starts[text], ends[text] = other.starts + places[text], other.ends + places[text]
        return Encoding(
            ids=np.concatenate(ids),
            text_tokens=np.cumsum([0, *map(len, ids)], dtype=np.int64),
            starts=np.concatenate(starts),
            ends=np.concatenate(ends),
            faithful=faithful,
        )


class Encoder(Protocol):
    """Makes ids for one tokenizer."""

    def length(self, text: str) -> int:
        """Length of a text in the unit that bounds count in."""

    def lengths(self, texts: pa.StringArray) -> NDArray[np.int64]:
        """The same for each of an array of texts."""

    def normalize(self, text: str) -> str:
        """The text as the tokenizer's normalizer leaves it; bounds refer to this."""

    def encode(
        self, texts: Sequence[str], text_lengths: NDArray[np.int64], joined: NDArray[np.uint8] | None = None
    ) -> Encoding:
        """Encode normalised texts of these lengths, adding no special tokens; control tokens become their ids.

        `joined` is all texts as UTF-8, where that is at hand.
        """

    def cut(self, text: str, lengths: NDArray[np.int64]) -> list[str]:
        """A text in pieces of these lengths."""

    def encode_as_text(self, text: str, controls: Sequence[Span], control_tokens: Sequence[str]) -> Encoding | None:
        """Encode a text in which `controls` alone are control tokens; None where that can't be shown."""


def choose_encoder(tokenizer_json: str, table: "ByteTable | None", fast: bool) -> Encoder:
    """The encoder for a tokenizer given as tokenizer.json text, with its byte table where it has one.

    `fast` says that fastokens was proven for it.
    """
    return OffsetEncoder(tokenizer_json) if table is None else ByteLevelEncoder(tokenizer_json, table, fast)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteTable:
    """The bytes that each id of a byte-level BPE stands for; V ids."""

    lengths: NDArray[np.int32]  # (V,)
    joined: NDArray[np.uint8]  # all ids' bytes, in order
    nfc: bool  # texts are normalised to NFC first

    @classmethod
    def of(cls, record: dict[str, Any]) -> "ByteTable | None":
        """From a parsed tokenizer.json; None where it is no byte-level BPE."""
        if not is_byte_level(record):
            return None
        table = token_bytes(record)
        return cls(
            lengths=np.array([len(token) for token in table], dtype=np.int32),
            joined=np.frombuffer(b"".join(table), dtype=np.uint8),
            nfc=record.get("normalizer") is not None,
        )

    def tokens(self) -> pa.BinaryArray:
        """The same as an Arrow array."""
        offsets = np.concatenate(([0], np.cumsum(self.lengths))).astype(np.int32)
        return pa.BinaryArray.from_buffers(
            pa.binary(), len(self.lengths), [None, pa.py_buffer(offsets), pa.py_buffer(self.joined)]
        )

    @classmethod
    def load(cls, path: Path) -> "ByteTable":
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(lengths=arrays["lengths"], joined=arrays["joined"], nfc=bool(arrays["nfc"]))

    def save(self, file: BinaryIO) -> None:
        """Write as .npz: parsing a vocabulary takes half a second, reading this none."""
        np.savez(file, lengths=self.lengths, joined=self.joined, nfc=np.array(self.nfc))


def is_byte_level(record: dict[str, Any]) -> bool:
    """Whether every id of this tokenizer.json stands for exact bytes of NFC text (or of the text as it is)."""
    steps = [record.get("pre_tokenizer") or {}]
    steps += steps[0].get("pretokenizers", [])
    bytes_steps = [step for step in steps if step.get("type") == "ByteLevel"]
    return (
        record["model"].get("type") == "BPE"
        and (record.get("normalizer") or {"type": "NFC"})["type"] == "NFC"
        and (record.get("decoder") or {}).get("type") == "ByteLevel"
        and bool(bytes_steps)
        and not any(step.get("add_prefix_space") for step in bytes_steps)
        and not any(token["lstrip"] or token["rstrip"] for token in record["added_tokens"])
    )


class ByteLevelEncoder:
    """Byte-level BPE: bounds in bytes, from the byte length of each id."""

    def __init__(self, tokenizer_json: str, table: ByteTable, fast: bool) -> None:
        self._nfc = table.nfc
        self._text_only = TextOnly(tokenizer_json)
        self._tokens = table.tokens()
        self._longest = int(table.lengths.max(initial=0))
        self._ids = fastokens_ids(tokenizer_json) if fast else huggingface_ids(tokenizer_json)

    def length(self, text: str) -> int:
        """Bytes of UTF-8."""
        return len(text) if text.isascii() else len(text.encode())

    def lengths(self, texts: pa.StringArray) -> NDArray[np.int64]:
        """The same for each of an array of texts."""
        return to_numpy(pc.binary_length(texts)).astype(np.int64)

    def cut(self, text: str, lengths: NDArray[np.int64]) -> list[str]:
        """A text in pieces of these lengths."""
        raw = text.encode()
        return [raw[end - length : end].decode() for end, length in zip(np.cumsum(lengths), lengths, strict=True)]

    def normalize(self, text: str) -> str:
        """NFC, where the tokenizer asks for it."""
        return text if not self._nfc or text.isascii() else unicodedata.normalize("NFC", text)

    def encode(
        self, texts: Sequence[str], text_lengths: NDArray[np.int64], joined: NDArray[np.uint8] | None = None
    ) -> Encoding:
        """See Encoder.encode; a text is faithful when its tokens' bytes, joined, are its own."""
        if joined is None:
            joined = _utf8(texts)
        return self._spelled(*self._ids(texts), joined, text_lengths)

    def encode_as_text(self, text: str, controls: Sequence[Span], control_tokens: Sequence[str]) -> Encoding | None:
        """See Encoder.encode_as_text."""
        pieced = self._text_only.encode(text, controls, control_tokens)
        if pieced is None:
            return None
        text_tokens = np.array([0, len(pieced.ids)], dtype=np.int64)
        return self._spelled(pieced.ids, text_tokens, _utf8([text]), np.array([self.length(text)], dtype=np.int64))

    def _spelled(
        self,
        ids: NDArray[np.int32],
        text_tokens: NDArray[np.int64],
        joined: NDArray[np.uint8],
        text_lengths: NDArray[np.int64],
    ) -> Encoding:
        """Ids of texts with the bounds that their bytes give."""
        bounds, spelled = self._bytes_of(ids)
        token_bounds, text_bounds = bounds[text_tokens], np.concatenate(([0], np.cumsum(text_lengths)))
        faithful = np.diff(token_bounds) == text_lengths
        starts, ends = bounds[:-1], bounds[1:]
        if not faithful.all() or not np.array_equal(spelled, joined):
            for text in np.flatnonzero(faithful).tolist():
                own = spelled[token_bounds[text] : token_bounds[text + 1]]
                faithful[text] = np.array_equal(own, joined[text_bounds[text] : text_bounds[text + 1]])
            shift = np.repeat(text_bounds[:-1] - token_bounds[:-1], np.diff(text_tokens))
            starts, ends = starts + shift, ends + shift  # each text's tokens lie where the text is
        return Encoding(ids=ids, text_tokens=text_tokens, starts=starts, ends=ends, faithful=faithful)

    def _bytes_of(self, ids: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """The bytes of ids laid end to end, and the bounds of each in them: (N + 1,)."""
        if not len(ids):
            return np.zeros(1, dtype=np.int32), np.empty(0, dtype=np.uint8)
        numbers = ids.view(np.uint32)
        assert int(numbers.max()) < len(self._tokens), "ids are of this vocabulary"
        is_small = len(ids) * self._longest < _INT32
        tokens = self._tokens if is_small else self._tokens.cast(pa.large_binary())
        _, offsets, data = pc.take(tokens, to_arrow(numbers), boundscheck=False).buffers()
        bounds = np.frombuffer(offsets, dtype=np.int32 if is_small else np.int64)[: len(ids) + 1]
        return bounds, np.frombuffer(data, dtype=np.uint8)[: bounds[-1]]


_INT32 = 1 << 31


def _utf8(texts: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(texts).encode(), dtype=np.uint8)


class OffsetEncoder:
    """Any other tokenizer, through Hugging Face: bounds in characters, from the offsets it reports."""

    def __init__(self, tokenizer_json: str) -> None:
        self._text_only = TextOnly(tokenizer_json)
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def length(self, text: str) -> int:
        """Characters."""
        return len(text)

    def lengths(self, texts: pa.StringArray) -> NDArray[np.int64]:
        """The same for each of an array of texts."""
        return to_numpy(pc.utf8_length(texts)).astype(np.int64)

    def cut(self, text: str, lengths: NDArray[np.int64]) -> list[str]:
        """A text in pieces of these lengths."""
        return [text[end - length : end] for end, length in zip(np.cumsum(lengths), lengths, strict=True)]

    def normalize(self, text: str) -> str:
        """Unchanged: offsets refer to the text as given."""
        return text

    def encode(
        self, texts: Sequence[str], text_lengths: NDArray[np.int64], joined: NDArray[np.uint8] | None = None
    ) -> Encoding:
        """See Encoder.encode; a text is faithful when its offsets rise and leave out nothing but blanks."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        text_ends = np.cumsum(text_lengths)
        bounds = [np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) for encoding in encodings]
        shifted = [bound + end - len(text) for bound, end, text in zip(bounds, text_ends, texts, strict=True)]
        all_bounds = np.concatenate([np.empty((0, 2), dtype=np.int64), *shifted])
        return Encoding(
            ids=np.concatenate([np.empty(0, np.int32), *(np.array(e.ids, dtype=np.int32) for e in encodings)]),
            text_tokens=np.cumsum([0, *(len(encoding.ids) for encoding in encodings)], dtype=np.int64),
            starts=all_bounds[:, 0],
            ends=all_bounds[:, 1],
            faithful=np.array([_covers(bound, text) for bound, text in zip(bounds, texts, strict=True)], dtype=bool),
        )

    def encode_as_text(self, text: str, controls: Sequence[Span], control_tokens: Sequence[str]) -> Encoding | None:
        """See Encoder.encode_as_text."""
        pieced = self._text_only.encode(text, controls, control_tokens)
        if pieced is None:
            return None
        return Encoding(
            ids=pieced.ids,
            text_tokens=np.array([0, len(pieced.ids)], dtype=np.int64),
            starts=pieced.bounds[:, 0],
            ends=pieced.bounds[:, 1],
            faithful=np.array([_covers(pieced.bounds, text)], dtype=bool),
        )


def _covers(bounds: NDArray[np.int64], text: str) -> bool:
    """Whether offsets rise and every character that isn't blank lies in one."""
    covered = np.zeros(len(text) + 1, dtype=np.int64)
    np.add.at(covered, bounds[:, 0], 1)
    np.add.at(covered, bounds[:, 1], -1)
    missed = np.flatnonzero(np.cumsum(covered)[:-1] == 0)
    rising = bool((np.diff(bounds[:, 0]) >= 0).all())
    return rising and all(text[place].isspace() for place in missed.tolist())


def token_bytes(record: dict[str, Any]) -> list[bytes]:
    """The bytes of each id, from the byte-to-character table that byte-level BPE prints its vocabulary with."""
    # GPT-2's table: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and on, in order.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(hidden)}
    size = 1 + max([*record["model"]["vocab"].values(), *(token["id"] for token in record["added_tokens"])])
    table = [b""] * size
    added = {token["id"] for token in record["added_tokens"]}
    for token, number in record["model"]["vocab"].items():
        if number not in added:
            table[number] = bytes(byte_of[char] for char in token)
    for token in record["added_tokens"]:
        table[token["id"]] = token["content"].encode()
    return table


_NFC = re.compile(r'"normalizer":\s*\{\s*"type":\s*"NFC"\s*\}')  # unescaped quotation marks: no text holds it

_Ids = Callable[[Sequence[str]], tuple[NDArray[np.int32], NDArray[np.int64]]]


def fastokens_ids(tokenizer_json: str) -> _Ids:
    """The fast program for ids of texts that are normalised already, so that it needn't look: a tenth of its time.

    Raises ImportError, or what it says of a tokenizer that it can't read.
    """
    from fastokens import Tokenizer as FastTokenizer

    tokenizer = FastTokenizer.from_json_str(_NFC.sub('"normalizer": null', tokenizer_json, count=1))

    def encode(texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        ids, offsets = tokenizer.encode_batch_flat(list(texts))
        return np.frombuffer(ids, dtype=np.int32), np.frombuffer(offsets, dtype=np.int64)

    return encode


def huggingface_ids(tokenizer_json: str) -> _Ids:
    """The reference for ids."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        return np.concatenate([np.empty(0, np.int32), *ids]), np.cumsum([0, *map(len, ids)], dtype=np.int64)

    return encode


def encoder_name(fast: bool) -> str:
    """Which program makes the ids, with its version."""
    from importlib.metadata import version

    package = "fastokens" if fast else "tokenizers"
    return f"{package} {version(package)}"
