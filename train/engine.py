"""Model files and settings in, a DeepSpeed engine out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from schemas.errors import TrainError
from train.attention import check_every_layer_attends
from train.config import RunConfig
from train.deepspeed_config import deepspeed_config
from train.hub import ModelFiles
from train.launch import Ranks, import_deepspeed
from train.model import ModelShape, count_parameters, load_model
from train.optimizer import build_optimizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """DeepSpeed's engine around the model."""

    deepspeed: Any
    num_parameters: int
    keep_alive: object  # transformers holds ZeRO-3's settings by a weak reference only


def build_engine(
    files: ModelFiles, shape: ModelShape, config: RunConfig, content: dict[str, Any], ranks: Ranks
) -> Engine:
    """Load the model and wrap it; every rank takes part. `content` is the user's DeepSpeed file."""
    on_gpu = ranks.device.type == "cuda"
    settings = deepspeed_config(config, content, on_gpu=on_gpu)
    deepspeed = import_deepspeed(on_gpu=on_gpu)
    with _config_error_told(deepspeed):
        deepspeed.DeepSpeedConfig(settings)
    model, keep_alive = load_model(files, config, settings)
    optimizer = build_optimizer(model, config, on_gpu=on_gpu)
    with _config_error_told(deepspeed):
        wrapped, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings, dist_init_required=False)
    check_every_layer_attends(wrapped, ranks.device, shape.num_layers)
    return Engine(deepspeed=wrapped, num_parameters=count_parameters(model), keep_alive=keep_alive)


@contextmanager
def _config_error_told(deepspeed: Any) -> Iterator[None]:
    """Tell what DeepSpeed says of a config it does not take in one line."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TrainError(f"DeepSpeed refuses {key} {first['input']!r}: {first['msg']}; check --deepspeed") from error
    except (deepspeed.DeepSpeedConfigError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TrainError(f"DeepSpeed refuses its configuration: {reason}; check --deepspeed") from error
