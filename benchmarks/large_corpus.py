"""Make a chat corpus of a million conversations out of a small one, fast, with as many different words as the source.

Goes in: raw files that `dataprep normalize` reads. Comes out: a .jsonl of OpenAI messages, Chinese and English by
turns. As in corpus.py each message is made of sentences (of clauses in Chinese) drawn from messages of the same role
and language; beyond that most are cut within a word and go on with the end of another, and every digit is drawn anew.
So new words keep coming as they do in real text, and no cache of repeats flatters. All of it is gathering slices of one
array of code points.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from corpus import sentence_pools
from numpy.typing import NDArray

from dataprep.core.workers import num_cores, run_tasks

_PER_TASK = 5_000
_CLAUSE = re.compile(r"[^。！？；：，、.!?\n]+[。！？；：，、.!?\n]*")
_WORD = re.compile(r"[^\W\d_]+")  # a run of letters, Chinese ones included: about what encoders take as one piece
_LAYOUT = ('{"messages": [{"role": "user", "content": "', '"}, {"role": "assistant", "content": "', '"}]}\n')
_NEXT_USER = '"}, {"role": "user", "content": "'
_SAMPLE = 300_000  # words


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Units of text as slices of one array of code points, escaped for JSON."""

    text: NDArray[np.uint32]
    joins: NDArray[np.bool_]  # between two letters: may be cut before this place
    digits: NDArray[np.bool_]
    leads: NDArray[np.int64]  # blank places that a unit begins with, where it begins
    pools: list[NDArray[np.int64]]  # (units, 2) start and stop; of Chinese users, Chinese assistants, others
    per_message: tuple[float, ...]  # of each pool: units for what corpus.py takes as one sentence
    layout: NDArray[np.int64]  # (4, 2): what stands before the first user, assistants, other users; the row's end


def make_large_corpus(inputs: list[str], out: Path, count: int, seed: int = 0) -> dict[str, float]:
    """Write `count` conversations of 2 to 8 exchanges to `out`; returns type/token statistics beside the source's."""
    pools = sentence_pools(inputs)
    source = _as_slices([pool[role] for pool in pools for role in ("user", "assistant")])
    partial_path = out.with_name(out.name + ".tmp")
    sizes = [min(_PER_TASK, count - first) for first in range(0, count, _PER_TASK)]
    work = partial(_conversations, source, seed)
    with partial_path.open("wb") as file:
        for _, data in run_tasks(work, enumerate(sizes), num_cores()):
            file.write(data)
    partial_path.replace(out)
    real = _words(unit for pool in pools for units in pool.values() for unit in units)[:_SAMPLE]
    made = _words(_contents(out, 2 * _SAMPLE))
    return {
        "words compared": len(real),
        "types per token": len(set(made[: len(real)])) / len(real),
        "types per token of the source": len(set(real)) / len(real),
        "megabytes": out.stat().st_size / 1e6,
    }


