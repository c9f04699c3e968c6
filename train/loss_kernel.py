"""Cross-entropy and its gradient in one Triton kernel: logits are read twice and the gradient takes their place.

After the online softmax of Milakov and Gimelshein (2018). What torch.compile makes of `losses_and_gradients` reads
three times and needs a second array.
"""

import torch
import triton
import triton.language as tl

from schemas.errors import TrainError
from schemas.shard import IGNORED_LABEL

BLOCK, WARPS = 16384, 32


def losses_and_gradients_in_place(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What train.loss.losses_and_gradients gives; the gradient overwrites the logits (rows, vocabulary)."""
    if logits.stride(1) != 1:
        raise TrainError("logits must be contiguous along the vocabulary")
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    _row[(len(logits),)](
        logits, labels, losses, logits.shape[1], logits.stride(0), IGNORED=IGNORED_LABEL, BLOCK=BLOCK, num_warps=WARPS
    )
    return losses.sum(), logits


@triton.jit
def _row(logits, labels, losses, vocab_size, stride, IGNORED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One program a row."""
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * stride
    label = tl.load(labels + row)
    counted = label != IGNORED
    own = tl.load(start + label, mask=counted, other=0.0).to(tl.float32)  # before it is overwritten
    largest = float("-inf")
    total = 0.0
    for first in range(0, vocab_size, BLOCK):
        places = first + tl.arange(0, BLOCK)
        scores = tl.load(start + places, mask=places < vocab_size, other=float("-inf")).to(tl.float32)
        top = tl.maximum(largest, tl.max(scores, 0))
        total = total * tl.exp(largest - top) + tl.sum(tl.exp(scores - top), 0)
        largest = top
    normalizer = largest + tl.log(total)
    tl.store(losses + row, tl.where(counted, normalizer - own, 0.0))
    for first in range(0, vocab_size, BLOCK):
        places = first + tl.arange(0, BLOCK)
        scores = tl.load(start + places, mask=places < vocab_size, other=float("-inf")).to(tl.float32)
        share = tl.exp(scores - normalizer) - tl.where(places == label, 1.0, 0.0)
        tl.store(start + places, tl.where(counted, share, 0.0).to(logits.dtype.element_ty), mask=places < vocab_size)
