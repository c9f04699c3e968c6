"""What readers of shards cost: eight processes that map the same cache and go through its packs.

    python benchmarks/readers.py CACHE [CACHE …]

Each process opens the shards with the trainer's own loader, goes through all packs in an order of its own, and tells
its private memory (USS) beyond what it had when only the imports were done: at the end, when all have read all, since
pages of the files that only one process has touched yet would count as its own. Then it takes packs at random.
"""

import argparse
import multiprocessing
import os
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import psutil

_READERS, _PACKS = 8, 20_000


def _private() -> int:
    return int(psutil.Process().memory_full_info().uss)


def read(cache: Path, number: int, barrier: Barrier, results: "multiprocessing.Queue[dict[str, float]]") -> None:
    """One reader: opens, takes a batch, goes through all packs in an epoch's order, then takes packs at random."""
    from train.batch import collate, pack_order
    from train.load import open_shards

    idle = _private()
    barrier.wait()
    started, cpu_started = time.perf_counter(), time.process_time()
    packs = open_shards(cache).train
    opened = time.perf_counter()
    order = pack_order(len(packs), number, 0)
    collate(packs, order[:1].tolist())
    first, first_cpu_s = time.perf_counter(), time.process_time() - cpu_started
    tokens = 0
    for index in order.tolist():
        pack = packs[index]
        tokens += int(np.count_nonzero(pack.input_ids >= 0))
    barrier.wait()  # all have mapped all pages by then
    private = _private() - idle
    barrier.wait()
    again = pack_order(len(packs), number, 1)[:_PACKS].tolist()  # paged in by now
    times = np.empty(len(again))
    for place, index in enumerate(again):
        before = time.perf_counter()
        packs[index]
        times[place] = time.perf_counter() - before
    results.put(
        {
            "open_s": opened - started,
            "first_s": first - started,
            "first_cpu_s": first_cpu_s,
            "private": private,
            "median_us": float(np.median(times)) * 1e6,
            "p99_us": float(np.percentile(times, 99)) * 1e6,
            "tokens": tokens,
            "packs": len(packs),
        }
    )


def measure(cache: Path) -> None:
    """Print what the slowest and largest of the readers had."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(_READERS), context.Queue()
    readers = [context.Process(target=read, args=(cache, number, barrier, results)) for number in range(_READERS)]
    for reader in readers:
        reader.start()
    told = [results.get() for _ in readers]
    for reader in readers:
        reader.join()
    worst = {key: max(one[key] for one in told) for key in told[0]}
    print(
        f"{cache}: {int(worst['packs']):,} packs, {int(worst['tokens']):,} tokens read by each; "
        f"open {worst['open_s']:.2f} s, first batch {worst['first_s']:.2f} s ({worst['first_cpu_s']:.2f} of CPU), "
        f"private {worst['private'] / 1e6:.0f} MB, "
        f"a pack {max(one['median_us'] for one in told):.0f} µs (median; p99 {worst['p99_us']:.0f}), "
        f"load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", type=Path, nargs="+", metavar="CACHE")
    for cache in parser.parse_args().caches:
        measure(cache)


if __name__ == "__main__":
    main()
