"""Parameters in, AdamW with two groups out; and the learning rate of each step."""

import math
from collections.abc import Iterator
from typing import Any

import torch

from train.config import RunConfig

COOLDOWN = 0.2  # of what follows the warm-up in wsd: a fall of 1 - sqrt(x) (Hägele et al. 2024)
GROUP_PARAMETERS = 500_000_000  # DeepSpeed copies a group's gradients, in float32 too, when it takes a step


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; embeddings (and a head tied to them), biases and norms do not.

    Several groups of each, so that none is large.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    decayed: list[torch.nn.Parameter] = []
    free: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        shape = getattr(parameter, "ds_shape", parameter.shape)  # the whole shape, where ZeRO-3 has cut it up
        (decayed if len(shape) > 1 and id(parameter) not in embeddings else free).append(parameter)
    return [
        {"params": part, "weight_decay": decay}
        for parameters, decay in ((decayed, weight_decay), (free, 0.0))
        for part in _parts(parameters)
    ]


def _parts(parameters: list[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Parameters in turn, a new part where the next would make one too large."""
    part: list[torch.nn.Parameter] = []
    size = 0
    for parameter in parameters:
        count = getattr(parameter, "ds_numel", parameter.numel())
        if part and size + count > GROUP_PARAMETERS:
            yield part
            part, size = [], 0
        part.append(parameter)
        size += count
    if part:
        yield part


def build_optimizer(model: torch.nn.Module, config: RunConfig, *, on_gpu: bool) -> torch.optim.Optimizer:
    """AdamW: PyTorch's, which needs no compiling, or DeepSpeed's for CPU where a GPU's state is kept in CPU memory."""
    groups = parameter_groups(model, config.weight_decay)
    if config.offload_optimizer and on_gpu:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(groups, adamw_mode=True, **_settings(config))
    return adamw(groups, config, on_gpu=on_gpu)


def adamw(groups: list[dict[str, Any]], config: RunConfig, *, on_gpu: bool) -> torch.optim.Optimizer:
    """PyTorch's AdamW over groups of parameters."""
    return torch.optim.AdamW(groups, fused=on_gpu, **_settings(config))


def keep_rates_apart(groups: list[dict[str, Any]], learning_rate: float) -> None:
    """Note how each group's rate stands to the run's: Muon's matrices and its Adam part may have their own."""
    for group in groups:
        group["rate_scale"] = group["lr"] / learning_rate


def drop_moments(optimizer: Any) -> None:
    """Free what DeepSpeed's optimizer keeps of each weight beside it, once nothing is trained any more."""
    getattr(optimizer, "optimizer", optimizer).state.clear()


def hold_moments(optimizer: Any, num_bytes: int, device: torch.device) -> list[torch.Tensor]:
    """Take the memory that AdamW will want at the end of its first step; the list is empty when it comes to that.

    So the first step, whose packs are the heaviest, has as little room as all others, and runs out of it at once.
    """
    held = [torch.empty(num_bytes, dtype=torch.uint8, device=device)]
    getattr(optimizer, "optimizer", optimizer).register_step_pre_hook(lambda *_: held.clear())
    return held


def set_rate(groups: list[dict[str, Any]], rate: float) -> None:
    """Give each group the rate of a step."""
    for group in groups:
        group["lr"] = rate * group.get("rate_scale", 1.0)


def num_warmup_steps(config: RunConfig, num_steps: int) -> int:
    """Steps in which the learning rate rises."""
    steps = config.warmup_steps if config.warmup_steps is not None else math.ceil(config.warmup_ratio * num_steps)
    return min(steps, num_steps)


def learning_rate(config: RunConfig, step: int, num_steps: int) -> float:
    """The rate of step `step` (from 0): a linear rise to the peak, then the schedule, towards 0 past the last step."""
    warmup = num_warmup_steps(config, num_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    factors = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "wsd": 1 - math.sqrt(max(0.0, 1 - (1 - progress) / COOLDOWN)),
        "constant": 1.0,
    }
    return config.learning_rate * factors[config.schedule]


def _settings(config: RunConfig) -> dict[str, Any]:
    return {"lr": config.learning_rate, "betas": config.adam_betas, "eps": config.adam_eps}
