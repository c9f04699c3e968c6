"""`train run`: check everything that can be refused, start or join the ranks, train, and leave a model and a report."""

import faulthandler
import json
import os
import signal
import sys
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import TrainError
from train.config import RunConfig, settle
from train.deepspeed_config import file_settings, read_deepspeed_file
from train.deepspeed_lint import refuse_problems
from train.hub import ModelFiles, find_model
from train.launch import (
    Ranks,
    die_with_launcher,
    join_ranks,
    launch_processes,
    num_local_processes,
    quiet_libraries,
    settle_allocators,
    share,
    under_launcher,
)
from train.load import Shards, open_shards
from train.signs import signs_of_life
from train.trackers import check_installed

if TYPE_CHECKING:
    from train.checkpoint import Checkpoint
    from train.resume import Found


def run(options: Namespace, arguments: list[str]) -> int:
    """Train as `options` say; `arguments` are what other processes are started with. Gives the exit code."""
    settle_allocators()
    by_trl = options.backend == "trl"
    if by_trl:
        from train.trl_backend import check_options

        check_options(options)
    shards = open_shards(options.shards)
    content = read_deepspeed_file(options.deepspeed) if options.deepspeed else {}
    name = options.model or shards.manifest.model
    num_processes = int(os.environ["WORLD_SIZE"]) if under_launcher() else num_local_processes(options.procs)
    findings = refuse_problems(options.deepspeed, content, num_processes)
    if not under_launcher():
        for finding in findings:
            print(f"note       {options.deepspeed}: {finding.line()}", flush=True)
        config = _settle(options, content, shards, name, num_processes)
        if not by_trl and options.out is not None and _find(options, content, shards, config, options.out).finished:
            return _tell_finished(options.out)
        _check_model(find_model(name), shards)
        if num_processes > 1:
            return launch_processes(num_processes, arguments)
    return _run_as_rank(options, content, shards, name)


def _run_as_rank(options: Namespace, content: dict[str, Any], shards: Shards, name: str) -> int:
    die_with_launcher()
    faulthandler.enable()  # what crashes below Python says where it was
    ranks = join_ranks()
    quiet_libraries()
    with signs_of_life(ranks.sign, ranks.rank, ranks.num_ranks):
        return _train_as_rank(options, content, shards, name, ranks)


def _train_as_rank(options: Namespace, content: dict[str, Any], shards: Shards, name: str, ranks: Ranks) -> int:
    import torch.distributed

    from train.requests import Stopped
    from train.resume import NOTHING, at_its_stage, folder_of_one_run
    from train.session import train_session

    config = _settle(options, content, shards, name, ranks.num_ranks)
    files = _find_on_each_machine(name, ranks)
    if ranks.is_first and ranks.num_ranks > 1:  # a launcher may have started the ranks at once
        _check_model(files, shards)
    out = Path(share(ranks, str(options.out or _free_folder(name)) if ranks.is_first else None))
    ranks.sign.out, code = out, 0
    with folder_of_one_run(out, fresh=options.fresh) if ranks.is_first else nullcontext():
        by_trl = options.backend == "trl"
        found = _find(options, content, shards, config, out) if ranks.is_first and not by_trl else NOTHING
        for complaint in found.complaints:
            print(f"note       {complaint}", flush=True)
        finished, checkpoint = _share_found(found, out, ranks)
        if finished:
            code = _tell_finished(out) if ranks.is_first else 0
        elif by_trl:
            from train.trl_backend import train_with_trl

            train_with_trl(config, content, shards, files, out, ranks)
        else:
            config = at_its_stage(config, checkpoint, asked=_asks_stage(options, content))
            try:
                train_session(config, content, shards, files, out, ranks, checkpoint)
            except Stopped as stopped:
                code = 128 + stopped.signum
                if ranks.is_first:
                    print(_stopped_line(stopped.signum, stopped.step, out), file=sys.stderr, flush=True)
        ranks.sign.at("end of the run")
        torch.distributed.barrier()  # nobody leaves while rank 0 still writes
        torch.distributed.destroy_process_group()
    return code


def _find(options: Namespace, content: dict[str, Any], shards: Shards, config: RunConfig, out: Path) -> "Found":
    """What `out` holds, where it fits this run."""
    from train.checkpoint import newest_checkpoint
    from train.resume import at_its_stage, look_into

    if not options.fresh:
        config = at_its_stage(config, newest_checkpoint(out)[0], asked=_asks_stage(options, content))
    return look_into(out, config, shards, fresh=options.fresh)


def _share_found(found: "Found", out: Path, ranks: Ranks) -> "tuple[bool, Checkpoint | None]":
    """Rank 0's finding, on every rank."""
    from train.checkpoint import read_checkpoint

    name = found.checkpoint.name if found.checkpoint is not None else ""
    said = json.loads(share(ranks, json.dumps([found.finished, name]) if ranks.is_first else None))
    if found.checkpoint is not None or not said[1]:
        return said[0], found.checkpoint
    try:
        return said[0], read_checkpoint(out / "checkpoints" / said[1])
    except ValueError as error:
        raise TrainError(f"{out / 'checkpoints' / said[1]}: {error} on this machine; share the folder") from error


def _asks_stage(options: Namespace, content: dict[str, Any]) -> bool:
    return options.zero is not None or "zero" in file_settings(content)


def _tell_finished(out: Path) -> int:
    print(f"{out}: this run is finished; to train anew, choose another --out or add --fresh", flush=True)
    return 0


def _stopped_line(signum: int, step: int, out: Path) -> str:
    return (
        f"train: stopped by {signal.Signals(signum).name} after step {step}, which is saved; "
        f"the same command with --out {out} goes on from there"
    )


def _settle(options: Namespace, content: dict[str, Any], shards: Shards, name: str, num_ranks: int) -> RunConfig:
    import torch

    on_gpu = torch.cuda.is_available()
    config = settle(
        options,
        file_settings(content),
        model=name,
        seq_len=shards.manifest.options.seq_len,
        num_ranks=num_ranks,
        has_bf16_gpu=on_gpu and torch.cuda.is_bf16_supported(including_emulation=False),
    )
    check_installed(config.log_to)
    if config.patience is not None and shards.val is None:
        raise TrainError("--patience needs held-out packs; run dataprep tokenize with --val-fraction 0.05")
    if config.precision == "fp16" and not on_gpu:
        raise TrainError("--precision fp16 needs a GPU; use bf16 or fp32 on CPU")
    return config


def _check_model(files: ModelFiles, shards: Shards) -> None:
    from train.model import check_fits, read_shape

    quiet_libraries()
    check_fits(files, read_shape(files), shards)


def _find_on_each_machine(name: str, ranks: Ranks) -> ModelFiles:
    """The first rank of each machine downloads where it must; the others find it done."""
    import torch.distributed

    files = find_model(name) if ranks.local_rank == 0 else None
    torch.distributed.barrier()
    return files or find_model(name)


def _free_folder(model: str) -> Path:
    """The first of runs/MODEL, runs/MODEL-2, … that is not there."""
    stem = Path("runs") / (Path(model).stem if model.endswith(".gguf") else Path(model).name or "model")
    free, number = stem, 1
    while free.exists():
        number += 1
        free = stem.with_name(f"{stem.name}-{number}")
    return free
