"""A batch in, the sum of its targets' losses out. Logits exist for targets only; context tokens never have any."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F

from schemas.shard import IGNORED_LABEL
from train.attention import bounds
from train.batch import Batch


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
    return F.cross_entropy(logits.float(), batch.labels, reduction="sum", ignore_index=IGNORED_LABEL)


def keeps_logits(model: torch.nn.Module) -> bool:
    """Whether the model computes logits at chosen positions only."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters
