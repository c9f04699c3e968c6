"""How much of a GPU a step takes, part by part, told before it is taken.

Counted for compiled layers in 16 bits with the head in the loss, or with whole logits (fp16).
"""

from dataclasses import dataclass

from train.config import RunConfig
from train.loss import COMPILED_CHUNK_ROWS
from train.model import ModelShape
from train.optimizer import GROUP_PARAMETERS

WORKSPACE = 0.3e9  # of the matmuls, and what a step keeps besides
BUCKET = 5e8  # gradients that DeepSpeed sums at a time
LIVE = 1e9  # weights that ZeRO-3 keeps gathered at a time, at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes on each GPU at the fullest moment."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    buffers: float

    @property
    def total(self) -> float:
        """The peak."""
        parts = self.weights, self.gradients, self.optimizer, self.activations, self.logits, self.buffers
        return sum(parts)


def predicted_memory(
    config: RunConfig, shape: ModelShape, longest_pack: int, most_targets: int | None = None
) -> Memory:
    """The peak of a training step on each rank: in the backward pass, or where the optimizer copies gradients."""
    weights, gradients, optimizer = states(config, shape)
    # a step's only micro-batch finds none: they come as activations go. ZeRO-3 keeps room for them
    found = gradients if config.num_micro_steps > 1 or config.zero == 3 else 0.0
    tokens = config.micro_packs * longest_pack
    apart = config.precision == "fp16"
    twice_as_wide = 2 if config.precision == "fp32" else 1
    layer = twice_as_wide * (kept_bytes_a_token(shape) + _adapters_bytes_a_token(config, shape))
    boundary, head = twice_as_wide * 2 * shape.hidden, twice_as_wide * 2 * shape.vocab_size * shape.hidden
    if config.method.lora is not None:
        head = 0  # frozen, it has no gradient
    again = config.checkpointed_layers
    targets = config.micro_packs * (most_targets or longest_pack)
    rows = targets if apart else min(tokens, COMPILED_CHUNK_ROWS)
    logits: float = 4 * rows * shape.vocab_size if apart else 2 * rows * shape.vocab_size + head
    # the checkpointed layers are the first: when they are computed again, nothing is kept of the others
    kept: float = tokens * (layer * (shape.num_layers - again) + boundary * again)
    recomputed: float = tokens * (boundary * again + 1.6 * layer) - logits if again == shape.num_layers else 0
    buffers = WORKSPACE + 2 * min(BUCKET, shape.num_trained) + head / (config.num_ranks if config.zero == 3 else 1)
    # all gradients copied side by side, or one group's on their way to the optimizer
    copied = max(gradients, 6 * min(shape.num_trained, GROUP_PARAMETERS)) / config.num_ranks
    in_step = 0.0 if config.offload_optimizer else copied + WORKSPACE
    working: float = max(kept, recomputed)
    if working + logits + buffers + found < in_step + gradients:
        working, logits, buffers, found = 0.0, 0.0, in_step, gradients
    return Memory(
        weights=weights,
        gradients=found,
        optimizer=optimizer,
        activations=working,
        logits=logits,
        buffers=buffers,
    )


def states(config: RunConfig, shape: ModelShape) -> tuple[float, float, float]:
    """Bytes of weights, gradients and optimizer (float32 weights, two moments) on each rank.

    Only what is trained has the last two.
    """
    trained, ranks = shape.num_trained, config.num_ranks
    parameters = shape.num_parameters + (trained if config.method.lora is not None else 0)
    size = 4 if config.precision == "fp32" else 2
    optimizer = (8 if config.precision == "fp32" else 12) / (ranks if config.zero else 1)
    weights = 0.0 if config.offload_parameters else size / (ranks if config.zero == 3 else 1)
    gradients = size / (ranks if config.zero > 1 else 1)
    if config.offload_optimizer and config.zero > 1:
        gradients = 0.0
    live = size * min(LIVE, parameters) if config.zero == 3 else 0.0
    held = 0.0 if config.offload_optimizer else optimizer * trained
    return weights * parameters + live, gradients * trained, held


def moment_bytes(config: RunConfig, shape: ModelShape) -> int:
    """Bytes of AdamW's two moments on each rank, which are there from the end of the first step."""
    return 8 * shape.num_trained // (config.num_ranks if config.zero else 1)


def host_bytes(config: RunConfig, shape: ModelShape) -> float:
    """CPU memory of all ranks together: what is offloaded."""
    weights = 2.0 * shape.num_parameters if config.offload_parameters else 0.0
    return weights + (16.0 * shape.num_trained if config.offload_optimizer else 0.0)


def kept_bytes_a_token(shape: ModelShape) -> float:
    """What a decoder layer keeps of each token for its backward pass, in 16 bits."""
    times = 3 if shape.norms_queries else 2  # queries and keys before their norm, turned, and what attention makes
    return 2 * (4 * shape.hidden + times * (shape.query_width + shape.key_width) + 3 * shape.intermediate)


def _adapters_bytes_a_token(config: RunConfig, shape: ModelShape) -> float:
    """What the adapters of a layer keep besides, where all seven linear layers have one."""
    lora = config.method.lora
    if lora is None:
        return 0.0
    inputs, outputs = adapted_widths(shape)
    return 2 * (7 * lora.rank + (inputs if lora.dropout else 0) + (2 * outputs if lora.dora else 0))


def adapted_widths(shape: ModelShape) -> tuple[int, int]:
    """Inputs and outputs of a layer's seven linear layers, all together."""
    inputs = 5 * shape.hidden + shape.query_width + shape.intermediate
    outputs = shape.query_width + 2 * shape.key_width + 2 * shape.hidden + 2 * shape.intermediate
    return inputs, outputs
