"""A model and shards in, as much of both out as can be computed with in a minute or so: the first layers, a few packs.

On a GPU whole packs and as many layers as can be written to disk and read again soon; on a CPU fewer layers and short
examples, chosen by what its matrix products take.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from schemas.errors import TrainError
from schemas.shard import SHARD
from train.hub import ModelFiles
from train.load import Pack, Packs
from train.model import ModelShape, decoder_layers, load_weights, told_as_model_error
from train.snapshot import free_bytes

NUM_PACKS = 7  # steps of 4 and 3: uneven, also among two ranks
CPU_TOKENS = 160  # of a pack
BUDGET_S = 40.0
GPU_WEIGHTS = 1e9  # a checkpoint of them takes 14 GB
PASSES = 8  # times that all packs go forward and backward, all checks together
BYTES_A_WEIGHT = 24  # AdamW's 16, and another model beside it
MOST_OF_MEMORY = 0.7


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What is computed with."""

    files: ModelFiles
    packs: Packs
    num_layers: int
    num_tokens: int


def sample(files: ModelFiles, shape: ModelShape, packs: Packs, device: torch.device, folder: Path) -> Sample:
    """Choose packs and layers for `device`; a model that is cut is written to `folder`.

    Raises TrainError where memory does not hold two layers.
    """
    chosen = few_packs(packs, NUM_PACKS, None if device.type == "cuda" else CPU_TOKENS)
    tokens = int(chosen.num_tokens.sum())
    num_layers = layers_that_fit(shape, tokens, device)
    if num_layers < shape.num_layers or files.adapter is not None:
        files = write_cut(files, num_layers, folder)
    return Sample(files=files, packs=chosen, num_layers=num_layers, num_tokens=tokens)


def few_packs(packs: Packs, count: int, most_tokens: int | None) -> Packs:
    """Packs from all over the split that hold targets, each cut to whole examples of `most_tokens` together.

    Where no two of a pack's examples are as short, tokens around the first targets of two are taken.
    """
    usable = np.flatnonzero(packs.num_targets)
    if len(usable) == 0:
        raise TrainError("no pack holds a target; there is nothing to verify")
    places = usable[np.linspace(0, len(usable) - 1, min(count, len(usable))).astype(int)]
    rows = [_cut_pack(packs[index], packs.source_ids(index), most_tokens) for index in places.tolist()]
    return Packs([pa.RecordBatch.from_pylist(rows, schema=SHARD)])


def layers_that_fit(shape: ModelShape, tokens: int, device: torch.device) -> int:
    """As many of the model's layers as time and memory allow, two at least."""
    around = shape.vocab_size * shape.hidden * (1 if shape.tied else 2)
    a_layer = (shape.num_parameters - around) / shape.num_layers
    on_gpu = device.type == "cuda"
    memory = MOST_OF_MEMORY * (torch.cuda.mem_get_info()[0] if on_gpu else free_bytes())
    models = 1 if on_gpu and torch.cuda.device_count() == 1 else 2  # with a rank's beside
    weights = memory / BYTES_A_WEIGHT / models
    two_layers = around + 2 * a_layer
    soon = GPU_WEIGHTS if on_gpu else BUDGET_S * _matmul_flops() / (6 * tokens * PASSES)
    weights = min(weights, max(two_layers, soon))
    if weights < two_layers:
        needed = BYTES_A_WEIGHT * two_layers * models / MOST_OF_MEMORY
        raise TrainError(
            f"two layers of this model take {needed / 2**30:.0f} GiB of memory to verify; use a machine that has them"
        )
    return min(shape.num_layers, int((weights - around) / a_layer))


def write_cut(files: ModelFiles, num_layers: int, folder: Path) -> ModelFiles:
    """Write the model with its first layers only, in its own weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if files.gguf is None and files.adapter is None:
        with told_as_model_error(files):
            config = AutoConfig.from_pretrained(files.folder, local_files_only=True)
            _shorten(config.get_text_config(), num_layers)
            model: Any = AutoModelForCausalLM.from_pretrained(
                files.folder, config=config, dtype=torch.float32, local_files_only=True
            )
    else:
        model = load_weights(files, torch.float32)
        layers = decoder_layers(model)
        holder = next(module for module in model.modules() if layers[0] in module.children())
        del holder[num_layers:]
        _shorten(model.config.get_text_config(), num_layers)
    model.save_pretrained(folder)
    return ModelFiles(name=files.name, folder=folder, gguf=None)


def _shorten(config: Any, num_layers: int) -> None:
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]


def _cut_pack(pack: Pack, source_ids: np.ndarray, most_tokens: int | None) -> dict[str, Any]:
    lengths = pack.seq_lengths.tolist()
    ends = np.cumsum(lengths).tolist()
    spans = [(end - length, end) for length, end in zip(lengths, ends, strict=True)]
    has_targets = [bool(pack.is_target[slice(*span)].any()) for span in spans]
    kept = list(range(len(spans)))
    if most_tokens is not None:
        order = sorted(kept, key=lambda each: (not has_targets[each], lengths[each]))
        kept, room = [], most_tokens
        for index in order:
            if lengths[index] <= room:
                kept.append(index)
                room -= lengths[index]
        if len(kept) < min(2, len(spans)):  # two at least, or nothing would show that they keep apart
            kept = sorted(order[:2])
            for index in kept:
                spans[index] = _cut_span(spans[index], pack.is_target, most_tokens // len(kept))
    parts = [slice(*spans[index]) for index in kept]
    masks = [pack.is_target[part] & (np.arange(part.stop - part.start) > 0) for part in parts]
    return {
        "input_ids": np.concatenate([pack.input_ids[part] for part in parts]),
        "assistant_masks": np.concatenate(masks),
        "seq_lengths": [part.stop - part.start for part in parts],
        "num_targets": int(sum(mask.sum() for mask in masks)),
        "source_ids": source_ids[kept],
        "conversation_rows": [0] * len(kept),
        "conversation_starts": [0] * len(kept),
    }


def _cut_span(span: tuple[int, int], is_target: np.ndarray, most_tokens: int) -> tuple[int, int]:
    """So many tokens of an example at most, its first target in their middle."""
    start, end = span
    targets = np.flatnonzero(is_target[start:end])
    first = int(targets[0]) if len(targets) else 0
    end = min(end, start + max(first + most_tokens // 2, most_tokens))
    return max(start, end - most_tokens), end


def _matmul_flops() -> float:
    """What this machine's matrix products reach in float32, in FLOP/s; half of it, for a model is more than those."""
    one = torch.randn(512, 1024)
    other = torch.randn(1024, 1024)
    one @ other
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 0.1:
        one @ other
        count += 1
    return 0.5 * count * 2 * 512 * 1024 * 1024 / (time.perf_counter() - started)
