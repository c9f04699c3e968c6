"""How long ranks wait for the slowest: a step's packs dealt in turn, and as the trainer deals them, by cost.

    python benchmarks/dealing.py CACHE [CACHE …]

Opens shards with the trainer's loader, takes the steps of its first epoch, and tells the greatest rank's cost over the
mean of all ranks: in each micro-step (ZeRO-2 and 3 wait there) and over the step (ZeRO-0 and 1). The cost is the
trainer's, what a GPU takes for matmuls and attention, for Qwen3-0.6B; with --flops operations as MFU counts them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from train.batch import Plan, pack_order
from train.cost import model_flops, pack_cost
from train.load import Packs, open_shards
from train.model import ModelShape

_RANKS, _BATCHES = (2, 4, 8), (16, 64)
_SHAPE = ModelShape(
    architecture="Qwen3ForCausalLM",
    num_layers=28,
    head_dim=128,
    vocab_size=151_936,
    num_parameters=596_049_920,
    num_trained=596_049_920,
    hidden=1024,
    intermediate=3072,
    query_width=2048,
    key_width=1024,
    dtype=torch.bfloat16,
    norms_queries=True,
)
_Micro = list[list[tuple[int, ...]]]  # by rank and micro-step


def in_turn(packs: list[int], plan: Plan) -> _Micro:
    """Each rank the next packs of the order, micro-batch after micro-batch."""
    size = plan.micro_packs
    starts = [
        [(micro * plan.num_ranks + rank) * size for micro in range(plan.num_micro_steps)]
        for rank in range(plan.num_ranks)
    ]
    return [[tuple(packs[start : start + size]) for start in own] for own in starts]


def waits(split: Packs, plan: Plan, each: np.ndarray, by_cost: bool) -> Iterator[tuple[float, float]]:
    """Of each step, the slowest rank over the mean: in its micro-steps, and over it all."""
    order = pack_order(len(split), 0, 0, split.heaviest)
    for start in range(0, len(order) - plan.batch_packs + 1, plan.batch_packs):
        packs = order[start : start + plan.batch_packs]
        dealt = plan.dealt(packs, split, plan.num_micro_steps) if by_cost else in_turn(packs.tolist(), plan)
        loads = np.array([[each[list(micro)].sum() for micro in own] for own in dealt])
        yield loads.max(axis=0).sum() / loads.mean(axis=0).sum(), loads.sum(axis=1).max() / loads.sum(axis=1).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", type=Path, nargs="+", metavar="CACHE")
    parser.add_argument("--micro-packs", type=int, default=1)
    parser.add_argument("--flops", action="store_true")
    arguments = parser.parse_args()
    print("| cache | packs | ranks | packs a step | micro-steps, in turn | by cost | steps, in turn | by cost |")
    print("|---|---|---|---|---|---|---|---|")
    for cache in arguments.caches:
        split = open_shards(cache).train
        each = pack_cost(_SHAPE).of(split, np.arange(len(split)))
        if arguments.flops:
            tokens, squares = split.num_tokens.tolist(), split.squares.tolist()
            each = np.array([model_flops(_SHAPE, *one) for one in zip(tokens, squares, strict=True)])
        for num_ranks in _RANKS:
            for batch_packs in _BATCHES:
                plan = Plan(
                    num_packs=len(split),
                    batch_packs=batch_packs,
                    micro_packs=arguments.micro_packs,
                    num_ranks=num_ranks,
                    cost=pack_cost(_SHAPE),
                )
                (turn_micro, turn), (cost_micro, cost) = (
                    np.mean(list(waits(split, plan, each, by_cost)), axis=0) for by_cost in (False, True)
                )
                print(f"| {cache.name} | {len(split):,} | {num_ranks} | {batch_packs} ", end="")
                print(f"| {turn_micro:.3f} | {cost_micro:.3f} | {turn:.3f} | {cost:.3f} |", flush=True)


if __name__ == "__main__":
    main()
