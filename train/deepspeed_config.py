"""A DeepSpeed config in, settings of the run out, and back; "auto" is filled in, what clashes is named."""

import json
from pathlib import Path
from typing import Any

from schemas.errors import TrainError
from train.config import DeepSpeedOptimizer, FileSetting, RunConfig

SCHEDULES = {"WarmupLR": "constant", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}

ADAM = "adam", "adamw"  # the trainer's own, see train/optimizer.py
BY_DEEPSPEED = ("muon",)
COMPRESSED = "onebitadam", "zerooneadam", "onebitlamb"

PREFETCHED = 500_000_000  # weights that ZeRO-3 joins ahead of a layer, at least the next layer's; its own 5e7 is less

OFFLOADS = {
    "zero_optimization.offload_optimizer.device": "offload_optimizer",
    "zero_optimization.offload_param.device": "offload_parameters",
}

# key in DeepSpeed's file -> setting of the run
SETTINGS = {
    "train_micro_batch_size_per_gpu": "micro_packs",
    "train_batch_size": "batch_packs",
    "gradient_accumulation_steps": "num_micro_steps",
    "gradient_clipping": "max_grad_norm",
    "zero_optimization.stage": "zero",
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.weight_decay": "weight_decay",
    "optimizer.params.betas": "adam_betas",
    "optimizer.params.eps": "adam_eps",
    "scheduler.params.warmup_max_lr": "learning_rate",
    "scheduler.params.warmup_num_steps": "warmup_steps",
    "scheduler.params.total_num_steps": "steps",
}


def read_deepspeed_file(path: Path) -> dict[str, Any]:
    """Read a DeepSpeed JSON config. Raises TrainError when it can't be read, or asks for what is not done here."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainError(f"{path}: cannot be read: {error.strerror}; check --deepspeed") from error
    except ValueError as error:
        raise TrainError(f"{path}: not JSON: {error}; mend the file") from error
    if not isinstance(content, dict):
        raise TrainError(f"{path}: holds no JSON object; see https://www.deepspeed.ai/docs/config-json")
    optimizer = _at(content, "optimizer.type")
    if optimizer is not None and str(optimizer).lower() not in (*ADAM, *BY_DEEPSPEED):
        why = "DeepSpeed 0.19 has none" if str(optimizer).lower() in COMPRESSED else "it is AdamW or Muon here"
        raise TrainError(f"{path}: optimizer.type is {optimizer!r}; {why}; remove `optimizer` for AdamW")
    scheduler = _at(content, "scheduler.type")
    if scheduler not in (None, *SCHEDULES):
        raise TrainError(f"{path}: scheduler.type is {scheduler!r}; one of {', '.join(SCHEDULES)}, or use --schedule")
    if _at(content, "bf16.enabled") is True and _at(content, "fp16.enabled") is True:
        raise TrainError(f"{path}: bf16.enabled and fp16.enabled are both true; keep one of them")
    return content


def file_settings(content: dict[str, Any]) -> dict[str, FileSetting]:
    """What the file fixes, by setting; "auto" fixes nothing."""
    found: dict[str, FileSetting] = {}
    for key, name in SETTINGS.items():
        value = _at(content, key)
        if value not in (None, "auto"):
            value = _checked(key, value)
            found.setdefault(name, FileSetting(key=key, value=value))
    if (scheduler := _at(content, "scheduler.type")) is not None:
        found["schedule"] = FileSetting(key="scheduler.type", value=SCHEDULES[scheduler])
    for precision in ("bf16", "fp16"):
        if _at(content, f"{precision}.enabled") is True:
            found["precision"] = FileSetting(key=f"{precision}.enabled", value=precision)
    kind = _at(content, "optimizer.type")
    if kind is not None and kind.lower() in BY_DEEPSPEED:
        found["optimizer"] = FileSetting(key="optimizer.type", value=_optimizer(kind, _at(content, "optimizer.params")))
    for key, name in OFFLOADS.items():
        if _at(content, key) == "cpu":
            found[name] = FileSetting(key=key, value=True)
    return found


def deepspeed_config(config: RunConfig, content: dict[str, Any], *, on_gpu: bool) -> dict[str, Any]:
    """The dict for `deepspeed.initialize`: the user's keys, and over them what the run settled.

    `train_batch_size` is left out: it follows from the other two and the number of ranks. The schedule is the trainer's
    own, and so is AdamW. Any "auto" that is left is dropped, so that DeepSpeed's default holds.
    """
    result = _without_auto(content)
    for key in ("optimizer", "scheduler", "train_batch_size"):
        result.pop(key, None)
    if config.optimizer is not None:
        result["optimizer"] = _optimizer_block(config.optimizer, config.learning_rate, on_gpu=on_gpu)
    zero = result.setdefault("zero_optimization", {})
    zero["stage"] = config.zero
    if config.optimizer is not None and config.optimizer.kind.lower() == "muon" and config.zero == 3:
        zero.setdefault("reduce_scatter", False)  # Muon wants whole gradients
    if config.zero == 3:
        zero.setdefault("stage3_prefetch_bucket_size", PREFETCHED)
        if on_gpu and not config.method.freeze:  # torch.compile makes a program for each layer out of that one
            zero.setdefault("memory_efficient_linear", False)
    if config.offload_optimizer:
        zero.setdefault("offload_optimizer", {"device": "cpu", "pin_memory": on_gpu})
        if not on_gpu:
            result["zero_force_ds_cpu_optimizer"] = False
    result["train_micro_batch_size_per_gpu"] = config.micro_packs
    result["gradient_accumulation_steps"] = config.num_micro_steps
    result["gradient_clipping"] = config.max_grad_norm
    for precision in ("bf16", "fp16"):
        result.setdefault(precision, {})["enabled"] = config.precision == precision
    result.setdefault("zero_allow_untested_optimizer", True)
    return result


def _optimizer(kind: str, params: Any) -> DeepSpeedOptimizer:
    """What the file says of it, but for the settings that the trainer has too."""
    own = {key.rpartition(".")[2] for key in SETTINGS if key.startswith("optimizer.params.")} - {"betas", "eps"}
    given = {key: value for key, value in (params or {}).items() if key not in own and value != "auto"}
    return DeepSpeedOptimizer(kind=kind, params=tuple((key, given[key]) for key in sorted(given)))


def _optimizer_block(optimizer: DeepSpeedOptimizer, learning_rate: float, *, on_gpu: bool) -> dict[str, Any]:
    """It as DeepSpeed wants it. On a CPU, Muon's Adam is PyTorch's: DeepSpeed's would be compiled, for a GPU."""
    kind = optimizer.kind.lower()
    inline = {"torch_adam": True} if kind == "muon" and not on_gpu else {}
    return {"type": optimizer.kind, "params": inline | dict(optimizer.params) | {"lr": learning_rate}}


def _checked(key: str, value: Any) -> Any:
    """Betas as a tuple, anything else as the number it must be."""
    if key == "optimizer.params.betas" and isinstance(value, list) and len(value) == 2:
        return tuple(value)
    kinds = (int,) if key.endswith(("_size", "_gpu", "_steps", "stage")) else (int, float)
    if type(value) not in kinds:
        raise TrainError(f'{key} is {value!r} in the DeepSpeed file; write a number, or "auto"')
    return value


def _at(content: Any, key: str) -> Any:
    """The value at a dotted key, or None."""
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return None
        content = content[part]
    return content


def _without_auto(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_auto(value) for key, value in content.items() if value != "auto"}
    return content
