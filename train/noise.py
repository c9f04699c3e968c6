"""NEFTune (Jain et al. 2023): uniform noise on the embeddings while a model trains, none when it is measured.

Its size is alpha / sqrt(length x width), by the length of the token's own example: a pack's examples get the noise that
each would get alone.
"""

from typing import Any

import torch


def add_noise(model: Any, alpha: float) -> None:
    """Have the model's embeddings disturbed in training; the model must be given its examples' bounds."""
    lengths: list[torch.Tensor] = []  # of the examples in the forward pass that goes on

    def take_lengths(module: torch.nn.Module, arguments: Any, named: dict[str, Any]) -> None:
        lengths[:] = [named["cu_seq_lens_q"].diff()]

    def disturb(module: torch.nn.Module, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return output
        size = noise_size(alpha, lengths[0], num_tokens=output.shape[1], width=output.shape[2])
        return output + torch.zeros_like(output).uniform_(-1, 1) * size.to(output.dtype)[None, :, None]

    model.register_forward_pre_hook(take_lengths, with_kwargs=True)
    model.get_input_embeddings().register_forward_hook(disturb)


def noise_size(alpha: float, lengths: torch.Tensor, *, num_tokens: int, width: int) -> torch.Tensor:
    """The noise's largest size at each token: alpha 5, lengths [1, 4], width 25 -> [1, .5, .5, .5, .5]."""
    sizes = alpha / (lengths * width).float().sqrt()
    return sizes.repeat_interleave(lengths, output_size=num_tokens)
