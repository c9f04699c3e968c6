"""`train run`: check everything that can be refused, start or join the ranks, train, and leave a model and a report."""

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from schemas.errors import TrainError
from train.config import RunConfig, settle
from train.deepspeed_config import file_settings, read_deepspeed_file
from train.hub import ModelFiles, find_model
from train.launch import Ranks, join_ranks, launch_processes, num_local_processes, share, under_launcher
from train.load import Shards, open_shards


def run(options: Namespace, arguments: list[str]) -> int:
    """Train as `options` say; `arguments` are what other processes are started with. Gives the exit code."""
    shards = open_shards(options.shards)
    content = read_deepspeed_file(options.deepspeed) if options.deepspeed else {}
    name = options.model or shards.manifest.model
    if not under_launcher():
        num_processes = num_local_processes(options.procs)
        _settle(options, content, shards, name, num_processes)
        find_model(name)
        if options.out is not None:
            _refuse_used(options.out)
        if num_processes > 1:
            return launch_processes(num_processes, arguments)
    ranks = join_ranks()
    config = _settle(options, content, shards, name, ranks.num_ranks)
    files = _find_on_each_machine(name, ranks)
    out = Path(share(ranks, _out_folder(options.out, name) if ranks.is_first else None))
    _train(config, content, shards, files, out, ranks)
    import torch.distributed

    torch.distributed.destroy_process_group()
    return 0


def _settle(options: Namespace, content: dict[str, Any], shards: Shards, name: str, num_ranks: int) -> RunConfig:
    import torch

    on_gpu = torch.cuda.is_available()
    config = settle(
        options,
        file_settings(content),
        model=name,
        seq_len=shards.manifest.options.seq_len,
        num_ranks=num_ranks,
        has_bf16_gpu=on_gpu and torch.cuda.is_bf16_supported(),
    )
    if config.precision == "fp16" and not on_gpu:
        raise TrainError("--precision fp16 needs a GPU; use bf16 or fp32 on CPU")
    return config


def _find_on_each_machine(name: str, ranks: Ranks) -> ModelFiles:
    """The first rank of each machine downloads where it must; the others find it done."""
    import torch.distributed

    files = find_model(name) if ranks.local_rank == 0 else None
    torch.distributed.barrier()
    return files or find_model(name)


def _out_folder(asked: Path | None, model: str) -> str:
    """The run's folder: the one asked for, or the first of runs/MODEL, runs/MODEL-2, … that is not there."""
    if asked is not None:
        _refuse_used(asked)
        return str(asked)
    stem = Path("runs") / (Path(model).stem if model.endswith(".gguf") else Path(model).name or "model")
    free, number = stem, 1
    while free.exists():
        number += 1
        free = stem.with_name(f"{stem.name}-{number}")
    return str(free)


def _refuse_used(out: Path) -> None:
    for name in ("model", "checkpoints"):
        if (out / name).exists():
            raise TrainError(f"{out / name}: an earlier run left this; choose another --out, or delete {out} first")


def _train(
    config: RunConfig, content: dict[str, Any], shards: Shards, files: ModelFiles, out: Path, ranks: Ranks
) -> None:
    from train.batch import Plan
    from train.engine import build_engine
    from train.evaluate import held_out_loss
    from train.export import export_model
    from train.log import RunLog, StepRecord
    from train.loop import train_steps
    from train.model import attention_line, check_fits, read_shape
    from train.summary import RunSummary, write_summary

    shape = read_shape(files)
    if ranks.is_first:
        check_fits(files, shape, shards)
    plan = Plan(
        num_packs=len(shards.train),
        batch_packs=config.batch_packs,
        micro_packs=config.micro_packs,
        num_ranks=ranks.num_ranks,
    )
    num_steps = config.steps or config.epochs * plan.steps_an_epoch
    engine = build_engine(files, shape, config, content, ranks)
    log = None
    if ranks.is_first:
        for line in _opening_lines(config, shards, plan.steps_an_epoch, num_steps, engine.num_parameters):
            print(line, flush=True)
        print(f"attention  {attention_line(shape, config, ranks.device)}; it never crosses examples", flush=True)
        log = RunLog(_fresh_folder(out), num_steps)
    eval_every = config.eval_every or -(-num_steps // 4)

    def evaluate(step: int) -> None:
        if shards.val is not None:
            loss = held_out_loss(engine.deepspeed, shards.val, config, ranks)
            if log is not None:
                log.log_eval(step, loss)

    def on_records(records: list[StepRecord]) -> None:
        if log is not None:
            log.log_steps(records)

    def on_step(done: int) -> None:
        if done % eval_every == 0 or done == num_steps:
            evaluate(done)
        if config.save_every and done % config.save_every == 0 and done != num_steps:
            folder = out / "checkpoints" / f"step-{done:06d}"
            export_model(engine.deepspeed, folder, shards.tokenizer, shape.dtype, ranks)

    started = time.perf_counter()
    evaluate(0)
    train_steps(engine.deepspeed, shards.train, plan, config, ranks, num_steps, on_records, on_step)
    seconds = time.perf_counter() - started
    export_model(engine.deepspeed, out / "model", shards.tokenizer, shape.dtype, ranks)
    if log is not None:
        log.close()
        summary = RunSummary.of(config, shards, log, num_parameters=engine.num_parameters, seconds=seconds)
        write_summary(out, summary, log)
        print(summary.line(), f"model      {out / 'model'}", f"report     {out / 'summary.html'}", sep="\n", flush=True)


def _opening_lines(
    config: RunConfig, shards: Shards, steps_an_epoch: int, num_steps: int, num_parameters: int
) -> list[str]:
    packs, tokens, targets = len(shards.train), int(shards.train.num_tokens.sum()), int(shards.train.num_targets.sum())
    val = f", {len(shards.val)} packs held out" if shards.val is not None else ", none held out: no held-out loss"
    micro = f"{config.num_ranks} ranks x {config.num_micro_steps} micro-batches of {config.micro_packs}"
    return [
        f"model      {config.model}: {num_parameters:,} parameters, {config.precision}, ZeRO-{config.zero}",
        f"data       {packs:,} packs of up to {config.seq_len:,} tokens, {tokens:,} tokens, {targets:,} targets{val}",
        f"steps      {num_steps:,} ({num_steps / steps_an_epoch:.3g} epochs), {config.batch_packs} packs each: {micro}",
    ]


def _fresh_folder(out: Path) -> Path:
    """Make the run's folder, without what an unfinished run logged there."""
    import shutil

    try:
        shutil.rmtree(out / "tensorboard", ignore_errors=True)
        (out / "tensorboard").mkdir(parents=True)
    except OSError as error:
        raise TrainError(f"{out}: can't be written: {error.strerror}; choose another --out") from error
    return out
