"""What a run says and makes before its first step: its folder, and what was found and chosen in a few lines."""

import shutil
from pathlib import Path

import torch

from schemas.errors import TrainError
from train.batch import Plan
from train.checkpoint import Checkpoint
from train.config import RunConfig
from train.engine import Engine
from train.load import Shards
from train.model import ModelShape
from train.planner import Forecast


def opening_lines(
    config: RunConfig, shards: Shards, plan: Plan, engine: Engine, forecast: Forecast | None
) -> list[str]:
    """Model, data, steps, kernels and what is expected, a line each."""
    packs, tokens, targets = len(shards.train), int(shards.train.num_tokens.sum()), int(shards.train.num_targets.sum())
    num_steps = config.num_steps(packs)
    val = f"{len(shards.val):,} packs held out" if shards.val is not None else "none held out, so no held-out loss"
    epochs = num_steps / plan.steps_an_epoch
    micro = f"{config.num_ranks} ranks x {config.num_micro_steps} micro-batches of {config.micro_packs}"
    precision = f"{config.precision}, ZeRO-{config.zero}"
    if config.offload_optimizer or config.offload_parameters:
        parts = {"weights": config.offload_parameters, "optimizer": config.offload_optimizer}
        precision += f", {' and '.join(name for name, is_away in parts.items() if is_away)} in CPU memory"
    trained = config.method.line(engine.num_trained, engine.num_parameters, engine.adapted)
    lines = [
        f"model      {config.model}: {engine.num_parameters:,} parameters, {precision}",
        *([f"trained    {trained}"] if engine.num_trained != engine.num_parameters else []),
        *_new_tokens_line(engine),
        f"data       {packs:,} packs of up to {config.seq_len:,} tokens; {tokens:,} tokens, {targets:,} targets; {val}",
        f"steps      {num_steps:,} ({epochs:.3g} epochs), {config.batch_packs} packs each: {micro}",
        f"attention  {engine.kernels.attention}; it never crosses examples",
        f"layers     {engine.kernels.layers}; head: {engine.kernels.head}",
    ]
    if forecast is not None:
        lines.append(f"expected   {forecast.line()}")
    room = config.num_ranks * config.num_micro_steps * config.micro_packs
    if room - config.batch_packs >= config.micro_packs and config.num_micro_steps > 1:
        idle = (room - config.batch_packs) / room
        lines.append(f"note       {idle:.0%} of the ranks' time is idle; --batch-packs {room} would use it")
    return lines


def make_folder(out: Path, done: int, shape: ModelShape, config: RunConfig) -> None:
    """Make the run's folder; without what a run logged there that left nothing to go on from.

    Raises TrainError where there is no room for what the run will leave: better now than when it is done.
    """
    try:
        if not done:
            shutil.rmtree(out / "tensorboard", ignore_errors=True)
        (out / "tensorboard").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{out}: can't be written: {error.strerror}; choose another --out") from error
    whole = config.method.lora is None or config.method.lora.merge
    needed = (shape.num_parameters if whole else shape.num_trained) * (shape.dtype or torch.bfloat16).itemsize
    free = shutil.disk_usage(out).free
    if free < needed:
        raise TrainError(
            f"{out}: the trained weights take {needed / 1e9:,.1f} GB and the disk has {free / 1e9:,.1f} GB free; free "
            "space there, or choose another --out"
        )


def going_on(out: Path, checkpoint: Checkpoint, config: RunConfig, num_steps: int) -> str:
    """From which checkpoint an earlier run is continued, in a line."""
    line = f"resume     from step {checkpoint.step:,} of {num_steps:,}: {out / 'checkpoints' / checkpoint.name}"
    if checkpoint.num_ranks != config.num_ranks:
        line += f", written by {checkpoint.num_ranks} rank{'s' if checkpoint.num_ranks > 1 else ''}"
    return line


def _new_tokens_line(engine: Engine) -> list[str]:
    if not engine.num_new_tokens:
        return []
    return [f"vocabulary {engine.num_new_tokens} more embeddings, for tokens that were added to the tokenizer"]
