"""`train compare`: two models on the same held-out packs and prompts; loss and perplexity, overall and by source."""

from argparse import Namespace
from typing import Any

import numpy as np
import torch

from schemas.errors import TrainError
from train.evaluate import add_losses, sources_of_targets
from train.hub import ModelFiles, find_model
from train.load import Packs, Shards, open_shards
from train.log import perplexity

LABELS = "A", "B"


def compare(options: Namespace) -> int:
    """Print the table, then each prompt's two answers. Gives the exit code."""
    from train.launch import quiet_libraries

    quiet_libraries()
    shards = open_shards(options.shards)
    packs = shards.val
    if packs is None:
        raise TrainError(
            f"{shards.folder}: no packs are held out; run: dataprep tokenize --model M --val-fraction 0.05"
        )
    names = [options.a, options.b]
    losses = [_losses(find_model(name), shards, packs) for name in names]
    print(*(f"{label}  {name}" for label, name in zip(LABELS, names, strict=True)), "", sep="\n")
    print("\n".join(loss_table(shards.manifest.sources, packs, losses)), flush=True)
    if options.prompt:
        from train.chat import chat

        print()
        asked = {"prompt": options.prompt, "max_tokens": options.max_tokens}
        chat(Namespace(model=options.b, base=options.a, system=None, temperature=0.0, seed=0, **asked))
    return 0


def loss_table(sources: list[str], packs: Packs, losses: list[np.ndarray]) -> list[str]:
    """Lines of a table; `losses` are of both models the summed loss of each source, in the manifest's order."""
    targets = targets_by_source(packs, len(sources))
    rows = [(name, targets[index], [each[index] for each in losses]) for index, name in enumerate(sources)]
    rows = [row for row in rows if row[1]]
    whole = ("all", int(targets.sum()), [each.sum() for each in losses])
    width = max(6, *(len(name) for name, *_ in (*rows, whole)))
    lines = [f"{'source':<{width}}  {'targets':>11}  {'loss A':>8}  {'loss B':>8}  {'B - A':>8}  perplexity A, B"]
    for name, count, sums in (*rows, whole):
        one, other = (float(total) / count for total in sums)
        lines.append(
            f"{name:<{width}}  {count:>11,}  {one:8.4f}  {other:8.4f}  {other - one:+8.4f}  "
            f"{perplexity(one):.2f}, {perplexity(other):.2f}"
        )
    return lines


def targets_by_source(packs: Packs, num_sources: int) -> np.ndarray:
    """How many targets each source has in the packs."""
    counts = np.zeros(num_sources, dtype=np.int64)
    for index in range(len(packs)):
        counts += np.bincount(sources_of_targets(packs, index), minlength=num_sources)
    return counts


def losses_by_source(model: Any, packs: Packs, num_sources: int, device: torch.device) -> np.ndarray:
    """The summed loss of each source's targets, in nats."""
    sums = torch.zeros(2, num_sources, dtype=torch.float64, device=device)
    for index in range(len(packs)):
        add_losses(sums, model, packs, [index])
    return sums[0].cpu().numpy()


def _losses(files: ModelFiles, shards: Shards, packs: Packs) -> np.ndarray:
    """Load a model, measure it, and let it go again: the two need not fit in memory together."""
    from train.attention import NAME
    from train.kernels import choose_attention
    from train.model import check_fits, load_weights, read_shape

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    shape = read_shape(files)
    check_fits(files, shape, shards)
    choose_attention(device, dtype, shape)
    model = load_weights(files, dtype, NAME, device).eval()
    return losses_by_source(model, packs, len(shards.manifest.sources), device)
