"""Near duplicates: how many of those that were planted are found, how many that are found are none, and how fast.

    python benchmarks/near_duplicates.py RAW_FILES [--count 20000]

The corpus is the conversations of the raw files and, up to `--count`, sentences of theirs in new company (corpus.py).
One in four then gets a copy of which 2 to 30% of the words are replaced, left out or doubled; all is shuffled. The
truth is the exact Jaccard similarity of the sets of runs that signatures estimate. Nothing is written.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dataprep.core.grams import find_tokens, run_hashes
from dataprep.normalize.run import normalize_corpus
from dataprep.stages.near_duplicates import SHINGLE_TOKENS, NearDuplicates, band_places, signatures

THRESHOLDS = (0.7, 0.8, 0.9)
EDITS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
BATCH = 512

_PIECES = re.compile(r"[A-Za-z0-9]+|.", re.DOTALL)


def read_texts(inputs: list[str], count: int) -> list[str]:
    """What users and assistants say in each conversation, and in made ones up to `count`."""
    from corpus import make_corpus

    with tempfile.TemporaryDirectory() as folder:
        manifest = normalize_corpus(inputs, Path(folder), workers=1)
        paths = [Path(folder) / "conversations" / part.file for part in manifest.parts]
        rows = [messages for path in paths for messages in pq.read_table(path).column("messages").to_pylist()]
        made = Path(folder) / "made.jsonl"
        make_corpus(inputs, made, max(0, count - len(rows)))
        rows += [json.loads(line)["messages"] for line in made.read_text(encoding="utf-8").splitlines()]
    spoken = ("user", "assistant", "text")
    return ["\n".join(message["content"] for message in row if message["role"] in spoken) for row in rows]


def plant(texts: list[str], chance: random.Random) -> tuple[list[str], list[int]]:
    """Texts and edited copies in a random order, and for each its original's place, or -1."""
    entries = [(text, number, -1) for number, text in enumerate(texts)]
    for number in range(0, len(texts), 4):
        entries.append((edited(texts[number], chance.choice(EDITS), chance), len(entries), number))
    chance.shuffle(entries)
    places = {number: place for place, (_, number, _) in enumerate(entries)}
    return [text for text, _, _ in entries], [places.get(original, -1) for _, _, original in entries]


def edited(text: str, share: float, chance: random.Random) -> str:
    pieces = _PIECES.findall(text)
    words = [piece for piece in pieces if piece.isalnum()]
    for at, piece in enumerate(pieces):
        if piece.isalnum() and chance.random() < share:
            pieces[at] = chance.choice((chance.choice(words), "", f"{piece} {piece}"))
    return "".join(pieces)


def shingles(text: str) -> set[int]:
    hashes = find_tokens([text]).hashes
    length = min(SHINGLE_TOKENS, len(hashes))
    starts = np.arange(len(hashes) - length + 1) if length else np.empty(0, dtype=np.int64)
    return set(run_hashes(hashes, starts, starts + length).tolist())


def jaccard(one: str, other: str) -> float:
    first, second = shingles(one), shingles(other)
    return len(first & second) / max(1, len(first | second))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--count", type=int, default=20_000)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    texts, originals = plant(read_texts(arguments.inputs, arguments.count), random.Random(0))
    size = sum(len(text.encode()) for text in texts)
    exact = {place: jaccard(texts[place], texts[original]) for place, original in enumerate(originals) if original >= 0}
    print(f"{len(texts):,} conversations, {size / 1e6:.1f} MB, {len(exact):,} of them edited copies")

    signatures(texts[:1])
    started = time.process_time()
    signed = np.concatenate([signatures(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])
    seconds = time.process_time() - started
    print(f"signatures: {len(texts) / seconds:,.0f} conversations and {size / seconds / 1e6:.1f} MB per CPU s")
    for threshold in THRESHOLDS:
        compare(threshold, texts, signed, exact, originals)


def compare(
    threshold: float, texts: list[str], signed: np.ndarray, exact: dict[int, float], originals: list[int]
) -> None:
    seen = NearDuplicates(threshold)
    started = time.process_time()
    firsts = seen.first_of(signed)
    seconds = time.process_time() - started
    found = [(place, int(first)) for place, first in enumerate(firsts) if first >= 0]
    near = [jaccard(texts[place], texts[first]) for place, first in found]
    # Of a copy and its original, whichever comes later is to be found, the other or another near one be kept.
    alike = [(max(copy, originals[copy]), similarity) for copy, similarity in exact.items() if similarity >= threshold]
    recall = sum(firsts[place] >= 0 for place, _ in alike) / len(alike)
    sure = [place for place, similarity in alike if similarity >= threshold + 0.05]
    kept = len(texts) - len(found)
    places = band_places(threshold)
    print(
        f"threshold {threshold}: {len(alike):,} planted, recall {recall:.1%} "
        f"({sum(firsts[place] >= 0 for place in sure) / len(sure):.1%} of those at least 0.05 above it); "
        f"{len(found):,} found, precision {np.mean(np.array(near) >= threshold):.1%} "
        f"({np.mean(np.array(near) >= threshold - 0.05):.1%} at most 0.05 below it, least {min(near):.2f}); "
        f"{len(texts) / seconds:,.0f} conversations per CPU s; "
        f"{signed.itemsize * signed.shape[1] + 8 + signed.shape[1] // places * 12} bytes for each of {kept:,} kept"
    )


if __name__ == "__main__":
    main()
