"""Held-out packs in, their loss out: the mean over all targets of the split, on all ranks."""

from typing import Any

import torch
import torch.distributed

from train.batch import collate, deal
from train.config import RunConfig
from train.launch import Ranks
from train.load import Packs
from train.loss import summed_loss


def held_out_loss(engine: Any, packs: Packs, config: RunConfig, ranks: Ranks) -> float:
    """The mean loss over the split's targets, in nats; every rank takes part and gets it."""
    num_micro_steps = -(-len(packs) // (config.micro_packs * config.num_ranks))
    mine = deal(range(len(packs)), ranks.rank, ranks.num_ranks, config.micro_packs, num_micro_steps)
    total = torch.zeros((), dtype=torch.float64, device=ranks.device)
    engine.eval()
    with torch.no_grad():
        for index, indices in enumerate(mine):
            ranks.sign.at("held-out loss", patient=index == 0)  # kernels may be compiled
            total += summed_loss(engine, collate(packs, indices).to(ranks.device))
    engine.train()
    ranks.sign.at("sum of held-out losses", patient=False)
    torch.distributed.all_reduce(total)
    return total.item() / max(1, int(packs.num_targets.sum()))
