"""Model files and settings in, DeepSpeed's engine around the model out, with the kernels that work here."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError

from schemas.errors import TrainError
from train.attention import check_every_layer_attends
from train.config import RunConfig
from train.deepspeed_config import deepspeed_config
from train.hub import ModelFiles
from train.kernels import CompileFailed, Kernels, check_isolation, choose_attention, choose_kernels, probe_tokens
from train.launch import Ranks, import_deepspeed
from train.lora import adapted_layers, choose_trained
from train.model import DTYPES, ModelShape, count_parameters, count_trained, decoder_layers, load_model, make_room
from train.noise import add_noise
from train.optimizer import build_optimizer, keep_rates_apart, parameter_groups
from train.snapshot import tensors_in


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """The engine around the model, and which kernels it runs."""

    deepspeed: Any
    num_parameters: int  # of the model without adapters
    num_trained: int
    adapted: list[str]  # layers that have an adapter, by last name
    num_new_tokens: int  # rows that embeddings and head were grown by
    kernels: Kernels
    keep_alive: object  # transformers holds ZeRO-3's settings by a weak reference only


def build_engine(
    files: ModelFiles, shape: ModelShape, config: RunConfig, content: dict[str, Any], ranks: Ranks
) -> Engine:
    """Load the model and wrap it; every rank takes part. `content` is the user's DeepSpeed file."""
    settings = deepspeed_config(config, content, on_gpu=ranks.device.type == "cuda")
    with _config_error_told():
        import_deepspeed(on_gpu=ranks.device.type == "cuda").DeepSpeedConfig(settings)
    attention = choose_attention(ranks.device, DTYPES[config.precision], shape)
    try:
        return _built(files, shape, config, settings, ranks, attention)
    except CompileFailed as error:
        reason = str(error)
    gc.collect()  # what only the error still held
    return _built(files, shape, config, settings, ranks, attention, reason)


def _built(
    files: ModelFiles,
    shape: ModelShape,
    config: RunConfig,
    settings: dict[str, Any],
    ranks: Ranks,
    attention: str,
    not_compiled: str | None = None,
) -> Engine:
    model, keep_alive = load_model(files, config, settings, ranks.device)
    num_new_tokens = make_room(model, shape.vocab_size, config.seed)
    num_parameters = count_parameters(model)
    choose_trained(model, config.method, config.seed)
    num_trained, adapted = count_trained(model), adapted_layers(model)
    wrapped, kernels = wrap_model(model, shape, config, settings, ranks, attention, not_compiled)
    return Engine(
        deepspeed=wrapped,
        num_parameters=num_parameters,
        num_trained=num_trained,
        adapted=adapted,
        num_new_tokens=num_new_tokens,
        kernels=kernels,
        keep_alive=keep_alive,
    )


def wrap_model(
    model: Any,
    shape: ModelShape,
    config: RunConfig,
    settings: dict[str, Any],
    ranks: Ranks,
    attention: str,
    not_compiled: str | None = None,
) -> tuple[Any, Kernels]:
    """Choose the model's kernels, see that its examples keep apart, and put the engine around it.

    `not_compiled` is a reason not to compile its layers. Raises CompileFailed where ZeRO-3 has to begin anew with it.
    """
    on_gpu, in_pieces = ranks.device.type == "cuda", config.zero == 3
    deepspeed = import_deepspeed(on_gpu=on_gpu)
    model.train()  # transformers loads models in evaluation mode; what is compiled now must be what trains
    if in_pieces or on_gpu:
        _ready_layers(model, in_pieces=in_pieces)
    if not in_pieces:
        kernels = _probed(model.to(ranks.device), shape, config, ranks, attention, not_compiled)
    if config.optimizer is None:
        optimized: dict[str, Any] = {"optimizer": build_optimizer(model, config, on_gpu=on_gpu)}
    else:
        optimized = {"model_parameters": parameter_groups(model, config.weight_decay)}
        if not on_gpu:
            torch.compiler.set_stance("force_eager")  # Muon's steps would be compiled for minutes
    with _config_error_told():
        wrapped, *_ = deepspeed.initialize(model=model, config=settings, dist_init_required=False, **optimized)
    if config.optimizer is not None:
        keep_rates_apart(wrapped.optimizer.param_groups, config.learning_rate)
    if in_pieces:
        try:
            with _inputs_seen(decoder_layers(model)):
                kernels = _probed(wrapped, shape, config, ranks, attention, not_compiled)
        except CompileFailed:
            _free(wrapped)
            raise
    if config.method.neftune:  # once the probes are done, which must not be disturbed
        add_noise(model, config.method.neftune)
    return wrapped, kernels


def _free(engine: Any) -> None:
    """Give back the memory of a ZeRO-3 engine that is of no use any more; its hooks keep the engine itself alive."""
    engine.destroy()
    held = [vars(each) for each in (engine.optimizer, *engine.module.parameters())]
    for tensor in (*tensors_in(held), *engine.module.parameters()):
        tensor.data, tensor.grad = torch.empty(0, dtype=tensor.dtype, device=tensor.device), None


def _ready_layers(model: Any, *, in_pieces: bool) -> None:
    """Have layers be compiled as one, and ZeRO-3 join a layer's weights at once, before it.

    Not where whole layers are frozen: their weights would be taken away too early. The first layer's input gets a
    gradient though the embeddings be frozen: without, that layer is compiled by itself, and DeepSpeed, which takes a
    layer's gradients once that of its input is there, misses them.
    """
    from deepspeed.utils import set_z3_leaf_module

    layers = decoder_layers(model)
    if not all(any(weight.requires_grad for weight in layer.parameters()) for layer in layers):
        return
    model.enable_input_require_grads()
    for layer in layers if in_pieces else []:
        set_z3_leaf_module(layer, True)


@contextmanager
def _inputs_seen(layers: list[torch.nn.Module]) -> Iterator[None]:
    """Raise TrainError where a layer gets its input by name: DeepSpeed would take its gradients too early."""

    def look(layer: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if not any(isinstance(each, torch.Tensor) for each in inputs):
            raise TrainError(f"{type(layer).__name__} can't be trained at ZeRO-3, which misses its input; use --zero 2")

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _probed(
    model: Any, shape: ModelShape, config: RunConfig, ranks: Ranks, attention: str, not_compiled: str | None
) -> Kernels:
    """Choose the kernels of a model, or of the engine around it, and see that its examples keep apart."""
    check_every_layer_attends(model, ranks.device, shape.num_layers)
    num_tokens = probe_tokens(config, ranks.device)
    kernels = choose_kernels(model, attention, shape.vocab_size, ranks.device, num_tokens, not_compiled)
    check_isolation(model, shape.vocab_size, ranks.device, num_tokens)
    return kernels


@contextmanager
def _config_error_told() -> Iterator[None]:
    """Tell what DeepSpeed says of a config it does not take in one line."""
    import deepspeed

    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TrainError(f"DeepSpeed refuses {key} {first['input']!r}: {first['msg']}; check --deepspeed") from error
    except (deepspeed.DeepSpeedConfigError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TrainError(f"DeepSpeed refuses its configuration: {reason}; check --deepspeed") from error
