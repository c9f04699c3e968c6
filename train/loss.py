"""A batch in, the sum of its targets' losses out. Logits exist for targets only; context tokens never have any."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from schemas.shard import IGNORED_LABEL
from train.attention import bounds
from train.batch import Batch

CHUNK_ROWS = 256
COMPILED_CHUNK_ROWS = 4096  # logits of 1.2 GB for Qwen3's vocabulary; fewer rows cost matmul speed

Measure = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def summed_loss(model: Any, batch: Batch, smoothing: float = 0.0) -> torch.Tensor:
    """Sum over the batch's targets of the cross-entropy in float32, a scalar; dividing it is the caller's part.

    `model` is a causal language model of transformers, or the DeepSpeed engine around it. With label smoothing (Szegedy
    et al. 2016) that part of each target is spread over the vocabulary.
    """
    module = getattr(model, "module", model)
    head, rows = head_of(module), _target_logits(model, module, batch)
    if isinstance(fused := head.forward, _HeadInLoss):
        return head(rows, lambda *parts: LinearCrossEntropy.apply(*parts, batch.labels, fused.measure, smoothing))
    return SummedCrossEntropy.apply(rows, batch.labels, smoothing)


def target_losses(model: Any, batch: Batch) -> torch.Tensor:
    """The cross-entropy of each of the batch's labels in float32, those of -100 being 0; has no gradient to give.

    `model` as for `summed_loss`.
    """
    module = getattr(model, "module", model)
    head, rows = head_of(module), _target_logits(model, module, batch)
    if isinstance(head.forward, _HeadInLoss):
        return head(rows, partial(_each_loss, labels=batch.labels))
    return _each_loss(rows, None, labels=batch.labels)


def _each_loss(rows: torch.Tensor, weight: torch.Tensor | None, *, labels: torch.Tensor) -> torch.Tensor:
    """Of logits, or of hidden states and the head's weight; some hundred rows at a time."""
    counted = labels != IGNORED_LABEL
    places = labels.where(counted, 0)[:, None]
    losses = []
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        scores = (chunk if weight is None else chunk @ weight.T).float()
        losses.append(scores.logsumexp(-1) - scores.gather(1, places[start : start + CHUNK_ROWS])[:, 0])
    return torch.cat(losses) * counted


def _target_logits(model: Any, module: Any, batch: Batch) -> torch.Tensor:
    """Logits where targets are predicted, (targets, vocabulary), or hidden states where the head is in the loss."""
    sliced = keeps_logits(module)
    logits = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=None,
        use_cache=False,
        **({"logits_to_keep": batch.predicting} if sliced else {}),
        **bounds(batch),
    ).logits[0]
    return logits if sliced else logits[batch.predicting]


class SummedCrossEntropy(torch.autograd.Function):
    """Cross-entropy in float32, summed; logits (targets, vocabulary) of any dtype.

    Works in chunks of rows, so that float32 copies of the logits (2.5 GB for 4,096 targets of Qwen3's vocabulary) never
    exist whole; `cross_entropy(logits.float())` makes three of them. Rows labelled -100 count nothing.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Sum of -log softmax(logits)[label]; `smoothing` of it is the mean over all labels."""
        counted = labels != IGNORED_LABEL
        places = labels.where(counted, 0)[:, None]
        normalizers = torch.cat([chunk.float().logsumexp(-1) for chunk in logits.split(CHUNK_ROWS)])
        ctx.save_for_backward(logits, places, counted, normalizers)
        ctx.smoothing = smoothing
        scores = (1 - smoothing) * logits.gather(1, places)[:, 0].float()
        if smoothing:
            scores += smoothing * logits.mean(-1, dtype=torch.float32)
        return ((normalizers - scores) * counted).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Softmax minus one at the label, in the logits' own dtype."""
        logits, places, counted, normalizers = ctx.saved_tensors
        result = torch.empty_like(logits)
        scale = (counted * gradients[0])[:, None]
        for start in range(0, len(logits), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            share = (logits[rows].float() - normalizers[rows, None]).exp_()
            share.scatter_add_(1, places[rows], torch.full_like(share[:, :1], ctx.smoothing - 1.0))
            if ctx.smoothing:
                share -= ctx.smoothing / share.shape[1]
            result[rows] = share.mul_(scale[rows])
        return result, None, None


class LinearCrossEntropy(torch.autograd.Function):
    """The head's matmul and the summed cross-entropy in one, so that logits exist for a few thousand rows at a time.

    The gradients are made in the forward pass, while a chunk's logits are there (after Liger-Kernel's fused linear
    cross-entropy, Hsu et al. 2024, with chunks long enough for the matmuls).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        measure: Measure | None,
        smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Sum of -log softmax(hidden @ weight.T)[label]; hidden (targets, width), weight (vocabulary, width)."""
        rows = CHUNK_ROWS if measure is None else COMPILED_CHUNK_ROWS
        measure = _smoothed(measure or losses_and_gradients, smoothing)
        to_hidden_wanted, to_weight_wanted = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        to_hidden = torch.empty_like(hidden) if to_hidden_wanted else None
        to_weight = torch.zeros_like(weight) if to_weight_wanted else None  # a frozen head has none
        for start in range(0, len(hidden), rows):
            chunk = hidden[start : start + rows]
            losses, to_logits = measure(chunk @ weight.T, labels[start : start + rows])
            total += losses
            if to_hidden is not None:
                torch.mm(to_logits, weight, out=to_hidden[start : start + rows])
            if to_weight is not None:
                to_weight.addmm_(to_logits.T, chunk)
            del to_logits  # or the next chunk's logits would stand beside it
        ctx.save_for_backward(to_hidden, to_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """What the forward pass made, times the gradient of the sum."""
        to_hidden, to_weight = (made if made is None else made.mul_(gradients[0]) for made in ctx.saved_tensors)
        return to_hidden, to_weight, None, None, None


def losses_and_gradients(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed cross-entropy of logits (rows, vocabulary), and its gradient in their dtype; labels of -100 are 0."""
    counted = labels != IGNORED_LABEL
    places = labels.where(counted, 0)[:, None]
    scores = logits.float()
    normalizers = scores.logsumexp(-1, keepdim=True)
    losses = (normalizers - scores.gather(1, places))[:, 0] * counted
    right = places == torch.arange(logits.shape[1], device=logits.device)
    gradient = ((scores - normalizers).exp() - right.float()) * counted[:, None]
    return losses.sum(), gradient.to(logits.dtype)


def _smoothed(measure: Measure, smoothing: float) -> Measure:
    """The measure with label smoothing: of each target that part goes from its label to the mean of all."""
    if not smoothing:
        return measure

    def call(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        counted = labels != IGNORED_LABEL
        places = labels.where(counted, 0)[:, None]
        lead = logits.gather(1, places)[:, 0].float() - logits.mean(-1, dtype=torch.float32)
        losses, gradients = measure(logits, labels)  # which may write over the logits
        part = smoothing * counted[:, None].to(gradients.dtype)
        gradients.sub_(part / logits.shape[1]).scatter_add_(1, places, part)
        return losses + smoothing * (lead * counted).sum(), gradients

    return call


class _HeadInLoss:
    """Takes the place of a head's forward: hands hidden states on, which the loss multiplies in a second call.

    A call of the module itself, for ZeRO-3 joins the weight's pieces in it, and only there.
    """

    def __init__(self, head: torch.nn.Linear, measure: Measure | None) -> None:
        self.head, self.measure = head, measure

    def __call__(
        self, hidden: torch.Tensor, made: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    ) -> torch.Tensor:
        """`hidden`, or what `made` makes of it and the head's weight."""
        return hidden if made is None else made(hidden, self.head.weight)


def head_of(model: Any) -> Any:
    """The layer that makes logits."""
    return model.get_output_embeddings()


def fuse_head(model: Any, batch: Batch, measure: Measure | None) -> bool:
    """Move the head's matmul into the loss, where a look at `batch` shows that the model only multiplies there.

    False, and nothing changed, for a head with a bias or an adapter, or a model that caps its logits. `model` as for
    `summed_loss`.
    """
    module = getattr(model, "module", model)
    head = head_of(module)
    if not isinstance(head, torch.nn.Linear) or head.bias is not None or not keeps_logits(module):
        return False

    whole = probed_logits(model, batch)
    head.forward = _HeadInLoss(head, measure)
    hidden = probed_logits(model, batch)
    if hidden.shape[-1] == head.in_features:
        with torch.no_grad():
            multiplied = head(hidden, lambda rows, weight: rows @ weight.T)
        if torch.allclose(multiplied, whole, rtol=2e-2):
            return True
    del head.forward
    return False


def probed_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Logits where a probe's targets are predicted, or hidden states where the head is in the loss."""
    module = getattr(model, "module", model)
    with same_dice(batch.input_ids.device):
        rows = _target_logits(model, module, batch)
    if module is not model:
        go_back(model, rows)
    return rows.detach()


def go_back(model: Any, value: torch.Tensor) -> None:
    """The backward pass of a probe, which leaves no gradient; DeepSpeed expects one for each forward pass."""
    if hasattr(model, "module"):
        model.backward(value.float().sum() * 0.0, scale_wrt_gas=False)
        model.optimizer.zero_grad(set_to_none=True)
        return
    try:
        value.sum().backward()
    finally:
        model.zero_grad(set_to_none=True)


@contextmanager
def same_dice(device: torch.device) -> Iterator[None]:
    """Let dropout fall the same way each time, and the run's own dice lie as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def keeps_logits(model: torch.nn.Module) -> bool:
    """Whether the model computes logits at chosen positions only."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters
