"""Rows, packs and turned-away rows to look at: a fixed random choice that shows every source, cut to a page's size."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from dataprep.core.shards import Pack, map_shard, read_pack
from dataprep.report.figures import (
    BETWEEN,
    SampleConversation,
    SampleExample,
    SampleMessage,
    SamplePack,
    Samples,
    SampleTurnedAway,
    Span,
)
from dataprep.report.text import Index, Texts
from dataprep.report.tokens import Packed
from dataprep.report.turned_away import source_of
from dataprep.stages.pack import mixed
from schemas.errors import CacheError
from schemas.manifest import ShardsManifest

TEXT_BUDGET = 700_000  # characters of all conversations shown
TOKEN_BUDGET = 200_000  # tokens of their examples
PACK_TOKEN_BUDGET = 140_000
RAW_BUDGET = 300_000  # characters of all turned-away rows shown
MIN_SHOWN = 200
MAX_MESSAGE = 6_000  # characters of one message
MAX_STRATA = 500  # sources, or sources by split, of which each shows


def choose_rows(index: Index, packed: Sequence[Packed], number: int, seed: int) -> list[int]:
    """About `number` rows of conversations/, in order: from each source and split its share, and one at least.

    With many sources that is more than `number`; of more than MAX_STRATA, the largest show.
    """
    if not number:
        return []
    strata = index.sources.astype(np.int64) * 2
    for split in packed:
        if split.name == "val":
            strata[split.rows] |= 1
    ranks = mixed(np.arange(len(strata), dtype=np.uint64), seed)
    order = np.lexsort((ranks, strata))
    values, firsts, counts = np.unique(strata[order], return_index=True, return_counts=True)
    largest = np.sort(np.argsort(-counts, kind="stable")[: max(number, MAX_STRATA)])
    values, firsts, counts = values[largest], firsts[largest], counts[largest]
    quotas = np.maximum(1, counts * max(0, number - len(values)) // max(1, len(strata)))
    quotas = np.minimum(quotas + (counts > quotas) * (quotas < number // max(1, len(values))), counts)
    chosen = [order[first : first + quota] for first, quota in zip(firsts.tolist(), quotas.tolist(), strict=True)]
    return sorted(np.concatenate([np.empty(0, np.int64), *chosen]).tolist())


def make_samples(
    folder: Path,
    manifest: ShardsManifest | None,
    index: Index,
    packed: Sequence[Packed],
    texts: Texts | None,
    wanted: Sequence[int],
    refused: Mapping[str, int],
    lines: Sequence[tuple[str, dict[str, Any]]],
    num_packs: int,
    seed: int,
) -> Samples:
    """Read the samples: conversations `wanted`, `num_packs` packs of `folder`, the quarantined `lines`.

    `refused` gives the rows of those conversations that tokenizing turned away, by id.
    """
    records = texts.records if texts else {}
    shown = _level([_size(records[row]) for row in wanted], TEXT_BUDGET)
    reader = _Reader(folder, manifest) if manifest else None
    examples = reader.of_rows(packed, wanted) if reader else {}
    conversations = [
        _conversation(row, records[row], examples.get(row, []), shown)
        for row in wanted
        if row in examples or row not in refused.values()
    ]
    raw_shown = _level([len(line.get("raw") or "") for _, line in lines], RAW_BUDGET)
    return Samples(
        conversations=conversations,
        packs=reader.of_packs(packed, num_packs, seed) if reader else [],
        turned_away=[_turned_away(stage, line, index, records, refused, raw_shown) for stage, line in lines],
        note=None if manifest else "not tokenised yet, so there are no tokens and no packs to show",
    )


def cut_text(text: str, limit: int) -> tuple[str, int]:
    """The first `limit` characters, and how many are left out."""
    return text[:limit], max(0, len(text) - limit)


def token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of these tokens with BETWEEN between them; not inside a character, nor where joining changes them."""
    whole = tokenizer.decode(list(ids), skip_special_tokens=False)
    pieces: list[str] = []
    held: list[int] = []
    for token in ids:
        held.append(token)
        text = tokenizer.decode(held, skip_special_tokens=False)
        if not text.endswith("\ufffd") or len(held) == 8:
            pieces.append(text)
            held = []
    if held:
        pieces.append(tokenizer.decode(held, skip_special_tokens=False))
    if "".join(pieces) != whole:
        pieces = [whole]
    return BETWEEN.join(piece.replace(BETWEEN, "\u2421") for piece in pieces)


