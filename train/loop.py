"""The training loop: packs to micro-batches to optimizer steps, with one loss over all targets of a step.

The loss of a step is the sum over its targets, on all ranks and micro-batches, divided by their number, which each rank
reads from the shards. DeepSpeed averages gradients over ranks, so each rank's share is multiplied by their number.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed

from schemas.errors import TrainError
from train.batch import Plan, Step, collate, pack_order
from train.config import RunConfig
from train.launch import Ranks
from train.load import Packs
from train.log import StepRecord
from train.loss import summed_loss
from train.optimizer import learning_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pending:
    """A step that was launched; its numbers may still be on the device."""

    step: Step
    learning_rate: float
    loss_sum: torch.Tensor  # of this rank
    grad_norm: Any


def train_steps(
    engine: Any,
    packs: Packs,
    plan: Plan,
    config: RunConfig,
    ranks: Ranks,
    num_steps: int,
    on_records: Callable[[list[StepRecord]], None],
    on_step: Callable[[int], None],
) -> None:
    """Take `num_steps` optimizer steps; every rank calls this.

    `on_records` gets the numbers of the steps, some steps late. `on_step` is called after each with the number done;
    the time it takes is not counted as training. Raises TrainError when the loss is no longer a number.
    """
    every = max(1, min(10, num_steps // 50))
    pending: list[_Pending] = []
    order, epoch = pack_order(len(packs), config.seed, 0), 0
    engine.train()  # transformers loads models in evaluation mode, in which gradients are not checkpointed
    started = time.perf_counter()
    for index in range(num_steps):
        if index // plan.steps_an_epoch != epoch:
            epoch = index // plan.steps_an_epoch
            order = pack_order(len(packs), config.seed, epoch)
        step = plan.step(index, ranks.rank, packs, order)
        pending.append(_take_step(engine, packs, step, learning_rate(config, index, num_steps), ranks))
        if len(pending) == every or index + 1 == num_steps:
            records = _read(pending, ranks, started)
            on_records(records)
            check_numbers(records, config.precision)
            pending, started = [], time.perf_counter()
        before = time.perf_counter()
        on_step(index + 1)
        started += time.perf_counter() - before


def check_numbers(records: list[StepRecord], precision: str) -> None:
    """Raise TrainError where a loss or a gradient norm is no longer a number.

    In fp16 a norm may be: DeepSpeed then skips the step and scales the loss down.
    """
    for record in records:
        measures = {"loss": record.loss} | ({} if precision == "fp16" else {"gradient norm": record.grad_norm})
        for name, value in measures.items():
            if value is not None and not math.isfinite(value):
                raise TrainError(
                    f"the {name} of step {record.step} is {value}; lower --learning-rate, or use --precision fp32"
                )


def _take_step(engine: Any, packs: Packs, step: Step, rate: float, ranks: Ranks) -> _Pending:
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    share = ranks.num_ranks / max(1, step.num_targets)
    loss_sum = torch.zeros((), dtype=torch.float32, device=ranks.device)
    for indices in step.micro_batches:
        loss = summed_loss(engine, collate(packs, indices).to(ranks.device))
        engine.backward(loss * share, scale_wrt_gas=False)
        engine.step()
        loss_sum += loss.detach()
    return _Pending(
        step=step,
        learning_rate=rate,
        loss_sum=loss_sum,
        grad_norm=engine.get_global_grad_norm(),
    )


def _read(pending: list[_Pending], ranks: Ranks, started: float) -> list[StepRecord]:
    """Bring the numbers of several steps from the device at once."""
    sums = torch.stack([each.loss_sum for each in pending]).double()
    torch.distributed.all_reduce(sums)
    totals = sums.tolist()
    seconds = time.perf_counter() - started
    tokens, targets = sum(each.step.num_tokens for each in pending), sum(each.step.num_targets for each in pending)
    return [
        StepRecord(
            step=each.step.index + 1,
            epoch=each.step.epoch + 1,
            loss=total / max(1, each.step.num_targets),
            learning_rate=each.learning_rate,
            grad_norm=None if each.grad_norm is None else float(each.grad_norm),
            targets=each.step.num_targets,
            tokens=each.step.num_tokens,
            tokens_per_s=tokens / seconds,
            targets_per_s=targets / seconds,
        )
        for each, total in zip(pending, totals, strict=True)
    ]
