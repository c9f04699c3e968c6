"""How much of a GPU a step will take, told before it is taken; by it the size of micro-batches is chosen.

Counted for compiled layers in 16 bits, the head in the loss. Measured peaks on an H200 (Qwen3 0.6B, 1.7B and 4B,
micro-batches of 8k to 32k tokens) lie within 1% of it.
"""

from dataclasses import replace

from train.config import RunConfig
from train.loss import COMPILED_CHUNK_ROWS
from train.model import ModelShape

MICRO_TOKENS = 32768  # longer micro-batches make no step faster
USABLE = 0.96  # of a GPU's memory; the rest is CUDA's and what fragments
WORKSPACE = 1.2e9  # of the matmuls, and what a step keeps besides


def predicted_bytes(config: RunConfig, shape: ModelShape, *, plain: bool) -> float:
    """The peak of a training step on each rank."""
    tokens = config.micro_packs * config.seq_len
    layer = 2 * (4 * shape.hidden + 3 * shape.query_width + 3 * shape.key_width + 3 * shape.intermediate)
    kept = layer * shape.num_layers
    if config.gradient_checkpointing:
        kept = layer + 2 * shape.hidden * shape.num_layers
    embedding = 2 * shape.vocab_size * shape.hidden
    logits = 2 * min(tokens, COMPILED_CHUNK_ROWS) * shape.vocab_size
    states = shape.num_parameters * _bytes_a_parameter(config, plain=plain)
    return states + tokens * kept + 2 * logits + 2 * embedding + WORKSPACE


def fitted(config: RunConfig, shape: ModelShape, gpu_bytes: int, *, plain: bool) -> RunConfig:
    """The run with the longest micro-batches that fit; gradients are checkpointed where not even one pack fits else.

    Only sizes that share the batch out evenly are taken: 16 packs a step on 1 rank -> 8, 4, 2 or 1 of 4,096 tokens.
    """
    share = -(-config.batch_packs // config.num_ranks)
    most = max(1, MICRO_TOKENS // config.seq_len)
    sizes = [size for size in range(min(most, share), 0, -1) if share % size == 0]
    checkpointing = [True] if config.gradient_checkpointing else [False, True]
    choices = [
        replace(config, micro_packs=size, gradient_checkpointing=each) for each in checkpointing for size in sizes
    ]
    room = USABLE * gpu_bytes
    return next((each for each in choices if predicted_bytes(each, shape, plain=plain) < room), choices[-1])


def _bytes_a_parameter(config: RunConfig, *, plain: bool) -> float:
    """Weights and gradients in 2 bytes; float32 weights and two moments; the plain engine's gradients are float32."""
    if plain:
        return 2 + 4 + 12
    if config.precision == "fp32":
        return 4 + 4 + 8
    shared = {0: (2, 2, 12), 1: (2, 2, 12 / config.num_ranks), 2: (2, 2 / config.num_ranks, 12 / config.num_ranks)}
    return sum(shared.get(config.zero, (16 / config.num_ranks,)))
