"""`train run`: check everything that can be refused, start or join the ranks, train, and leave a model and a report."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from schemas.errors import TrainError
from train.config import RunConfig, settle
from train.deepspeed_config import file_settings, read_deepspeed_file
from train.hub import ModelFiles, find_model
from train.launch import (
    Ranks,
    join_ranks,
    launch_processes,
    num_local_processes,
    quiet_libraries,
    share,
    under_launcher,
)
from train.load import Shards, open_shards


def run(options: Namespace, arguments: list[str]) -> int:
    """Train as `options` say; `arguments` are what other processes are started with. Gives the exit code."""
    shards = open_shards(options.shards)
    content = read_deepspeed_file(options.deepspeed) if options.deepspeed else {}
    name = options.model or shards.manifest.model
    if not under_launcher():
        num_processes = num_local_processes(options.procs)
        _settle(options, content, shards, name, num_processes)
        if options.out is not None:
            _refuse_used(options.out)
        _check_model(find_model(name), shards)
        if num_processes > 1:
            return launch_processes(num_processes, arguments)
    import torch.distributed

    from train.session import train_session

    ranks = join_ranks()
    quiet_libraries()
    config = _settle(options, content, shards, name, ranks.num_ranks)
    files = _find_on_each_machine(name, ranks)
    if ranks.is_first and ranks.num_ranks > 1:  # a launcher may have started the ranks at once
        _check_model(files, shards)
    out = Path(share(ranks, _out_folder(options.out, name) if ranks.is_first else None))
    train_session(config, content, shards, files, out, ranks)
    torch.distributed.barrier()  # nobody leaves while rank 0 still writes
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
        has_bf16_gpu=on_gpu and torch.cuda.is_bf16_supported(including_emulation=False),
    )
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
    for name in ("model", "adapter", "checkpoints"):
        if (out / name).exists():
            raise TrainError(f"{out / name}: an earlier run left this; choose another --out, or delete {out} first")
