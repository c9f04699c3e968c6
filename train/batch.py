"""Packs in, batches of tensors out. Which packs a step takes is a pure function of (seed, epoch), known to every rank.

Step s of an epoch takes packs s*P to (s+1)*P of the epoch's order, whatever the number of ranks. They are dealt to the
ranks by what they cost, since all wait for the slowest. Where they do not come out even, some micro-batches are empty,
so that all ranks call the model equally often (ZeRO-3 needs that).
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from schemas.shard import IGNORED_LABEL
from train.load import Pack, Packs

TENSORS = "input_ids", "position_ids", "cu_seqlens", "predicting", "labels"


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Packs in one row without padding. Lengths also as plain integers: nothing asks the device for them."""

    input_ids: torch.Tensor  # (1, tokens) int64
    position_ids: torch.Tensor  # (1, tokens) int64: lengths [3, 2] -> [0, 1, 2, 0, 1]
    cu_seqlens: torch.Tensor  # (examples + 1,) int32: lengths [3, 2] -> [0, 3, 5]
    predicting: torch.Tensor  # (targets,) int64: where each target is predicted, one before its own place
    labels: torch.Tensor  # (targets,) int64
    seq_lengths: tuple[int, ...]
    num_targets: int

    def pinned(self) -> "Batch":
        """The batch in memory that a GPU copies from without waiting."""
        return self._each(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`; copies of a pinned one to a GPU don't wait."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        changed = {name: change(getattr(self, name)) for name in TENSORS}
        return Batch(seq_lengths=self.seq_lengths, num_targets=self.num_targets, **changed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The packs of one optimizer step, and which of them this rank takes in each micro-batch."""

    index: int  # from 0, over the whole run
    epoch: int
    packs: tuple[int, ...]  # of the whole step, on all ranks, as are the next three
    num_tokens: int
    num_targets: int
    squares: int  # sum of the squared lengths of its examples
    micro_batches: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackCost:
    """How long a GPU takes for a pack, up to a factor: for its tokens, its targets and the squares of its lengths."""

    a_token: float
    a_target: float
    a_square: float

    def of(self, split: Packs, packs: np.ndarray) -> np.ndarray:
        """What these packs of a split cost, as float64."""
        tokens, targets, squares = split.num_tokens[packs], split.num_targets[packs], split.squares[packs]
        return self.a_token * tokens + self.a_target * targets + self.a_square * squares


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How packs become steps; holds no data."""

    num_packs: int
    batch_packs: int
    micro_packs: int
    num_ranks: int
    cost: PackCost

    @property
    def steps_an_epoch(self) -> int:
        """Optimizer steps of an epoch; the last may be smaller."""
        return -(-self.num_packs // self.batch_packs)

    def step(self, index: int, rank: int, split: Packs, order: np.ndarray) -> Step:
        """Step `index` of the run as `rank` sees it; `order` is that of the step's epoch."""
        epoch, within = divmod(index, self.steps_an_epoch)
        packs = order[within * self.batch_packs : (within + 1) * self.batch_packs]
        return Step(
            index=index,
            epoch=epoch,
            packs=tuple(packs.tolist()),
            num_tokens=int(split.num_tokens[packs].sum()),
            num_targets=int(split.num_targets[packs].sum()),
            squares=int(split.squares[packs].sum()),
            micro_batches=self.dealt(packs, split, self.num_micro_steps)[rank],
        )

    def dealt(self, packs: np.ndarray, split: Packs, num_micro_steps: int) -> list[tuple[tuple[int, ...], ...]]:
        """These packs as micro-batches of each rank, about even in cost: in each micro-step, and together."""
        places = deal(self.cost.of(split, packs).tolist(), self.num_ranks, self.micro_packs, num_micro_steps)
        return [tuple(tuple(packs[micro_batch].tolist()) for micro_batch in micro_batches) for micro_batches in places]

    @property
    def num_micro_steps(self) -> int:
        """Micro-batches of each rank in a step."""
        return -(-self.batch_packs // (self.micro_packs * self.num_ranks))


def pack_order(num_packs: int, seed: int, epoch: int, heaviest: int | None = None) -> np.ndarray:
    """The order of packs in an epoch: sorted by a hash (splitmix64) of seed, epoch and index, the same everywhere.

    In the first epoch the pack `heaviest` goes first: what overflows a GPU does so at once.
    """
    with np.errstate(over="ignore"):
        start = _splitmix64(np.uint64(seed % 2**64) + _splitmix64(np.uint64(epoch)))
        keys = _splitmix64(np.arange(num_packs, dtype=np.uint64) + start)
    order = np.argsort(keys, kind="stable")
    if heaviest is not None and epoch == 0:
        order = np.concatenate([[heaviest], order[order != heaviest]])
    return order


def step_seed(seed: int, index: int, rank: int) -> int:
    """What a rank's random numbers start from in a step (dropout and the like), so that no state of them is kept."""
    with np.errstate(over="ignore"):
        start = _splitmix64(np.uint64(seed % 2**64) + _splitmix64(np.uint64(index)))
        return int(_splitmix64(start + np.uint64(rank)))


def deal(costs: Sequence[float], num_ranks: int, micro_packs: int, num_micro_steps: int) -> list[list[list[int]]]:
    """Which packs, by their places in `costs`, each rank takes in each micro-step, at most `micro_packs` at a time.

    The costliest share a micro-step, and the one with the first place comes first. Costs 9 1 8 2 5 6, 2 ranks, 1 at a
    time -> rank 0 (0) (4) (3), rank 1 (2) (5) (1): 9 + 5 + 2 and 8 + 6 + 1.
    """
    falling = sorted(range(len(costs)), key=lambda place: -costs[place])
    room = num_ranks * micro_packs
    together = [falling[micro * room : (micro + 1) * room] for micro in range(num_micro_steps)]
    together.sort(key=lambda places: 0 not in places)
    dealt: list[list[list[int]]] = [[] for _ in range(num_ranks)]
    so_far = [0.0] * num_ranks
    for places in together:
        micro_batches = _even(places, costs, num_ranks)
        loads = [sum(costs[place] for place in micro_batch) for micro_batch in micro_batches]
        heaviest = sorted(range(num_ranks), key=lambda number: -loads[number])
        idlest = sorted(range(num_ranks), key=so_far.__getitem__)
        for number, rank in zip(heaviest, idlest, strict=True):
            dealt[rank].append(micro_batches[number])
            so_far[rank] += loads[number]
    return dealt


def _even(falling: list[int], costs: Sequence[float], count: int) -> list[list[int]]:
    """Places in the order of falling costs as `count` micro-batches: by turns one to each, the next to the least."""
    micro_batches: list[list[int]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for start in range(0, len(falling), count):
        lightest = sorted(range(count), key=loads.__getitem__)
        for place, number in zip(falling[start : start + count], lightest, strict=False):
            micro_batches[number].append(place)
            loads[number] += costs[place]
    return micro_batches


def collate(packs: Packs, indices: Sequence[int]) -> Batch:
    """Lay packs in one row. Without any, gives the first without its targets, so that the rank still takes part.

    A row as long as others: for one of a few tokens torch.compile would compile the layers anew.
    """
    if not indices:
        return _batch([replace(packs[0], is_target=np.zeros_like(packs[0].is_target))])
    return _batch([packs[index] for index in indices])


class Ahead:
    """Batches made by a thread while the device computes, and how long they were waited for."""

    def __init__(self, packs: Packs, device: torch.device) -> None:
        self._packs, self._device = packs, device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._coming: deque[Future[Batch]] = deque()
        self._waited_s = 0.0

    def ask(self, step: Step) -> None:
        """Have a step's micro-batches made."""
        self._coming.extend(self._thread.submit(self._make, indices) for indices in step.micro_batches)

    def take(self) -> Batch:
        """The next of those asked for, on the device."""
        started = time.perf_counter()
        batch = self._coming.popleft().result()
        self._waited_s += time.perf_counter() - started
        return batch.to(self._device)

    def take_waited(self) -> float:
        """Seconds that `take` waited since the last call."""
        waited, self._waited_s = self._waited_s, 0.0
        return waited

    def close(self) -> None:
        """Let go of what was asked for and not taken."""
        self._thread.shutdown(cancel_futures=True)

    def _make(self, indices: Sequence[int]) -> Batch:
        batch = collate(self._packs, indices)
        return batch.pinned() if self._device.type == "cuda" else batch


def _batch(packs: list[Pack]) -> Batch:
    ids = np.concatenate([pack.input_ids for pack in packs]).astype(np.int64)
    lengths = np.concatenate([pack.seq_lengths for pack in packs])
    ends = np.cumsum(lengths)
    starts = ends - lengths
    targets = np.flatnonzero(np.concatenate([pack.is_target for pack in packs]))
    labels, predicting = ids[targets], targets - 1
    if len(targets) == 0:  # a loss of exactly 0 that still reaches every parameter
        labels, predicting = np.array([IGNORED_LABEL]), np.array([0])
    return Batch(
        input_ids=torch.from_numpy(ids)[None],
        position_ids=torch.from_numpy(np.arange(len(ids)) - np.repeat(starts, lengths))[None],
        cu_seqlens=torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32)),
        predicting=torch.from_numpy(predicting),
        labels=torch.from_numpy(labels),
        seq_lengths=tuple(lengths.tolist()),
        num_targets=len(targets),
    )


def _splitmix64(x: Any) -> Any:
    """The finalizer of Steele, Lea and Flood (2014), as in java.util.SplittableRandom."""
    x = np.asarray(x, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
