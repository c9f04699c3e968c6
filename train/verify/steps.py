"""Optimizer steps through the trainer's own engine and loop, and what they came to; on one rank or several."""

import gc
import hashlib
import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.distributed

from train.batch import Plan
from train.checkpoint import Checkpoint, load_state
from train.config import RunConfig, settle
from train.cost import pack_cost
from train.engine import build_engine
from train.evaluate import held_out_loss
from train.gauges import Gauges
from train.hub import ModelFiles
from train.launch import Ranks, share
from train.load import Packs
from train.log import StepRecord
from train.loop import train_steps
from train.model import read_shape
from train.saving import Saver

BATCH_PACKS, NUM_STEPS = 4, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What two steps came to, or the second alone."""

    losses: list[float]
    norms: list[float]
    loss_after: float  # over all packs, with the weights as they are then
    weights: str  # SHA-256 of them

    def numbers(self) -> list[float]:
        """All that is compared up to rounding."""
        return [*self.losses, *self.norms, self.loss_after]


def config_of(name: str, seq_len: int, ranks: Ranks) -> RunConfig:
    """The settings of a run with its defaults, but for a batch of four packs and a rate at which weights move."""
    flags = {"shards": Path(), "batch_packs": BATCH_PACKS, "steps": NUM_STEPS, "learning_rate": 1e-4, "zero": 1}
    on_gpu = ranks.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    schedule = {"micro_packs": 1, "schedule": "constant", "warmup_steps": 0, "save_every": 0}
    config = settle(
        Namespace(**flags, **schedule),
        {},
        model=name,
        seq_len=seq_len,
        num_ranks=ranks.num_ranks,
        has_bf16_gpu=on_gpu,
    )
    return replace(config, free=())


def take_steps(
    files: ModelFiles,
    packs: Packs,
    sources: Sequence[str],
    config: RunConfig,
    ranks: Ranks,
    *,
    saver: Saver | None = None,
    go_on_from: Path | None = None,
) -> Taken:
    """Take both steps; `sources` are the manifest's.

    `saver` begins to keep a checkpoint after the first, `go_on_from` begins behind that of another call. Every rank
    calls this and gets the same.
    """
    shape = read_shape(files)
    engine = build_engine(files, shape, config, {}, ranks).deepspeed
    _without_dropout(engine.module)
    first = 0
    if go_on_from is not None:
        [folder] = (go_on_from / "checkpoints").glob("step-*")
        load_state(engine, folder)
        first = 1
    records: list[StepRecord] = []

    def on_step(done: int) -> None:
        if done == 1 and saver is not None:
            saver.save(engine, _checkpoint(config))

    plan = Plan(
        num_packs=len(packs),
        batch_packs=config.batch_packs,
        micro_packs=config.micro_packs,
        num_ranks=ranks.num_ranks,
        cost=pack_cost(shape),
    )
    gauges = Gauges.of(shape, ranks)
    train_steps(engine, packs, plan, config, ranks, NUM_STEPS, gauges, records.extend, on_step, first)
    after = held_out_loss(engine, packs, sources, plan, ranks).loss
    taken = Taken(
        losses=[record.loss for record in records],
        norms=[record.grad_norm or 0.0 for record in records],
        loss_after=after,
        weights=_digest(engine.module),
    )
    engine.destroy()
    gc.collect()  # for the memory of the next one
    return taken


def write_taken(taken: Taken, path: Path, ranks: Ranks) -> None:
    """Leave the numbers for the process that started the ranks."""
    if ranks.is_first:
        path.write_text(json.dumps(asdict(taken)), encoding="utf-8")
    share(ranks, "written" if ranks.is_first else None)


def read_taken(path: Path) -> Taken:
    """What `write_taken` left."""
    return Taken(**json.loads(path.read_text(encoding="utf-8")))


def _without_dropout(module: torch.nn.Module) -> None:
    """Dropout falls otherwise on each rank, so nothing could be compared."""
    for each in module.modules():
        for name in ("p", "attention_dropout"):
            if isinstance(getattr(each, name, None), float):
                setattr(each, name, 0.0)


def _digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for parameter in module.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _checkpoint(config: RunConfig) -> Checkpoint:
    return Checkpoint(
        step=1,
        epoch=0,
        packs_consumed=config.batch_packs,
        num_ranks=config.num_ranks,
        zero=config.zero,
        seconds=0.0,
        evals=[],
        options={},
        fingerprint="",
    )
