"""What DeepSpeed's engine does, for one process and without it: there is nothing to share out.

The model computes in bfloat16. Beside it stand float32 weights, which AdamW moves, and float32 gradients, in which the
micro-batches of a step add up without the rounding of bfloat16.
"""

from typing import Any

import torch

from train.config import RunConfig
from train.optimizer import adamw, parameter_groups


class PlainEngine:
    """A model, its float32 weights and their optimizer; called as DeepSpeed's engine is."""

    def __init__(self, model: Any, config: RunConfig, *, on_gpu: bool, compiled: bool = False) -> None:
        self.module = model
        # PyTorch's own addition of bfloat16 to float32 reaches half the memory's speed
        self._add = torch.compile(_add, dynamic=True) if compiled else _add
        self._micro_steps, self._taken = config.num_micro_steps, 0
        self._max_norm, self._norm = config.max_grad_norm, torch.zeros(())
        groups = parameter_groups(model, config.weight_decay)
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._masters: list[torch.Tensor] = []
        for group in groups:
            group["params"] = [self._master(parameter) for parameter in group["params"]]
            self._masters += group["params"]
        self._gradients: list[torch.Tensor] = [master.grad for master in self._masters if master.grad is not None]
        self.optimizer = adamw(groups, config, on_gpu=on_gpu)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The model's output."""
        return self.module(*arguments, **named)

    def train(self) -> None:
        """Train mode."""
        self.module.train()

    def eval(self) -> None:
        """Evaluation mode."""
        self.module.eval()

    def backward(self, loss: torch.Tensor, **_: Any) -> None:
        """Add the loss's gradients to those of the step."""
        loss.backward()

    @torch.no_grad()
    def step(self) -> None:
        """Count a micro-batch; after the last of a step, clip, move the weights and start over."""
        self._taken += 1
        if self._taken % self._micro_steps:
            return
        self._norm = torch.nn.utils.get_total_norm(self._gradients)
        torch._foreach_mul_(self._gradients, (self._max_norm / (self._norm + 1e-6)).clamp(max=1))
        self.optimizer.step()
        torch._foreach_copy_(self._parameters, self._masters)
        torch._foreach_zero_(self._gradients)

    def get_global_grad_norm(self) -> torch.Tensor:
        """The norm of the last step's gradients before clipping; may still be on its way."""
        return self._norm

    def _master(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """The float32 weight of `parameter`, and with it a float32 gradient that takes each of the parameter's."""
        master = parameter.detach().float()
        total = master.grad = torch.zeros_like(master)

        @torch.no_grad()
        def take(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            self._add(total, parameter.grad)
            parameter.grad = None

        parameter.register_post_accumulate_grad_hook(take)
        return master


def _add(total: torch.Tensor, gradient: torch.Tensor) -> None:
    total.add_(gradient)
