"""A training session on every rank, from the model's files to the finished folder: model, measures, report."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from schemas.errors import TrainError
from train.background import Background
from train.batch import Plan
from train.best import Best
from train.checkpoint import Checkpoint, load_state
from train.config import RunConfig
from train.cost import pack_cost
from train.engine import Engine, build_engine
from train.finish import finish
from train.gauges import Gauges
from train.gpus import GIB
from train.history import History
from train.hub import ModelFiles
from train.launch import Ranks
from train.load import Shards
from train.log import RunLog
from train.loop import train_steps
from train.memory import moment_bytes
from train.model import ModelShape, shape_as_trained, shape_for
from train.opening import going_on, make_folder, opening_lines
from train.optimizer import hold_moments
from train.planner import Forecast, choose, step_work
from train.requests import Requests
from train.resume import needs_conversion, state_for
from train.saving import Saver
from train.summary import RunReport, plain_config
from train.trackers import begin_trackers
from train.watch import Watch


def train_session(
    config: RunConfig,
    content: dict[str, Any],
    shards: Shards,
    files: ModelFiles,
    out: Path,
    ranks: Ranks,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train and leave OUT/model, OUT/metrics.jsonl, OUT/tensorboard and OUT/summary.html; every rank calls this.

    `content` is the user's DeepSpeed file; from `checkpoint` on an earlier run is continued. Raises TrainError when
    memory runs out or the loss is no longer a number, Stopped when a signal ended it.
    """
    shape = shape_for(shape_as_trained(files, config.method), shards)
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
        cost=pack_cost(shape),
    )
    done = checkpoint.step if checkpoint is not None else 0
    trackers = None
    if ranks.is_first:
        make_folder(out, done, shape, config)
        trackers = begin_trackers(config.log_to, out, plain_config(config))
        if gauges.gpu is not None:
            print("starting   loading the model and compiling its kernels, which takes about a minute", flush=True)
    with _memory_told(config):
        engine = _engine_at(checkpoint, files, shape, config, content, out, ranks)
    log = report = None
    if ranks.is_first:
        log = RunLog(out, config.num_steps(len(shards.train)), done, trackers)
        report = _begin_report(config, shards, engine, plan, forecast, out, ranks, checkpoint, log)
    watch = _begin_watch(config, shards, files, engine, plan, out, ranks, checkpoint, log)
    with report.kept() if report is not None else nullcontext():
        with _memory_told(config):
            _train(watch, gauges, done)
        finish(watch, files, report)


def _begin_report(
    config: RunConfig,
    shards: Shards,
    engine: Engine,
    plan: Plan,
    forecast: Forecast | None,
    out: Path,
    ranks: Ranks,
    checkpoint: Checkpoint | None,
    log: RunLog,
) -> RunReport:
    """Say what was set up; gives what the run's page will be made from."""
    num_steps, done = config.num_steps(len(shards.train)), 0
    set_up = opening_lines(config, shards, plan, engine, forecast)
    print("\n".join(set_up), flush=True)
    if checkpoint is not None:
        done = checkpoint.step
        print(going_on(out, checkpoint, config, num_steps), flush=True)
    return RunReport(
        out=out,
        config=config,
        shards=shards,
        engine=engine,
        log=log,
        history=History(out, ranks, done),
        num_steps=num_steps,
        seconds=checkpoint.seconds if checkpoint is not None else 0.0,
        set_up=set_up,
    )


def _begin_watch(
    config: RunConfig,
    shards: Shards,
    files: ModelFiles,
    engine: Engine,
    plan: Plan,
    out: Path,
    ranks: Ranks,
    checkpoint: Checkpoint | None,
    log: RunLog | None,
) -> Watch:
    """What happens beside the steps, from the beginning or as the checkpoint has it."""
    background = Background(ranks)
    return Watch(
        config=config,
        shards=shards,
        engine=engine,
        ranks=ranks,
        out=out,
        plan=plan,
        num_steps=config.num_steps(len(shards.train)),
        log=log,
        requests=Requests(ranks, by_time=config.save_every is None),
        background=background,
        saver=Saver(out, ranks, config.keep, background, with_frozen=engine.num_new_tokens > 0),
        best=Best(out / "best", files, shards, ranks, background),
        evals=list(checkpoint.evals) if checkpoint is not None else [],
        seconds=checkpoint.seconds if checkpoint is not None else 0.0,
        saved=checkpoint.step if checkpoint is not None else 0,
    )


def _engine_at(
    checkpoint: Checkpoint | None,
    files: ModelFiles,
    shape: ModelShape,
    config: RunConfig,
    content: dict[str, Any],
    out: Path,
    ranks: Ranks,
) -> Engine:
    """The engine as it was at the checkpoint, or at the beginning."""
    if checkpoint is None:
        engine = build_engine(files, shape, config, content, ranks)
        if ranks.device.type == "cuda" and config.optimizer is None and not config.offload_optimizer:
            hold_moments(engine.deepspeed.optimizer, moment_bytes(config, shape), ranks.device)
        return engine
    if needs_conversion(checkpoint, config):
        content = content | {"checkpoint": content.get("checkpoint", {}) | {"load_universal": True}}
    with state_for(out, checkpoint, config, ranks) as folder:
        engine = build_engine(files, shape, config, content, ranks)
        load_state(engine.deepspeed, folder)
    return engine


def _train(watch: Watch, gauges: Gauges, done: int) -> None:
    """Take the steps that are left."""
    config, train = watch.config, watch.shards.train
    steps = watch.plan, config, watch.ranks, watch.num_steps
    if done == 0:
        watch.evaluate(0)
    if done == watch.num_steps or watch.had_enough():
        return
    try:
        with watch.background.finishing(), watch.requests.listening():
            engine = watch.engine.deepspeed
            train_steps(engine, train, *steps, gauges, watch.on_records, watch.on_step, done, watch.is_due)
    except TrainError as error:
        if not watch.saved:
            raise
        raise TrainError(f"{error}; the last good checkpoint is step {watch.saved}'s in {watch.out}") from error


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
        used, held = torch.cuda.max_memory_reserved() / GIB, torch.cuda.mem_get_info()[1] / GIB
        raise TrainError(
            f"the GPU's memory ran out at {used:.1f} of {held:.1f} GiB; try {', or '.join(way for way in ways if way)}"
        ) from error