class _Reader:
    """Reads examples of packs and decodes them."""

    def __init__(self, folder: Path, manifest: ShardsManifest) -> None:
        path = folder / manifest.tokenizer.folder / "tokenizer.json"
        if not path.is_file():
            raise CacheError(f"{path}: missing; run `dataprep tokenize` again")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._manifest = manifest
        self._tables = {
            record.file: map_shard(folder, record) for records in manifest.splits.values() for record in records
        }

    def of_rows(self, packed: Sequence[Packed], rows: Sequence[int]) -> dict[int, list[SampleExample]]:
        """The examples of these conversations, a copy of each once."""
        places: list[tuple[Packed, int, int]] = []  # split, example, length
        for split in packed:
            for number in np.flatnonzero(np.isin(split.rows, np.array(rows, dtype=np.int64))).tolist():
                places.append((split, number, int(split.example_lengths[number])))
        limit = _level([length for _, _, length in places], TOKEN_BUDGET)
        found: dict[int, list[SampleExample]] = {}
        for split, number, _ in places:
            pack_number = int(split.packs[number])
            first = int(np.searchsorted(split.packs, pack_number))
            example = self._example(split.name, pack_number, self._pack(split.name, pack_number), number - first, limit)
            own = found.setdefault(example.row, [])
            if example.start not in [other.start for other in own]:
                own.append(example)
        return {row: sorted(own, key=lambda example: example.start) for row, own in found.items()}

    def of_packs(self, packed: Sequence[Packed], number: int, seed: int) -> list[SamplePack]:
        """Packs chosen at random, of every split in proportion and two at least."""
        if not number:
            return []
        total = sum(len(split.pack_tokens) for split in packed)
        chosen: list[tuple[Packed, int]] = []
        for split in packed:
            count = len(split.pack_tokens)
            share = min(count, max(2, round(number * count / total)))
            ranks = mixed(np.arange(count, dtype=np.uint64), seed)
            chosen += [(split, pack) for pack in sorted(np.argsort(ranks, kind="stable")[:share].tolist())]
        limit = _level([int(split.pack_tokens[pack]) for split, pack in chosen], PACK_TOKEN_BUDGET)
        return [self._sample_pack(split.name, pack, limit) for split, pack in chosen]

    def _sample_pack(self, split: str, number: int, limit: int) -> SamplePack:
        pack = self._pack(split, number)
        examples = []
        for place, length in enumerate(pack.seq_lengths.tolist()):
            examples.append(self._example(split, number, pack, place, min(length, limit)))
            limit = max(0, limit - length)
        return SamplePack(
            split=split,
            number=number,
            tokens=len(pack.input_ids),
            targets=int(pack.num_targets),
            examples=examples,
        )

    def _pack(self, split: str, number: int) -> Pack:
        for record in self._manifest.splits[split]:
            if number < record.packs:
                return read_pack(self._tables[record.file], number)
            number -= record.packs
        raise AssertionError("the manifest counts its packs")

    def _example(self, split: str, pack_number: int, pack: Pack, number: int, limit: int) -> SampleExample:
        low, high = pack.bounds()[number]
        ids, targets = pack.input_ids[low:high], pack.targets[low:high]
        return SampleExample(
            source=self._manifest.sources[int(pack.source_ids[number])],
            row=int(pack.conversation_rows[number]),
            start=int(pack.conversation_starts[number]),
            split=split,
            pack=pack_number,
            tokens=high - low,
            targets=int(targets.sum()),
            spans=self._spans(ids[:limit], targets[:limit]),
            left_out=max(0, high - low - limit),
        )

    def _spans(self, ids: NDArray[np.int32], targets: NDArray[np.bool_]) -> list[Span]:
        edges = [0, *(np.flatnonzero(np.diff(targets)) + 1).tolist(), len(ids)]
        return [
            Span(target=bool(targets[start]), text=token_texts(self._tokenizer, ids[start:stop].tolist()))
            for start, stop in pairwise(edges)
            if stop > start
        ]


def _conversation(row: int, record: dict[str, Any], examples: list[SampleExample], limit: int) -> SampleConversation:
    messages = _messages(record["messages"], limit)
    return SampleConversation(
        row=row,
        id=record["id"],
        source=record["source"],
        origin=f"{record['origin']['file']}:{record['origin']['row']}",
        messages=messages,
        left_out=len(record["messages"]) - len(messages),
        tools=record["tools"] and cut_text(record["tools"], min(limit, MAX_MESSAGE))[0],
        examples=examples,
    )


def _messages(messages: list[dict[str, Any]], limit: int) -> list[SampleMessage]:
    """The messages, as many and as much of them as fits into `limit` characters."""
    shown = []
    for message in messages:
        if limit <= 0:
            break
        room = min(limit, MAX_MESSAGE)
        text, left_out = cut_text(message["content"], room)
        reasoning, more = cut_text(message["reasoning"] or "", room)
        calls = [(call["name"], cut_text(call["arguments"], room)[0]) for call in message["tool_calls"] or []]
        shown.append(
            SampleMessage(
                role=message["role"],
                text=text,
                reasoning=reasoning or None,
                calls=calls,
                name=message["name"],
                train=message["train"],
                left_out=left_out + more,
            )
        )
        limit -= len(text) + len(reasoning) + sum(len(arguments) for _, arguments in calls)
    return shown


def _turned_away(
    stage: str,
    line: dict[str, Any],
    index: Index,
    records: Mapping[int, dict[str, Any]],
    refused: Mapping[str, int],
    limit: int,
) -> SampleTurnedAway:
    raw, left_out = cut_text(line.get("raw") or "", limit)
    row = refused.get(line["id"]) if stage == "tokenize" else None
    return SampleTurnedAway(
        source=source_of(line, index.files),
        file=line["file"],
        row=line["row"],
        stage=stage,
        reason=line["reason"],
        detail=line["detail"],
        fix=line["fix"],
        raw=raw + (f"… ({left_out:,} characters more)" if left_out else "") or None,
        messages=_messages(records[row]["messages"], limit) if row is not None else [],
    )


def _size(record: dict[str, Any]) -> int:
    calls = [call for message in record["messages"] for call in message["tool_calls"] or []]
    texts = [text for message in record["messages"] for text in (message["content"], message["reasoning"] or "")]
    return sum(map(len, texts)) + sum(len(call["arguments"]) for call in calls) + len(record["tools"] or "")


def _level(sizes: Sequence[int], budget: int) -> int:
    """The largest limit under which the sizes, each cut to it, stay within the budget; MIN_SHOWN at least."""
    left, number = budget, len(sizes)
    for size in sorted(sizes):
        if size * number >= left:
            return max(MIN_SHOWN, left // number)
        left, number = left - size, number - 1
    return max(MIN_SHOWN, max(sizes, default=0))
