"""A training session on every rank, from the model's files to the finished folder: model, measures, report."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from schemas.errors import TrainError
from train.batch import Plan
from train.config import RunConfig
from train.engine import Engine, build_engine
from train.evaluate import held_out_loss
from train.export import export_adapter, export_files, export_model
from train.gauges import Gauges
from train.hub import ModelFiles
from train.launch import Ranks
from train.load import Shards
from train.log import RunLog, StepRecord
from train.loop import train_steps
from train.model import ModelShape, shape_as_trained
from train.planner import Forecast, choose, step_work
from train.proof import ExportProof
from train.summary import RunSummary, write_summary


def train_session(
    config: RunConfig, content: dict[str, Any], shards: Shards, files: ModelFiles, out: Path, ranks: Ranks
) -> None:
    """Train and leave OUT/model, OUT/metrics.jsonl, OUT/tensorboard and OUT/summary.html; every rank calls this.

    `content` is the user's DeepSpeed file. Raises TrainError when memory runs out or the loss is no longer a number.
    """
    shape = shape_as_trained(files, config.method)
    gauges, forecast = Gauges.of(shape, ranks), None
    if gauges.gpu is not None:
        forecast = choose(config, shape, gauges.gpu, step_work(config, shards.train))
        config = forecast.config
    elif config.checkpointed_layers < 0:
        config = replace(config, checkpointed_layers=shape.num_layers)
    plan = Plan(
        num_packs=len(shards.train),
        batch_packs=config.batch_packs,
        micro_packs=config.micro_packs,
        num_ranks=ranks.num_ranks,
    )
    num_steps = config.steps or config.epochs * plan.steps_an_epoch
    if ranks.is_first:
        _make_folder(out)
    with _memory_told(config):
        engine = build_engine(files, shape, config, content, ranks)
        log = None
        if ranks.is_first:
            print("\n".join(_opening_lines(config, shards, plan, engine, forecast)), flush=True)
            log = RunLog(out, num_steps)
        watch = _Watch(
            config=config,
            shards=shards,
            shape=shape,
            files=files,
            engine=engine,
            ranks=ranks,
            out=out,
            log=log,
            num_steps=num_steps,
        )
        started = time.perf_counter()
        try:
            watch.evaluate(0)
            train_steps(
                engine.deepspeed, shards.train, plan, config, ranks, num_steps, gauges, watch.on_records, watch.on_step
            )
        finally:
            if log is not None:
                log.close()
    seconds = time.perf_counter() - started
    folder = out / ("adapter" if config.method.lora else "model")
    proof = watch.export(folder)
    if config.method.lora is not None and config.method.lora.merge:
        folder, proof = out / "model", watch.merge(out / "adapter", out / "model")
    if log is not None and proof is not None:
        summary = RunSummary.of(
            config, shards, log, num_parameters=engine.num_parameters, seconds=seconds, export=proof
        )
        write_summary(out, summary, log)
        lines = [
            summary.line(),
            f"model      {folder}",
            f"checked    {proof.line()}",
            f"report     {out / 'summary.html'}",
        ]
        print("\n".join(lines), flush=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Watch:
    """What happens beside the steps: measures, held-out losses, checkpoints."""

    config: RunConfig
    shards: Shards
    shape: ModelShape
    files: ModelFiles
    engine: Engine
    ranks: Ranks
    out: Path
    log: RunLog | None  # rank 0's
    num_steps: int

    def on_records(self, records: list[StepRecord]) -> None:
        if self.log is not None:
            self.log.log_steps(records)

    def on_step(self, done: int) -> None:
        eval_every = self.config.eval_every or -(-self.num_steps // 4)
        if done % eval_every == 0 or done == self.num_steps:
            self.evaluate(done)
        if self.config.save_every and done % self.config.save_every == 0 and done != self.num_steps:
            folder = self.out / "checkpoints" / f"step-{done:06d}"
            self.export(folder)

    def export(self, folder: Path) -> ExportProof | None:
        """Write what was trained so far, a model or an adapter; every rank calls this, rank 0 gets what was seen."""
        write = export_model if self.config.method.lora is None else export_adapter
        return write(self.engine.deepspeed, folder, self.files, self.shards, self.ranks)

    def merge(self, adapter: Path, folder: Path) -> ExportProof | None:
        """Write the model that the adapter makes of its base; rank 0 does it, on the CPU."""
        files = replace(self.files, adapter=adapter)
        return export_files(files, folder, self.shards) if self.ranks.is_first else None

    def evaluate(self, step: int) -> None:
        if self.shards.val is not None:
            loss = held_out_loss(self.engine.deepspeed, self.shards.val, self.config, self.ranks)
            if self.log is not None:
                self.log.log_eval(step, loss)


def _opening_lines(
    config: RunConfig, shards: Shards, plan: Plan, engine: Engine, forecast: Forecast | None
) -> list[str]:
    packs, tokens, targets = len(shards.train), int(shards.train.num_tokens.sum()), int(shards.train.num_targets.sum())
    num_steps = config.steps or config.epochs * plan.steps_an_epoch
    val = f"{len(shards.val):,} packs held out" if shards.val is not None else "none held out, so no held-out loss"
    epochs = num_steps / plan.steps_an_epoch
    micro = f"{config.num_ranks} ranks x {config.num_micro_steps} micro-batches of {config.micro_packs}"
    precision = f"{config.precision}, ZeRO-{config.zero}"
    if config.offload_optimizer:
        precision += ", optimizer in CPU memory"
    trained = config.method.line(engine.num_trained, engine.num_parameters, engine.adapted)
    lines = [
        f"model      {config.model}: {engine.num_parameters:,} parameters, {precision}",
        *([f"trained    {trained}"] if engine.num_trained != engine.num_parameters else []),
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


def _make_folder(out: Path) -> None:
    """Make the run's folder, without what an unfinished run logged there."""
    try:
        shutil.rmtree(out / "tensorboard", ignore_errors=True)
        (out / "tensorboard").mkdir(parents=True)
    except OSError as error:
        raise TrainError(f"{out}: can't be written: {error.strerror}; choose another --out") from error


@contextmanager
def _memory_told(config: RunConfig) -> Iterator[None]:
    """Say what helps when a GPU's memory runs out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        ways = [
            "--micro-packs 1" if config.micro_packs > 1 else None,
            None if config.checkpointed_layers else "--gradient-checkpointing all",
            "--zero 3" if config.num_ranks > 1 and config.zero < 3 else None,
            None if config.offload_optimizer else "--offload-optimizer",
            "a smaller `dataprep tokenize --seq-len`",
        ]
        raise TrainError(f"the GPU's memory ran out; try {', or '.join(way for way in ways if way)}") from error
