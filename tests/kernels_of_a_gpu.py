"""`train run` on a CPU with what a GPU is given: layers compiled and the head in the loss, or it fails.

With BROKEN_COMPILER set, what is compiled fails in its backward pass.
"""

import os
from collections.abc import Callable
from typing import Any

import torch

import train.engine
from train.cli import main
from train.kernels import Kernels, compile_layers, probe
from train.loss import fuse_head


class _Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no kernel for this GPU")


def broken_compile(call: Callable[..., torch.Tensor], **settings: Any) -> Callable[..., torch.Tensor]:
    """In the place of torch.compile."""
    return lambda *arguments, **named: _Broken.apply(call(*arguments, **named))


def choose_kernels(
    model: Any, attention: str, vocab_size: int, device: torch.device, num_tokens: int, not_compiled: str | None
) -> Kernels:
    """As the trainer's own on CUDA."""
    batch = probe(vocab_size, device, num_tokens)
    if not_compiled is None:
        assert compile_layers(model, batch) is None
    assert fuse_head(model, batch, None)
    return Kernels(attention=attention, layers=not_compiled or "compiled", head="in the loss")


if __name__ == "__main__":
    train.engine.choose_kernels = choose_kernels
    if "BROKEN_COMPILER" in os.environ:
        torch.compile = broken_compile
    raise SystemExit(main())
