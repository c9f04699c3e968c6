"""Checkpoints of a run: DeepSpeed's state and a checkpoint.json, whole under their name or not there.

All ranks write into a folder beside the final one; checkpoint.json comes last, then the folder is renamed. The state of
the data is (epoch, packs consumed); learning rates and random numbers follow from the step and are not stored.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from schemas.errors import TrainError
from schemas.files import remove_leftovers, write_text_whole
from train.config import RunConfig
from train.launch import Ranks
from train.load import Shards

FORMAT, VERSION = "sftpack-checkpoint", 1
STATE = "state"  # DeepSpeed's part
RECORD = "checkpoint.json"
# what may differ between a run and the one that goes on from its checkpoints: where things are and how work is cut up
FREE_TO_CHANGE = {
    "shards",
    "num_ranks",
    "micro_packs",
    "free",
    "zero",
    "offload_optimizer",
    "checkpointed_layers",
    "eval_every",
    "save_every",
    "keep",
    "patience",
    "epochs",
    "steps",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What checkpoint.json says."""

    step: int  # optimizer steps taken
    epoch: int  # from 0: the one that the next step belongs to
    packs_consumed: int  # of that epoch
    num_ranks: int
    zero: int
    seconds: float  # of training so far
    evals: list[tuple[int, float]]  # step and held-out loss
    options: dict[str, Any]  # all that decides what is computed, see `run_options`
    fingerprint: str  # of the options

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"step-{self.step:06d}"


def run_options(config: RunConfig, shards: Shards) -> dict[str, Any]:
    """All that decides what a run computes, by setting: equal options give equal losses, up to rounding."""
    options = {name: value for name, value in asdict(config).items() if name not in FREE_TO_CHANGE}
    records = [record for split in sorted(shards.manifest.splits) for record in shards.manifest.splits[split]]
    options["shards"] = hashlib.sha256("".join(record.sha256 for record in records).encode()).hexdigest()
    options["steps"] = config.num_steps(len(shards.train))
    if Path(config.model).exists():
        options["model"] = str(Path(config.model).resolve())
    return json.loads(json.dumps(options))  # as they come back from a file: tuples are lists


def fingerprint(options: dict[str, Any]) -> str:
    """SHA-256 of the options."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def save_checkpoint(engine: Any, out: Path, checkpoint: Checkpoint, ranks: Ranks, keep: int) -> None:
    """Write OUT/checkpoints/step-N, then remove all but the newest `keep`; every rank calls this.

    Raises TrainError when it can't be written, or a weight is no longer a number.
    """
    _check_weights(engine.module, checkpoint, ranks)
    folder = out / "checkpoints" / checkpoint.name
    temporary = folder.with_name(f".{folder.name}.0.tmp")
    try:
        if ranks.is_first:
            folder.parent.mkdir(exist_ok=True)
            remove_leftovers(folder.parent)
            temporary.mkdir()
        torch.distributed.barrier()
        engine.save_checkpoint(str(temporary), tag=STATE, save_latest=False)
        _sync_files(temporary)
        torch.distributed.barrier()
        if ranks.is_first:
            write_text_whole(temporary / RECORD, _record(temporary, checkpoint))
            if folder.exists():
                _remove(folder)
            temporary.rename(folder)
            _sync_folder(folder.parent)
            for old in list(_folders(out))[keep:]:
                _remove(old)
    except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise TrainError(f"{folder}: the checkpoint can't be written: {reason}; free space there") from error
    torch.distributed.barrier()


def newest_checkpoint(out: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of a run, and what is wrong with newer ones.

    Raises TrainError when another version of the trainer wrote it.
    """
    complaints: list[str] = []
    for folder in _folders(out):
        try:
            return read_checkpoint(folder), complaints
        except ValueError as error:
            complaints.append(f"{folder}: {error}, so an older one is taken")
    return None, complaints


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's record. Raises ValueError where it is not whole, TrainError where its version is another."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise TrainError(
                f"{folder / RECORD}: is {content['format']} version {content['version']}, this version reads {FORMAT} "
                f"{VERSION}; go on with the version that wrote it, or start anew with --fresh"
            )
        for name, size in content["files"].items():
            if not (folder / name).is_file() or (folder / name).stat().st_size != size:
                raise ValueError(f"{name} is missing or cut off")
        values = {name: content[name] for name in Checkpoint.__dataclass_fields__}
        return Checkpoint(**values | {"evals": [(step, loss) for step, loss in content["evals"]]})
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{RECORD} is missing or damaged") from error


def load_state(engine: Any, folder: Path) -> None:
    """Have the engine go on from DeepSpeed's state in `folder`; every rank calls this.

    The optimizer keeps the settings it was built with: DeepSpeed gives those of the first group of parameters to all
    when it loads a universal checkpoint at ZeRO stage 3.
    """
    settings = [{name: value for name, value in group.items() if name != "params"} for group in _groups(engine)]
    loaded, _ = engine.load_checkpoint(str(folder), tag=STATE)
    if loaded is None:
        raise TrainError(f"{folder}: DeepSpeed can't load it; delete this folder to go on from an older one")
    for group, kept in zip(_groups(engine), settings, strict=True):
        group.update(kept)
    _part_step_counts(engine)


def _groups(engine: Any) -> list[dict[str, Any]]:
    return engine.optimizer.param_groups


def _part_step_counts(engine: Any) -> None:
    """Give each parameter its own count of steps, where PyTorch's AdamW counts up in place.

    DeepSpeed hands one tensor to all when it loads a universal checkpoint at stage 3, and to the CPU where the fused
    AdamW wants it on the GPU.
    """
    base = getattr(engine.optimizer, "optimizer", engine.optimizer)
    on_device = any(group.get("fused") for group in base.param_groups)
    for parameter, state in base.state.items():
        if torch.is_tensor(state.get("step")):
            state["step"] = state["step"].to(parameter.device if on_device else "cpu", torch.float32, copy=True)


def _record(temporary: Path, checkpoint: Checkpoint) -> str:
    files = {
        str(path.relative_to(temporary)): path.stat().st_size for path in sorted(temporary.rglob("*")) if path.is_file()
    }
    content = {"format": FORMAT, "version": VERSION, **asdict(checkpoint), "files": files}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _check_weights(module: torch.nn.Module, checkpoint: Checkpoint, ranks: Ranks) -> None:
    """Refuse to keep a model that is no longer made of numbers; the checkpoints before it stay."""
    flags = [torch.isfinite(getattr(each, "ds_tensor", each).data).all() for each in module.parameters()]
    bad = torch.tensor(0 if all(flag.item() for flag in flags) else 1, device=ranks.device)
    torch.distributed.all_reduce(bad)
    if bad.item():
        raise TrainError(
            f"after step {checkpoint.step} a weight is no longer a number, so nothing was saved; lower --learning-rate"
        )


def _folders(out: Path) -> Iterator[Path]:
    """Folders of a run's checkpoints, newest first."""
    yield from sorted((out / "checkpoints").glob("step-*"), key=lambda path: path.name.zfill(20), reverse=True)


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that it is never half there under its name."""
    doomed = folder.with_name(f".{folder.name}.1.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _sync_files(folder: Path) -> None:
    """Wait until the files are on disk; those that another rank has synced cost nothing."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            _sync_folder(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
