"""A training session on every rank, from the model's files to the finished folder: model, measures, report."""

import shutil
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
from train.export import export, export_files, take
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
from train.optimizer import drop_moments, hold_moments
from train.page.view import Outcome
from train.planner import Forecast, choose, step_work
from train.proof import prove_export
from train.requests import Requests
from train.resume import needs_conversion, state_for
from train.samples import take_samples
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
    num_steps = config.num_steps(len(shards.train))
    done = checkpoint.step if checkpoint is not None else 0
    trackers = None
    if ranks.is_first:
        _make_folder(out, done, shape, config)
        trackers = begin_trackers(config.log_to, out, plain_config(config))
    if ranks.is_first and gauges.gpu is not None:
        print("starting   loading the model and compiling its kernels, which takes about a minute", flush=True)
    with _memory_told(config):
        engine = _engine_at(checkpoint, files, shape, config, content, out, ranks)
    log = report = None
    seconds = checkpoint.seconds if checkpoint is not None else 0.0
    if ranks.is_first:
        set_up = _opening_lines(config, shards, plan, engine, forecast)
        print("\n".join(set_up), flush=True)
        if checkpoint is not None:
            print(_going_on(out, checkpoint, config, num_steps), flush=True)
        log = RunLog(out, num_steps, done, trackers)
        report = RunReport(
            out=out,
            config=config,
            shards=shards,
            engine=engine,
            log=log,
            history=History(out, ranks, done),
            num_steps=num_steps,
            seconds=seconds,
            set_up=set_up,
        )
    background = Background(ranks)
    watch = Watch(
        config=config,
        shards=shards,
        engine=engine,
        ranks=ranks,
        out=out,
        plan=plan,
        num_steps=num_steps,
        log=log,
        requests=Requests(ranks, by_time=config.save_every is None),
        background=background,
        saver=Saver(out, ranks, config.keep, background),
        best=Best(out / "best", files, shards, ranks, background),
        evals=list(checkpoint.evals) if checkpoint is not None else [],
        seconds=seconds,
        saved=done,
    )
    with report.kept() if report is not None else nullcontext():
        with _memory_told(config):
            _train(watch, gauges, done)
        _finish(watch, files, report)


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


def _finish(watch: Watch, files: ModelFiles, report: RunReport | None) -> None:
    """Leave the model and the report."""
    out, log, config, shards = watch.out, watch.log, watch.config, watch.shards
    made = [out / "model", out / "adapter"]
    if log is not None:
        log.end_bar()
        for folder in made:  # of a run that was killed before its report was written
            shutil.rmtree(folder, ignore_errors=True)
    lora = config.method.lora
    drop_moments(watch.engine.deepspeed.optimizer)
    taken = take(watch.engine.deepspeed, files, watch.ranks, is_adapter=lora is not None)
    if log is None or report is None:
        return
    folder = made[lora is not None]
    proof = export(taken, folder, files, shards)
    if lora is not None and lora.merge:
        folder = out / "model"
        proof = export_files(replace(files, adapter=out / "adapter"), folder, shards)
    lines = []
    if log.steps and (last := log.steps[-1].step) < watch.num_steps:
        waited = f"--patience {config.patience}"
        lines.append(f"early      ended at step {last} of {watch.num_steps}, without a new best for {waited}")
    lines.append(f"model      {folder}")
    lines.append(f"checked    {proof.line()}")
    if (best := watch.best.unless(watch.evals[-1][1] if watch.evals else None)) is not None:
        prove_export(best, files, shards)
        lines.append(f"best       {best}: its held-out loss is lower than that of the last step; checked likewise")
    else:
        shutil.rmtree(out / "best", ignore_errors=True)
    samples = take_samples(files, folder, shards, watch.engine.num_parameters)
    summary = report.finish(Outcome(folder=folder, proof=proof, best=best, samples=samples))
    print(summary.line(), *lines, f"report     {out / 'summary.html'}", sep="\n", flush=True)


def _going_on(out: Path, checkpoint: Checkpoint, config: RunConfig, num_steps: int) -> str:
    line = f"resume     from step {checkpoint.step:,} of {num_steps:,}: {out / 'checkpoints' / checkpoint.name}"
    if checkpoint.num_ranks != config.num_ranks:
        line += f", written by {checkpoint.num_ranks} rank{'s' if checkpoint.num_ranks > 1 else ''}"
    return line


def _new_tokens_line(engine: Engine) -> list[str]:
    if not engine.num_new_tokens:
        return []
    return [f"vocabulary {engine.num_new_tokens} more embeddings, for tokens that were added to the tokenizer"]


def _opening_lines(
    config: RunConfig, shards: Shards, plan: Plan, engine: Engine, forecast: Forecast | None
) -> list[str]:
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


def _make_folder(out: Path, done: int, shape: ModelShape, config: RunConfig) -> None:
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
