"""A model and packs in, how far it computes on packs what plain transformers computes on each example alone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from train.attention import NAME, check_every_layer_attends
from train.batch import Batch, collate
from train.config import RunConfig
from train.hub import ModelFiles
from train.kernels import Kernels, choose_attention, choose_kernels, probe_tokens
from train.launch import Ranks
from train.load import Packs
from train.loss import summed_loss, target_losses
from train.model import DTYPES, load_weights, read_shape

ROWS = 512  # of logits that are float64 at a time: 0.6 GB for Qwen3's vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """What was measured."""

    kernels: Kernels
    loss: float  # relative difference of the loss of packs and that of each example alone
    gradients: float  # largest relative difference of a weight's gradient, by norm
    gradient_of: str  # which weight that is
    by_hand: float  # relative difference of the loss and one from logits, in float64, divided by the number of targets
    moved: float  # the most that a loss of another example changed when one was changed
    num_packs_moved: int  # packs in which one example was changed
    own_moved: float  # how far the changed example's own losses changed


def compare_packed(files: ModelFiles, packs: Packs, config: RunConfig, ranks: Ranks) -> Packed:
    """Compute both ways on the rank's device, in the run's precision."""
    shape, device, dtype = read_shape(files), ranks.device, DTYPES[config.precision]
    attention = choose_attention(device, dtype, shape)
    model = load_weights(files, dtype, NAME, device)
    model.eval()  # dropout would fall otherwise on packs than on examples
    check_every_layer_attends(model, device, shape.num_layers)
    kernels = choose_kernels(model, attention, shape.vocab_size, device, probe_tokens(config, device))
    losses = [_backward(summed_loss(model, collate(packs, [index]).to(device))) for index in range(len(packs))]
    gradients = {
        name: parameter.grad.cpu() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad(set_to_none=True)
    changes = [change_one_example(model, packs, index, device) for index in range(len(packs))]
    del model
    plain = load_weights(files, dtype, "sdpa", device)
    plain.eval()
    alone, by_hand = _each_alone(plain, packs, device)
    far = {name: _distance(gradients[name], gradient.cpu()) for name, gradient in _gradients(plain)}
    worst = max(far, key=lambda name: far[name])
    shown = [change for change in changes if change is not None]
    total, targets = sum(losses), int(packs.num_targets.sum())
    return Packed(
        kernels=kernels,
        loss=abs(total / alone - 1),
        gradients=far[worst],
        gradient_of=worst,
        by_hand=abs(total / targets / by_hand - 1),
        moved=max((others for others, _ in shown), default=0.0),
        own_moved=min((own for _, own in shown), default=0.0),
        num_packs_moved=len(shown),
    )


def _gradients(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            yield name, parameter.grad


def _backward(loss: torch.Tensor) -> float:
    loss.backward()
    return loss.item()


def _each_alone(plain: Any, packs: Packs, device: torch.device) -> tuple[float, float]:
    """The summed loss of all examples, each by itself, whose gradients stay in `plain`; and the mean loss by hand."""
    total, by_hand, count = 0.0, 0.0, 0
    for ids, is_target in _examples(packs):
        logits = plain(input_ids=torch.from_numpy(ids)[None].to(device), use_cache=False).logits[0]
        if not is_target.any():
            continue
        labels = torch.from_numpy(np.where(is_target, ids, -100))[1:].to(device)
        loss = torch.nn.functional.cross_entropy(logits[:-1].float(), labels, reduction="sum")
        total += _backward(loss)
        places = torch.from_numpy(np.flatnonzero(is_target)).to(device)
        for some in places.split(ROWS):
            scores = logits.detach()[some - 1].double()
            top = scores.amax(1, keepdim=True)
            normalizers = top + (scores - top).exp().sum(1, keepdim=True).log()
            by_hand += (normalizers - scores.gather(1, labels[some - 1, None])).sum().item()
        count += len(places)
    return total, by_hand / count


def _examples(packs: Packs) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and targets of each example, as the shards have them."""
    for index in range(len(packs)):
        pack, start = packs[index], 0
        for length in pack.seq_lengths.tolist():
            part = slice(start, start + length)
            yield pack.input_ids[part].astype(np.int64), np.asarray(pack.is_target[part])
            start += length


def change_one_example(model: Any, packs: Packs, index: int, device: torch.device) -> tuple[float, float] | None:
    """Change the tokens of a pack's middle example; gives the most that losses of the others move, and its own.

    None where the pack holds no other example with targets.
    """
    lengths = packs[index].seq_lengths.tolist()
    middle = len(lengths) // 2
    start, end = sum(lengths[:middle]), sum(lengths[: middle + 1])
    batch = collate(packs, [index])
    own = (batch.predicting >= start) & (batch.predicting < end)
    if own.all() or len(lengths) < 2:
        return None
    ids = batch.input_ids.clone()
    ids[0, start:end] = ids[0, start:end].roll(1)
    ids[0, start] = batch.input_ids[0, (end + start) // 2]
    before, after = (_losses(model, each, device) for each in (batch, replace(batch, input_ids=ids)))
    moved = (before - after).abs()
    return moved[~own].max().item(), moved[own].max().item() if own.any() else float("inf")


def _losses(model: Any, batch: Batch, device: torch.device) -> torch.Tensor:
    with torch.no_grad():
        return target_losses(model, batch.to(device)).cpu()


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative to the norm of the other; 0 where both are zero."""
    norm = other.float().norm().item()
    return (one.float() - other.float()).norm().item() / norm if norm else float(one.float().norm().item())
