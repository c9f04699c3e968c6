"""The training loop: packs to micro-batches to optimizer steps, with one loss over all targets of a step.

The loss of a step is the sum over its targets, on all ranks and micro-batches, divided by their number, which each rank
reads from the shards. DeepSpeed averages gradients over ranks, so each rank's share is multiplied by their number.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed

from schemas.errors import TrainError
from train.batch import Ahead, Plan, Step, pack_order, step_seed
from train.config import RunConfig
from train.gauges import Gauges
from train.launch import Ranks
from train.load import Packs
from train.log import StepRecord
from train.loss import summed_loss
from train.optimizer import learning_rate, set_rate


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
    gauges: Gauges,
    on_records: Callable[[list[StepRecord]], None],
    on_step: Callable[[int], bool | None],
    first_step: int = 0,
    is_due: Callable[[int], bool] = lambda done: False,
) -> None:
    """Take optimizer steps `first_step` (from 0) up to `num_steps`; every rank calls this.

    `on_records` gets the numbers of the steps, some steps late, but at once where `is_due` says of the number done that
    something rests on them. `on_step` is called after each; the time it takes is not counted as training, and True
    ends it. Raises TrainError when the loss is no longer a number.
    """
    every = max(1, min(10, num_steps // 50))
    pending: list[_Pending] = []
    ahead, steps = Ahead(packs, ranks.device), _steps(packs, plan, config, ranks, range(first_step, num_steps))
    coming: Step | None = next(steps)
    if ranks.device.type == "cuda":
        torch.cuda.synchronize()
    gauges.clock.take()  # what the probes took
    engine.train()  # transformers loads models in evaluation mode, in which gradients are not checkpointed
    started = time.perf_counter()
    try:
        for index in range(first_step, num_steps):
            step, coming = coming, next(steps, None)
            is_first = index == first_step  # kernels may be compiled
            assert step is not None
            if is_first:
                ahead.ask(step)
            if coming is not None:
                ahead.ask(coming)
            torch.manual_seed(step_seed(config.seed, index, ranks.rank))
            pending.append(_take_step(engine, ahead, step, num_steps, config, ranks, patient=is_first))
            ranks.sign.at("end of the step", patient=is_first)
            if is_due(index + 1) or len(pending) == every or index + 1 == num_steps:
                records = _read(pending, ranks, gauges, ahead, started)
                on_records(records)
                check_numbers(records, config, [each.step.packs for each in pending])
                pending, started = [], time.perf_counter()
            before = time.perf_counter()
            ranks.sign.at("after the step")
            if on_step(index + 1):
                break
            started += time.perf_counter() - before
    finally:
        ahead.close()


def _steps(packs: Packs, plan: Plan, config: RunConfig, ranks: Ranks, indices: range) -> Iterator[Step]:
    epoch, order = -1, np.zeros(0, dtype=np.int64)
    for index in indices:
        if index // plan.steps_an_epoch != epoch:
            epoch = index // plan.steps_an_epoch
            order = pack_order(len(packs), config.seed, epoch, packs.heaviest)
        yield plan.step(index, ranks.rank, packs, order)


def check_numbers(records: list[StepRecord], config: RunConfig, packs: Sequence[Sequence[int]]) -> None:
    """Raise TrainError where a loss or a gradient norm is no longer a number; `packs` are those of each step.

    In fp16 a norm may be: DeepSpeed then skips the step and scales the loss down.
    """
    for record, taken in zip(records, packs, strict=True):
        measures = {"loss": record.loss} | ({} if config.precision == "fp16" else {"gradient norm": record.grad_norm})
        for name, value in measures.items():
            if value is not None and not math.isfinite(value):
                raise TrainError(
                    f"the {name} of step {record.step} is {value}; lower --learning-rate, use --precision fp32, or "
                    f"look at its packs, {_listed(taken)}: dataprep inspect {config.shards} --pack {taken[0]}"
                )


def _listed(packs: Sequence[int], most: int = 16) -> str:
    """7, 4, 12, and how many more."""
    shown = ", ".join(map(str, packs[:most]))
    return shown if len(packs) <= most else f"{shown} and {len(packs) - most} more"


def _take_step(
    engine: Any, ahead: Ahead, step: Step, num_steps: int, config: RunConfig, ranks: Ranks, *, patient: bool
) -> _Pending:
    rate = learning_rate(config, step.index, num_steps)
    set_rate(engine.optimizer.param_groups, rate)
    share = ranks.num_ranks / max(1, step.num_targets)
    loss_sum = torch.zeros((), dtype=torch.float32, device=ranks.device)
    for _ in step.micro_batches:
        ranks.sign.at("waiting for data", step.index + 1, patient=patient)
        batch = ahead.take()
        ranks.sign.at("forward pass", patient=patient)
        loss = summed_loss(engine, batch, config.method.label_smoothing)
        ranks.sign.at("backward pass", patient=patient)
        engine.backward(loss * share, scale_wrt_gas=False)
        ranks.sign.at("gradients and optimizer", patient=patient)
        engine.step()
        loss_sum += loss.detach()
    return _Pending(
        step=step,
        learning_rate=rate,
        loss_sum=loss_sum,
        grad_norm=engine.get_global_grad_norm(),
    )


def _read(pending: list[_Pending], ranks: Ranks, gauges: Gauges, ahead: Ahead, started: float) -> list[StepRecord]:
    """Bring the numbers of several steps from the device at once."""
    sums = torch.stack([each.loss_sum for each in pending]).double()
    torch.distributed.all_reduce(sums)
    totals = sums.tolist()
    seconds = time.perf_counter() - started
    tokens, targets = sum(each.step.num_tokens for each in pending), sum(each.step.num_targets for each in pending)
    mfu = gauges.mfu(tokens, sum(each.step.squares for each in pending), seconds)
    waiting, communication = ahead.take_waited() / seconds, gauges.clock.take() / seconds
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
            mfu=mfu,
            memory_gib=gauges.memory_gib(),
            waiting=waiting,
            communication=communication,
        )
        for each, total in zip(pending, totals, strict=True)
    ]
