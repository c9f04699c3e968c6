"""A checkpoint in, the model or adapter that the run would have left at that step out; on the CPU, by one process."""

import contextlib
import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from schemas.errors import TrainError
from train.checkpoint import RECORD, STATE, Checkpoint, newest_checkpoint, read_checkpoint
from train.export import Taken, export, export_files
from train.hub import ModelFiles, find_model
from train.launch import import_deepspeed
from train.lora import choose_trained
from train.method import Lora, Method
from train.model import build_in_one_piece, half_dtype, load_weights
from train.proof import ExportProof


def find_checkpoint(name: str) -> Path | None:
    """The checkpoint that `name` is, or the newest of a run's folder that holds nothing finished; None: neither."""
    path = Path(name).expanduser()
    if (path / RECORD).is_file():
        return path
    if (path / "model").exists() or (path / "adapter").exists() or not (path / "checkpoints").is_dir():
        return None
    found, _ = newest_checkpoint(path)
    return None if found is None else path / "checkpoints" / found.name


def export_checkpoint(folder: Path, out: Path, *, merge: bool) -> ExportProof:
    """Write a checkpoint's model as a Hugging Face folder, or its adapter as peft has it, merged where asked for.

    Raises TrainError where the checkpoint is not whole or not of its base model.
    """
    import_deepspeed(on_gpu=torch.cuda.is_available())
    build_in_one_piece()
    try:
        checkpoint = read_checkpoint(folder)
    except ValueError as error:
        raise TrainError(f"{folder}: {error}; choose another checkpoint") from error
    base, method = find_model(checkpoint.options["model"]), _method(checkpoint)
    if merge and method.lora is None:
        raise TrainError(f"{folder}: holds no adapter, so nothing is to be merged; leave --merge out")
    model = load_weights(base, torch.float32)
    choose_trained(model, method, seed=0)
    _fill(model, _trained_weights(folder, checkpoint), folder)
    if method.lora is None:
        return export(Taken(model=model.to(half_dtype(base) or torch.float32)), out, base.tokenizer, base, None)
    adapter = out.with_name(f".{out.name}.adapter") if merge else out
    weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    taken = Taken(model=model, weights=weights, is_adapter=True)
    proof = export(taken, adapter, base.tokenizer, base, None)
    return _merged(base, adapter, out) if merge else proof


def _merged(base: ModelFiles, adapter: Path, out: Path) -> ExportProof:
    try:
        return export_files(replace(base, adapter=adapter), out, None)
    finally:
        shutil.rmtree(adapter)


def _method(checkpoint: Checkpoint) -> Method:
    """What the run trained, from the options that its checkpoints hold."""
    values = checkpoint.options["method"]
    lora = values["lora"] and Lora(**values["lora"] | {"targets": tuple(values["lora"]["targets"])})
    return Method(lora=lora, freeze=tuple(values["freeze"]))


def _trained_weights(folder: Path, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights by name, in float32 where ZeRO keeps them so."""
    if checkpoint.zero == 0:
        state = torch.load(folder / STATE / "mp_rank_00_model_states.pt", map_location="cpu", weights_only=False)
        return state["module"]
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # it tells what it does
        return get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=STATE)


def _fill(model: Any, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Put the weights into the model, in place: what is tied stays tied."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    if missing := sorted(trained - weights.keys()):
        raise TrainError(f"{folder}: holds no {missing[0]}, which the run trained; choose another checkpoint")
    with torch.no_grad():
        for name, weight in weights.items():
            if name not in parameters:
                continue  # a buffer, as the model has it
            if parameters[name].shape != weight.shape:
                raise TrainError(
                    f"{folder}: {name} is {list(weight.shape)}, in the base model {list(parameters[name].shape)}; "
                    "go on with the run to its end instead, which exports it"
                )
            parameters[name].copy_(weight)
