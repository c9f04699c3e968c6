"""`train run` on a CPU with what a GPU is given: layers compiled and the head in the loss, or it fails."""

from typing import Any

import torch

import train.engine
from train.cli import main
from train.kernels import PROBE_TOKENS, Kernels, compile_layers, probe
from train.loss import fuse_head


def choose_kernels(
    model: Any, attention: str, vocab_size: int, device: torch.device, num_tokens: int = PROBE_TOKENS
) -> Kernels:
    """As the trainer's own on CUDA."""
    batch = probe(vocab_size, device, num_tokens)
    assert compile_layers(model, batch) is None
    assert fuse_head(model, batch, None)
    return Kernels(attention=attention, layers="compiled", head="in the loss")


if __name__ == "__main__":
    train.engine.choose_kernels = choose_kernels
    raise SystemExit(main())
