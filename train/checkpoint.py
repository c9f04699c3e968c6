"""Checkpoints of a run: DeepSpeed's state and a checkpoint.json, whole under their name or not there.

All ranks write into a folder beside the final one; checkpoint.json comes last, then the folder is renamed. The state of
the data is (epoch, packs consumed); learning rates and random numbers follow from the step and are not stored.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from schemas.errors import TrainError
from train.config import RunConfig
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
    "offload_parameters",
    "checkpointed_layers",
    "eval_every",
    "save_every",
    "keep",
    "patience",
    "log_to",
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


def newest_checkpoint(out: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of a run, and what is wrong with newer ones.

    Raises TrainError when another version of the trainer wrote it.
    """
    complaints: list[str] = []
    for folder in checkpoint_folders(out / "checkpoints"):
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


def checkpoint_folders(folder: Path) -> Iterator[Path]:
    """A run's checkpoints in OUT/checkpoints, newest first."""
    yield from sorted(folder.glob("step-*"), key=lambda path: path.name.zfill(20), reverse=True)


def load_state(engine: Any, folder: Path) -> None:
    """Have the engine go on from DeepSpeed's state in `folder`; every rank calls this.

    The optimizer keeps the settings it was built with: DeepSpeed gives those of the first group of parameters to all
    when it loads a universal checkpoint at ZeRO stage 3.
    """
    settings = [{name: value for name, value in group.items() if name != "params"} for group in _groups(engine)]
    loaded, _ = engine.load_checkpoint(str(folder), tag=STATE, custom_load_fn=_fill)
    if loaded is None:
        raise TrainError(f"{folder}: DeepSpeed can't load it; delete this folder to go on from an older one")
    for group, kept in zip(_groups(engine), settings, strict=True):
        group.update(kept)
    _part_step_counts(engine)


def _fill(src: dict[str, torch.Tensor], dst: torch.nn.Module) -> None:
    """Load what a checkpoint holds of a model, which is all but what is frozen. The names are DeepSpeed's."""
    missing, unexpected = dst.load_state_dict(src, strict=False)
    frozen = {name for name, weight in dst.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    if wrong := sorted({*missing} - frozen | {*unexpected}):
        raise TrainError(f"the checkpoint and the model differ, in {wrong[0]} first; start anew with --fresh")


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
