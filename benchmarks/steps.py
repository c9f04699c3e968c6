"""What each step of `dataprep tokenize` costs, in nanoseconds of CPU for each byte of JSONL, in one process.

    python benchmarks/steps.py CACHE --tokenizer QWEN3_FOLDER [--rounds 3]

CACHE holds conversations that `dataprep normalize` made. Each step is a function of the command, measured where it is
called; what calls it is counted without it. The least of all rounds counts. Start-up is told apart, in milliseconds.
"""

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

STARTED = time.process_time()

from dataprep.core import columns, encode  # noqa: E402
from dataprep.stages import render, write  # noqa: E402
from dataprep.stages import tokenize as stage  # noqa: E402
from dataprep.tokenize import fill, run, survey, token_cache  # noqa: E402
from schemas.manifest import PackOptions, read_conversations_manifest  # noqa: E402

IMPORTED = time.process_time()

STEPS: tuple[tuple[str, Any, str], ...] = (
    ("load tokenizer (once)", token_cache.TokenizeEngine, "load"),
    ("find tokenizer (once)", run, "load_tokenizer"),
    ("drop tokenizer (once)", fill, "_unload"),
    ("copy tokenizer (once)", run, "copy_tokenizer"),
    ("ids and sources", run, "read_corpus"),
    ("find chunks", run, "find_chunks"),
    ("read Parquet", columns.RowReader, "rows"),
    ("columns", stage, "read_columns"),
    ("trace templates", render.Renderer, "_learn"),
    ("check plans", render.Renderer, "_check"),
    ("render", stage, "fill"),
    ("encode", encode.ByteLevelEncoder, "_ids"),
    ("spelling", encode.ByteLevelEncoder, "_spelled"),
    ("turns", stage, "find_turns"),
    ("mask", stage, "target_mask"),
    ("proof of the mask", stage, "refuse_unshown"),
    ("batch", stage, "examples_batch"),
    ("write chunk", fill, "write_chunk"),
    ("chunks, else", fill, "make_chunks"),
    ("select", survey, "select_spans"),
    ("pack", run, "pack_examples"),
    ("write shards", run, "write_shards"),
    ("sha256 of shards", write, "sha256_file"),
)

PROOF = ("trace templates", "check plans", "spelling", "proof of the mask")  # what the proof needs, and maybe more


class Clock:
    """CPU time by step, that of steps inside another taken from it."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._inner = [0.0]

    def measured(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time noted."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            self._inner.append(0.0)
            before = time.process_time()
            try:
                return call(*arguments, **keywords)
            finally:
                took = time.process_time() - before
                self.spent[name] += took - self._inner.pop()
                self._inner[-1] += took

        return timed


def tokenize_once(cache: Path, tokenizer: str) -> tuple[Counter[str], float]:
    """One run from conversations to shards; CPU seconds by step, and of all."""
    for part in ("tokens", "shards"):
        shutil.rmtree(cache / part, ignore_errors=True)
    clock = Clock()
    originals = [(owner, name, vars(owner).get(name)) for _, owner, name in (*STEPS, ("", run, "chunk_files"))]
    load = token_cache.TokenizeEngine.load

    def load_measured(*arguments: Any, **keywords: Any) -> Any:
        engine = clock.measured("load tokenizer (once)", load)(*arguments, **keywords)
        engine.encoder._ids = clock.measured("encode", engine.encoder._ids)
        return engine

    try:
        for step, owner, name in STEPS:
            if (owner, name) not in ((token_cache.TokenizeEngine, "load"), (encode.ByteLevelEncoder, "_ids")):
                setattr(owner, name, clock.measured(step, getattr(owner, name)))
        token_cache.TokenizeEngine.load = load_measured  # type: ignore[method-assign,assignment]
        run.chunk_files = lambda folder: {"": []}  # as if some were there: the encoder is loaded by itself then
        before = time.process_time()
        options = PackOptions(seq_len=4096, overflow="cut", val_fraction=0, val_sources=[], seed=0, pack="best-fit")
        run.tokenize_corpus(cache, tokenizer, options, workers=1)
        return clock.spent, time.process_time() - before
    finally:
        for owner, name, original in originals:
            if original is not None:
                setattr(owner, name, original)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    size = read_conversations_manifest(arguments.cache / "conversations").inputs
    num_bytes = sum(record.bytes for record in size)
    runs = [tokenize_once(arguments.cache, arguments.tokenizer) for _ in range(arguments.rounds)]
    least = {step: min(spent[step] for spent, _ in runs) for step, _, _ in STEPS}
    rest = min(whole - sum(spent.values()) for spent, whole in runs)
    print(f"{num_bytes / 1e6:.1f} MB of raw rows; imports {1e3 * (IMPORTED - STARTED):.0f} ms", file=sys.stdout)
    for step in [step for step in least if step.endswith("(once)")]:
        print(f"{step:<24}{1e3 * least.pop(step):>6.0f} ms")
    for step, took in [*least.items(), ("all else", rest)]:
        print(f"{step:<20}{1e9 * took / num_bytes:>8.2f} ns a byte")
    steady = sum(least.values()) + rest
    proof = sum(least[step] for step in PROOF)
    print(f"of it the proof: {proof / steady:.1%} (a bound: {', '.join(PROOF)}, all of each)")
    print(
        f"{'together':<20}{1e9 * steady / num_bytes:>8.2f} ns a byte, {num_bytes / 1e6 / steady:.1f} MB per CPU second"
    )


if __name__ == "__main__":
    main()
