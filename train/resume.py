"""What a run finds in its folder: nothing, a finished run, or a checkpoint to go on from, made fit for these ranks."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch.distributed

from schemas.errors import TrainError
from schemas.files import remove_leftovers
from train.checkpoint import STATE, Checkpoint, newest_checkpoint, run_options
from train.config import RunConfig, flag_name
from train.launch import Ranks
from train.load import Shards

RESULTS = "model", "adapter"
MADE = (
    *RESULTS,
    "best",
    "checkpoints",
    "tensorboard",
    "tracking",
    "metrics.jsonl",
    "history.json",
    "summary.json",
    "summary.html",
)
LAUNCHER_KEYS = "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What an earlier run left in the folder."""

    checkpoint: Checkpoint | None
    finished: bool
    complaints: list[str]  # about checkpoints that were passed over


NOTHING = Found(checkpoint=None, finished=False, complaints=[])


def look_into(out: Path, config: RunConfig, shards: Shards, *, fresh: bool) -> Found:
    """Find what there is to go on from.

    Raises TrainError when the earlier run computed something else, or its state does not fit ZeRO stage or ranks.
    """
    if fresh:
        return NOTHING
    checkpoint, complaints = newest_checkpoint(out)
    results = [out / name for name in RESULTS if (out / name).exists()]
    finished = bool(results) and all((out / name).exists() for name in ("summary.json", "summary.html"))
    if checkpoint is None:
        if results:
            raise TrainError(
                f"{results[0]}: an earlier run left this; choose another --out, or start anew with --fresh"
            )
        return Found(checkpoint=None, finished=False, complaints=complaints)
    _check_options(out, checkpoint, run_options(config, shards))
    if not finished:
        _check_stage(out, checkpoint, config)
    return Found(checkpoint=checkpoint, finished=finished, complaints=complaints)


def at_its_stage(config: RunConfig, checkpoint: Checkpoint | None, *, asked: bool) -> RunConfig:
    """The run at the ZeRO stage of the checkpoint, where the user `asked` for none."""
    if checkpoint is None or asked:
        return config
    return replace(config, zero=checkpoint.zero, free=tuple(name for name in config.free if name != "zero"))


def needs_conversion(checkpoint: Checkpoint, config: RunConfig) -> bool:
    """Whether DeepSpeed's state must be cut up anew; without ZeRO every rank has the whole."""
    return checkpoint.zero > 0 and (checkpoint.num_ranks, checkpoint.zero) != (config.num_ranks, config.zero)


@contextmanager
def state_for(out: Path, checkpoint: Checkpoint, config: RunConfig, ranks: Ranks) -> Iterator[Path]:
    """The folder with the state to load, converted to DeepSpeed's universal format where that is needed.

    Every rank calls this, rank 0 converts; what it made is removed at the end.
    """
    folder = out / "checkpoints" / checkpoint.name
    if not needs_conversion(checkpoint, config):
        yield folder
        return
    universal = folder.with_name(f".universal-{folder.name}.0.tmp")
    if ranks.is_first:
        shutil.rmtree(universal, ignore_errors=True)
        _convert(folder, universal)
    torch.distributed.barrier()
    try:
        yield universal
        torch.distributed.barrier()
    finally:
        if ranks.is_first:
            shutil.rmtree(universal, ignore_errors=True)


@contextmanager
def folder_of_one_run(out: Path, *, fresh: bool) -> Iterator[None]:
    """Keep other runs out of the folder, and clear it of what killed runs left half done; rank 0 calls this."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise TrainError(f"{out}: can't be written: {error.strerror}; choose another --out") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainError(f"{out}: another run is writing here; wait for it, or choose another --out") from error
        except OSError:  # a file system without locks
            pass
        for folder in (out, out / "checkpoints", out / "best"):
            remove_leftovers(folder)
        if fresh:
            for name in MADE:
                path = out / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def _check_options(out: Path, checkpoint: Checkpoint, now: dict[str, object]) -> None:
    for name in sorted(checkpoint.options.keys() | now.keys()):
        before, after = checkpoint.options.get(name), now.get(name)
        if before == after:
            continue
        what = "on other shards" if name == "shards" else f"with {flag_name(name)} {before}, now it is {after}"
        raise TrainError(
            f"{out}: this run was begun {what}; give it what it was begun with, start anew with --fresh, "
            "or choose another --out"
        )


def _check_stage(out: Path, checkpoint: Checkpoint, config: RunConfig) -> None:
    """DeepSpeed cuts up anew for other ranks, and between stages 1 and 2, which store alike."""
    if config.zero != checkpoint.zero and {config.zero, checkpoint.zero} != {1, 2}:
        raise TrainError(
            f"{out / 'checkpoints' / checkpoint.name}: was written at ZeRO stage {checkpoint.zero}, which DeepSpeed "
            f"can't load at stage {config.zero}; use --zero {checkpoint.zero}, or start anew with --fresh"
        )


def _convert(folder: Path, universal: Path) -> None:
    """Convert in a process of its own: DeepSpeed's converter forks and prints."""
    workers = str(max(1, min(4, (os.cpu_count() or 1) // 2)))
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--input_folder", str(folder / STATE), "--output_folder", str(universal / STATE)]
    command += ["--num_extract_workers", workers, "--num_merge_workers", workers]
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER_KEYS}
    universal.mkdir()
    done = subprocess.run(
        command, env=environment | {"DS_ACCELERATOR": "cpu"}, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise TrainError(
            f"{folder}: DeepSpeed can't convert it for another number of ranks: {reason}; "
            "use as many as before, or start anew with --fresh"
        )