def _as_slices(lists: list[list[str]]) -> _Source:
    pools, texts, at, per_message = [], [], 0, []
    leads: list[tuple[int, int]] = []
    for number, sentences in enumerate(lists):
        chinese = number < 2
        units = [unit for s in sentences for unit in (_CLAUSE.findall(s) if chinese else [s]) if unit.strip()]
        units = [unit for unit in units if "\\u" not in _escaped(unit)]
        escaped = [_escaped(unit) for unit in units]
        stops = at + np.cumsum([len(unit) for unit in escaped])
        pools.append(np.stack([np.concatenate(([at], stops[:-1])), stops], axis=1))
        lead_lengths = [len(_escaped(unit)) - len(_escaped(unit.lstrip())) for unit in units]
        leads += zip(pools[-1][:, 0].tolist(), lead_lengths, strict=True)
        per_message.append(len(escaped) / max(1, len(sentences)))
        texts += escaped
        at = int(stops[-1])
    layout = []
    for text in (_LAYOUT[0], _LAYOUT[1], _NEXT_USER, _LAYOUT[2]):
        layout.append((at, at + len(text)))
        texts.append(text)
        at += len(text)
    text = "".join(texts)
    letters = np.array([char.isalpha() for char in text])
    lead_of = np.zeros(len(text), dtype=np.int64)
    lead_of[[start for start, _ in leads]] = [length for _, length in leads]
    return _Source(
        text=np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32),
        joins=letters & np.concatenate(([False], letters[:-1])),
        digits=np.array([char in "0123456789" for char in text]),
        leads=lead_of,
        pools=pools,
        per_message=tuple(per_message),
        layout=np.array(layout),
    )


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _conversations(source: _Source, seed: int, task: tuple[int, int]) -> bytes:
    """The lines of one task, which depend on the seed and the task's number alone."""
    number, count = task
    chance = np.random.default_rng([seed, number])
    exchanges = chance.integers(2, 9, count)
    ends = np.cumsum(2 * exchanges)
    pool = np.repeat(2 * (np.arange(count) % 2), 2 * exchanges) + np.arange(ends[-1]) % 2  # of each message
    sentences = np.clip(np.round(chance.lognormal(1.0, 0.7, len(pool))), 1, 12)
    units = np.maximum(1, np.round(sentences * np.array(source.per_message)[pool])).astype(np.int64)
    slots = 2 * units + 1  # slices of a message: what stands before it, and two for each unit
    firsts = np.cumsum(slots) - slots
    slices = np.zeros((int(slots.sum()), 2), dtype=np.int64)
    kind = np.where(pool % 2 == 1, 1, 2)
    kind[ends[:-1]] = 0
    kind[0] = 0
    slices[firsts] = source.layout[kind]
    is_unit = np.ones(len(slices), dtype=bool)
    is_unit[firsts] = False
    slices[is_unit] = _drawn(source, chance, np.repeat(pool, units)).reshape(-1, 2)
    slices[firsts + 1, 0] += source.leads[slices[firsts + 1, 0]]  # no message begins with blanks
    line_ends = np.append(firsts, len(slices))[ends]  # before the next conversation's first slice
    slices = np.insert(slices, line_ends, source.layout[3], axis=0)
    lengths = slices[:, 1] - slices[:, 0]
    stops = np.cumsum(lengths)
    places = np.arange(stops[-1]) + np.repeat(slices[:, 0] - stops + lengths, lengths)
    text = source.text[places]
    digits = np.flatnonzero(source.digits[places])
    text[digits] = chance.integers(ord("0"), ord("9") + 1, len(digits))
    return text.tobytes().decode("utf-32-le").encode()


def _drawn(source: _Source, chance: np.random.Generator, pool: NDArray[np.int64]) -> NDArray[np.int64]:
    """Units, (U, 2, 2): the beginning of one and the end of another; the second slice is empty where it is whole."""
    units = np.zeros((len(pool), 2, 2), dtype=np.int64)
    for number, candidates in enumerate(source.pools):
        own = np.flatnonzero(pool == number)
        for side in (0, 1):
            units[own, side] = candidates[chance.integers(0, len(candidates), len(own))]
    cuts = (units[:, :, 0] + chance.random((len(pool), 2)) * (units[:, :, 1] - units[:, :, 0])).astype(np.int64)
    spliced = source.joins[cuts].all(axis=1) & (cuts > units[:, :, 0]).all(axis=1)
    units[:, 0, 1] = np.where(spliced, cuts[:, 0], units[:, 0, 1])
    units[:, 1, 0] = np.where(spliced, cuts[:, 1], units[:, 1, 1])
    return units


def _words(texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in _WORD.findall(text)]


def _contents(path: Path, least: int) -> Iterable[str]:
    """Contents of the first lines, until they hold at least so many words or the file ends."""
    words = 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            messages: list[dict[str, Any]] = json.loads(line)["messages"]
            for message in messages:
                words += len(_WORD.findall(message["content"]))
                yield message["content"]
            if words >= least:
                return
