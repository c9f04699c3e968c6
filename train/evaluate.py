"""Held-out packs in, their loss out: the mean over all targets of the split, on all ranks, and that of each source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed

from train.batch import Plan, collate
from train.launch import Ranks
from train.load import Packs
from train.loss import target_losses


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Losses in nats, means over targets."""

    loss: float
    by_source: dict[str, float]  # of the sources that have targets here


def held_out_loss(engine: Any, packs: Packs, sources: Sequence[str], plan: Plan, ranks: Ranks) -> HeldOut:
    """The losses over the split's targets; every rank takes part and gets them. `sources` are the manifest's."""
    num_micro_steps = -(-len(packs) // (plan.micro_packs * plan.num_ranks))
    mine = plan.dealt(np.arange(len(packs)), packs, num_micro_steps)[ranks.rank]
    sums = torch.zeros(2, max(1, len(sources)), dtype=torch.float64, device=ranks.device)
    engine.eval()
    for index, indices in enumerate(mine):
        ranks.sign.at("held-out loss", patient=index == 0)  # kernels may be compiled
        add_losses(sums, engine, packs, indices)
    engine.train()
    ranks.sign.at("sum of held-out losses", patient=False)
    torch.distributed.all_reduce(sums)
    losses, counts = sums.tolist()
    return HeldOut(
        loss=sum(losses) / max(1.0, sum(counts)),
        by_source={name: loss / count for name, loss, count in zip(sources, losses, counts, strict=False) if count > 0},
    )


def add_losses(sums: torch.Tensor, model: Any, packs: Packs, indices: Sequence[int]) -> None:
    """Add to `sums` (2, sources) each source's summed loss, in nats, and its number of targets, of some packs."""
    batch = collate(packs, indices).to(sums.device)
    with torch.no_grad():
        losses = target_losses(model, batch).to(sums.dtype)
    if batch.num_targets:
        sources = torch.from_numpy(np.concatenate([sources_of_targets(packs, index) for index in indices]))
        sums[0].index_add_(0, sources.to(sums.device), losses)
        sums[1] += sources.bincount(minlength=sums.shape[1]).to(sums)


def sources_of_targets(packs: Packs, index: int) -> np.ndarray:
    """The source of each target of a pack, in order, as int64."""
    pack = packs[index]
    return np.repeat(packs.source_ids(index), pack.seq_lengths)[pack.is_target].astype(np.int64)
