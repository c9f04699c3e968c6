"""Adapters through peft: put beside a model's linear layers, written as a folder that peft loads, merged into weights.

They are injected into the model rather than wrapped around it, so that the model's forward, its attention and its head
stay where the rest of the trainer looks for them.
"""

import json
import warnings
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from schemas.errors import ModelError, TrainError
from train.method import Lora, Method

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of every name in an adapter's file


def choose_trained(model: Any, method: Method, seed: int) -> None:
    """Leave gradients to what is trained: adapters, which are added here, or all weights that no pattern freezes."""
    if method.lora is not None:
        _add_adapters(model, method.lora, seed)
    _freeze(model, method.freeze)


def adapted_layers(model: torch.nn.Module) -> list[str]:
    """The last names of layers that have an adapter, in order: q_proj, k_proj, …"""
    names = (name.rpartition(".")[2] for name, module in model.named_modules() if hasattr(module, "lora_A"))
    return list(dict.fromkeys(names))


def adapter_weights(names: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Trained weights under the names that an adapter's file has: ….lora_A.default.weight -> ….lora_A.weight."""
    return {PREFIX + _file_name(name): weight for name, weight in names.items()}


def write_adapter(model: Any, weights: dict[str, torch.Tensor], base: str, folder: Path) -> None:
    """Write peft's two files into `folder`; `weights` are the trained ones, `base` the model they belong to."""
    from safetensors.torch import save_file

    config: Any = model.peft_config["default"].to_dict()
    path = Path(base).expanduser()
    config["base_model_name_or_path"] = str(path.resolve()) if path.exists() else base
    config["inference_mode"] = True
    config = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
    save_file(adapter_weights(weights), folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def merge_adapter(model: Any, folder: Path) -> Any:
    """Add an adapter's folder to a model's weights, layer by layer in float32; gives the model as it was built.

    Raises ModelError where the adapter was made for another model.
    """
    from peft import PeftModel
    from peft.tuners.lora.layer import LoraLayer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is missing too, which is checked below
            adapted: Any = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: its adapter does not fit its base model: {reason}") from error
    _check_names(adapted, folder)
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            base: Any = module.get_base_layer()
            dtype = base.weight.dtype
            module.float()  # type: ignore[attr-defined]
            module.merge()
            base.to(dtype)
    merged = adapted.base_model.unload()
    vars(merged).pop("peft_config", None)
    return merged.requires_grad_(True)


def base_of_adapter(folder: Path) -> str:
    """The name of the model that an adapter's folder belongs to."""
    path = folder / ADAPTER_CONFIG
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: not an adapter's config; the file is damaged") from error
    if not base:
        raise ModelError(f"{path}: names no base model; write its folder or hub id as base_model_name_or_path")
    return base


def _add_adapters(model: Any, lora: Lora, seed: int) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    dtype = model.dtype
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or "all-linear",
        use_dora=lora.dora,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)  # every rank starts from the same adapters
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        found = dict.fromkeys(name.rpartition(".")[2] for name, module in model.named_modules() if _is_linear(module))
        raise TrainError(
            f"--lora-targets {' '.join(lora.targets)}: the model has no such layers; its linear ones are "
            f"{', '.join(found)}"
        ) from error
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def _freeze(model: torch.nn.Module, patterns: tuple[str, ...]) -> None:
    names = dict(model.named_parameters())
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            few = ", ".join(list(names)[:3])
            raise TrainError(f"--freeze {pattern!r} matches no weight; their names are such as {few}")
        for name in matching:
            names[name].requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in names.values()):
        raise TrainError("--freeze leaves nothing to train; freeze less")


def _check_names(adapted: torch.nn.Module, folder: Path) -> None:
    """Raise ModelError unless the folder holds each adapter's weights and no other; peft itself only warns."""
    from safetensors import safe_open

    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        return  # an old one, a pickle
    with safe_open(path, "pt") as file:
        found = set(file.keys())
    expected = {_file_name(name) for name, _ in adapted.named_parameters() if "lora_" in name}
    if differing := sorted(found ^ expected):
        where = "is missing" if differing[0] in expected else "has no place in the model"
        raise ModelError(f"{path}: {differing[0]} {where}; the adapter is not whole, or of another model")


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)


def _file_name(name: str) -> str:
    plain = name.replace(".default.", ".")
    return plain.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
