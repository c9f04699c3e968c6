"""Held-out packs in, their loss out: the mean over all targets of the split, on all ranks."""

from typing import Any

import numpy as np
import torch
import torch.distributed

from train.batch import Plan, collate
from train.launch import Ranks
from train.load import Packs
from train.loss import summed_loss


def held_out_loss(engine: Any, packs: Packs, plan: Plan, ranks: Ranks) -> float:
    """The mean loss over the split's targets, in nats; every rank takes part and gets it."""
    num_micro_steps = -(-len(packs) // (plan.micro_packs * plan.num_ranks))
    mine = plan.dealt(np.arange(len(packs)), packs, num_micro_steps)[ranks.rank]
    total = torch.zeros((), dtype=torch.float64, device=ranks.device)
    engine.eval()
    with torch.no_grad():
        for indices in mine:
            total += summed_loss(engine, collate(packs, indices).to(ranks.device))
    engine.train()
    torch.distributed.all_reduce(total)
    return total.item() / max(1, int(packs.num_targets.sum()))
