"""A batch in, the sum of its targets' losses out. Logits exist for targets only; context tokens never have any."""

import inspect
from typing import Any

import torch

from schemas.shard import IGNORED_LABEL
from train.attention import bounds
from train.batch import Batch

CHUNK_ROWS = 256


def summed_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Sum over the batch's targets of the cross-entropy in float32, a scalar; dividing it is the caller's part.

    `model` is a causal language model of transformers, or the DeepSpeed engine around it.
    """
    sliced = keeps_logits(getattr(model, "module", model))
    logits = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=None,
        use_cache=False,
        **({"logits_to_keep": batch.predicting} if sliced else {}),
        **bounds(batch),
    ).logits[0]
    if not sliced:
        logits = logits[batch.predicting]
    return SummedCrossEntropy.apply(logits, batch.labels)


class SummedCrossEntropy(torch.autograd.Function):
    """Cross-entropy in float32, summed; logits (targets, vocabulary) of any dtype.

    Works in chunks of rows, so that float32 copies of the logits (2.5 GB for 4,096 targets of Qwen3's vocabulary) never
    exist whole; `cross_entropy(logits.float())` makes three of them. Rows labelled -100 count nothing.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum of -log softmax(logits)[label]."""
        counted = labels != IGNORED_LABEL
        places = labels.where(counted, 0)[:, None]
        normalizers = torch.cat([chunk.float().logsumexp(-1) for chunk in logits.split(CHUNK_ROWS)])
        ctx.save_for_backward(logits, places, counted, normalizers)
        return ((normalizers - logits.gather(1, places)[:, 0].float()) * counted).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Softmax minus one at the label, in the logits' own dtype."""
        logits, places, counted, normalizers = ctx.saved_tensors
        result = torch.empty_like(logits)
        scale = (counted * gradients[0])[:, None]
        for start in range(0, len(logits), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            share = (logits[rows].float() - normalizers[rows, None]).exp_()
            share.scatter_add_(1, places[rows], torch.full_like(share[:, :1], -1.0))
            result[rows] = share.mul_(scale[rows])
        return result, None


def keeps_logits(model: torch.nn.Module) -> bool:
    """Whether the model computes logits at chosen positions only."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters
