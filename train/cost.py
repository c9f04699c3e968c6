"""What a step costs: floating-point operations, by which MFU is told, and the seconds a planner expects of a GPU.

Rates are parts of a GPU's data sheet, from profiles of Qwen3-4B on an H200 (micro-batches of 16k tokens, layers
compiled, FlashAttention-4): matmuls at 71% of the peak, attention at 25%, all else at 88% of the memory's bandwidth.
"""

from dataclasses import dataclass

from train.batch import PackCost
from train.config import RunConfig
from train.gpus import Gpu
from train.memory import adapted_widths, kept_bytes_a_token
from train.model import ModelShape

MATMUL_RATE, ATTENTION_RATE, MEMORY_RATE = 0.71, 0.53, 0.88
ATTENTION_KEYS = 1600  # examples of 700 tokens on average, of 1,400, and of 31,500
PASSES = 4.75  # over what a layer keeps, by everything that is neither matmul nor attention
# over inputs and outputs of layers with an adapter, and over inputs for its dropout: Qwen3-8B, rank 16
ADAPTER_PASSES, DROPOUT_PASSES = 3.8, 9.3
OPTIMIZER_BYTES = 110.0  # moved a parameter in an optimizer step: norm, clipping, copies, AdamW
LAUNCH_S = 2.5e-3  # a layer and micro-batch: Qwen3-0.6B, 4k tokens
GATHER_S = 2.2e-3  # a layer and micro-batch at ZeRO-3, beyond the link: Qwen3-4B, 16k tokens, two H200s
HOST_LINK, HOST_PARAMETERS = 25e9, 4e9  # bytes/s to CPU memory, and parameters/s of AdamW there, on 32 cores


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The tokens of some packs."""

    tokens: int
    targets: int
    squares: int  # sum of squared lengths of the examples, by which attention grows
    packs: int
    longest_pack: int  # tokens
    most_targets: int  # of a pack


def model_flops(shape: ModelShape, tokens: int, squares: int) -> float:
    """Operations of forward and backward: 6 a parameter and token, 4 where it is frozen, and causal attention.

    Recomputing, padding and the skipped logits of context tokens count nothing more or less (PaLM, appendix B).
    """
    return (4.0 * shape.num_parameters + 2.0 * shape.num_trained) * tokens + _attention_flops(shape, squares)


def _attention_flops(shape: ModelShape, squares: int) -> float:
    return 12.0 * shape.num_layers * shape.query_width * squares / 2


def pack_cost(shape: ModelShape) -> PackCost:
    """What a pack's tokens, targets and attention cost beside each other, the same for every rank on any GPU."""
    each, head = _flops_a_parameter(shape), shape.vocab_size * shape.hidden
    a_square = _attention_flops(shape, 1) / ATTENTION_RATE
    return PackCost(
        a_token=each * (shape.num_parameters - head) / MATMUL_RATE + ATTENTION_KEYS * a_square,
        a_target=each * head / MATMUL_RATE,
        a_square=a_square,
    )


def _flops_a_parameter(shape: ModelShape) -> float:
    """Operations a parameter and token: a frozen one has no gradient."""
    return 4.0 + 2.0 * min(1.0, shape.num_trained / shape.num_parameters)


def step_seconds(config: RunConfig, shape: ModelShape, gpu: Gpu, work: Work) -> float | None:
    """What an optimizer step over `work` takes on all ranks; None for a GPU whose speed is not known."""
    if gpu.peak_flops is None or gpu.bytes_per_s is None:
        return None
    ranks, parameters, trained = config.num_ranks, shape.num_parameters, shape.num_trained
    bandwidth = MEMORY_RATE * gpu.bytes_per_s
    again = config.checkpointed_layers / max(1, shape.num_layers)
    head = shape.vocab_size * shape.hidden
    each = _flops_a_parameter(shape)
    body = each * (parameters - head) * work.tokens * (1 + 2 * again / each) + each * head * work.targets
    matmul = body / (MATMUL_RATE * gpu.peak_flops)
    attention = _attention_flops(shape, work.squares + ATTENTION_KEYS * work.tokens) * (1 + again * 2 / 7)
    attention /= ATTENTION_RATE * gpu.peak_flops
    moved = PASSES * kept_bytes_a_token(shape) + _adapters_moved_a_token(config, shape)
    rest = moved * shape.num_layers * work.tokens / bandwidth
    adding = 6.0 * trained * config.num_micro_steps / bandwidth
    moving = OPTIMIZER_BYTES * trained / ranks / bandwidth
    if config.offload_optimizer:
        moving = trained / ranks * (4 / HOST_LINK + 1 / HOST_PARAMETERS)
    computing = (matmul + attention + rest * (1 + again / 3)) / ranks
    launching = LAUNCH_S * shape.num_layers * config.num_micro_steps  # a short micro-batch waits for Python
    gathering = GATHER_S * shape.num_layers * config.num_micro_steps if config.zero == 3 else 0.0
    return max(computing, launching) + adding + moving + gathering + _link_seconds(config, shape, gpu)


def _adapters_moved_a_token(config: RunConfig, shape: ModelShape) -> float:
    """Bytes that a layer's adapters move; their matmuls are too thin to be more than that."""
    lora = config.method.lora
    if lora is None:
        return 0.0
    inputs, outputs = adapted_widths(shape)
    return 2 * (ADAPTER_PASSES * (inputs + outputs) + (DROPOUT_PASSES * inputs if lora.dropout else 0))


def _link_seconds(config: RunConfig, shape: ModelShape, gpu: Gpu) -> float:
    """Gradients summed once a step (ZeRO-1) or a micro-batch (2, 3), weights gathered once or twice a micro-batch."""
    if config.num_ranks == 1 or gpu.link_bytes_per_s is None:
        return 0.0
    a_parameter = 2.0 * (config.num_ranks - 1) / config.num_ranks / gpu.link_bytes_per_s
    micro_steps = config.num_micro_steps
    if config.zero == 3:
        return a_parameter * micro_steps * (2 * shape.num_parameters + shape.num_trained)
    return a_parameter * shape.num_trained * {0: 2, 1: 3, 2: 2 * micro_steps + 1}[config.zero]
