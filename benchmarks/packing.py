"""Packing by lengths alone: CPU seconds, memory, fill, how even packs are in attention's cost, and how mixed.

    python benchmarks/packing.py [--count 10000000] [--cache CACHE]

Lengths are log-normal with mean 640, as chats are; with --cache those of the examples in its shards, drawn anew to the
same count. Each line is a process of its own, whose peak memory includes lengths, keys and Python (about 40 MB and 24
bytes an example). Cost is the sum of squared lengths of a pack, over the mean of all packs. "of 8" is the greatest cost
of 8 packs drawn at random: how long 8 ranks with a pack each wait for the slowest, as far as attention goes. "sorted"
is the same in the micro-steps of a step of 64 packs that the trainer deals by cost (dealing.py tells more). "near" is
the share of neighbours in a pack that lie within 1% of the corpus of each other (2.0% if drawn at random).
"""

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataprep.core.shards import map_shard, shards_folder
from dataprep.stages.best_fit import best_fit_decreasing
from dataprep.stages.pack import Packing, mixed, pack_examples
from schemas.manifest import read_shards_manifest
from train.batch import deal

_RANKS, _STEP = 8, 64


def chat_like(count: int, seq_len: int, sigma: float) -> NDArray[np.int64]:
    drawn = np.random.default_rng(0).lognormal(np.log(640) - sigma**2 / 2, sigma, count)
    return np.clip(np.round(drawn), 8, seq_len).astype(np.int64)


def real(count: int, seq_len: int, cache: Path) -> NDArray[np.int64]:
    folder = shards_folder(cache)
    manifest = read_shards_manifest(folder)
    tables = [map_shard(folder, record) for records in manifest.splits.values() for record in records]
    lengths = np.concatenate([chunk.flatten().to_numpy() for t in tables for chunk in t.column("seq_lengths").chunks])
    return np.minimum(np.random.default_rng(0).choice(lengths, count), seq_len).astype(np.int64)


def tight(lengths: NDArray[np.int64], keys: NDArray[np.uint64], seq_len: int) -> Packing:
    """Best fit decreasing and nothing else, for comparison."""
    shuffled = np.argsort(keys, kind="stable")
    bins = best_fit_decreasing(lengths[shuffled], seq_len)
    counts = np.bincount(bins)
    order = shuffled[np.argsort(bins, kind="stable")]
    return Packing(order=order, pack_bounds=np.concatenate(([0], np.cumsum(counts))))


def line(name: str, lengths: NDArray[np.int64], seq_len: int, how: str) -> str:
    """Pack and describe what came of it."""
    keys = mixed(np.arange(len(lengths), dtype=np.uint64), 0)
    copies = np.zeros(len(lengths), dtype=np.int64)
    started = time.process_time()
    if how == "best fit alone":
        packing = tight(lengths, keys, seq_len)
    else:
        packing = pack_examples(lengths, keys, copies, seq_len, 0, how)
    cpu_s = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    packs = len(packing.pack_bounds) - 1
    squares = np.add.reduceat(lengths[packing.order] ** 2, packing.pack_bounds[:-1])
    cost = squares / squares.mean()
    drawn = np.random.default_rng(0).permutation(cost)
    of_8 = drawn[: packs // _RANKS * _RANKS].reshape(-1, _RANKS).max(axis=1).mean()
    steps = drawn[: packs // _STEP * _STEP].reshape(-1, _STEP)
    dealt = np.array([deal(step.tolist(), _RANKS, 1, _STEP // _RANKS) for step in steps])[..., 0]  # (steps, ranks, 8)
    waited = np.take_along_axis(steps[:, None], dealt, axis=2).max(axis=1).mean()
    inside = np.ones(len(lengths) - 1, dtype=bool)
    inside[packing.pack_bounds[1:-1] - 1] = False
    near = (np.abs(np.diff(packing.order))[inside] < 0.01 * len(lengths)).mean()
    p5, p50, p95 = np.percentile(cost, (5, 50, 95))
    fill = lengths.sum() / (packs * seq_len)
    return (
        f"| {name} | {seq_len} | {how} | {packs:,} | {fill:.3%} | {cpu_s:.1f} | {peak:.0f} "
        f"| {p5:.2f} / {p50:.2f} / {p95:.2f} / {cost.max():.2f} | {of_8:.2f} | {waited:.2f} "
        f"| {near:.1%} |"
    )


def _case(name: str, sigma: float | None, cache: Path | None, count: int, seq_len: int, how: str) -> None:
    lengths = real(count, seq_len, cache) if cache else chat_like(count, seq_len, sigma or 0.8)
    print(line(name, lengths, seq_len, how), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--cache", type=Path, help="take lengths from its shards, too")
    arguments = parser.parse_args()
    kinds: list[tuple[str, float | None, Path | None]] = [("σ 0.8", 0.8, None), ("σ 1.0", 1.0, None)]
    kinds += [("real", None, arguments.cache)] if arguments.cache else []
    columns = "lengths, seq_len, pack, packs, fill, CPU s, peak MB, cost p5 / p50 / p95 / max, of 8, sorted, near"
    print(f"| {columns.replace(', ', ' | ')} |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for name, sigma, cache in kinds:
        for seq_len in (4_096, 8_192):
            for how in ("best fit alone", "best-fit", "sequential"):
                process = context.Process(target=_case, args=(name, sigma, cache, arguments.count, seq_len, how))
                process.start()
                process.join()
                assert process.exitcode == 0


if __name__ == "__main__":
    main()
