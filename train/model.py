"""A model's files in, a causal language model ready for DeepSpeed out, refused where it does not fit the shards."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch

from schemas.errors import ModelError
from train.attention import NAME
from train.config import RunConfig
from train.hub import ModelFiles
from train.load import Shards
from train.lora import choose_trained, merge_adapter
from train.method import Method

PACKABLE_LAYERS = {"full_attention", "sliding_attention"}
VOCAB_MULTIPLE = 64  # of tokens, where embeddings grow: matmuls are slow at odd sizes
CPU = torch.device("cpu")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """What of a model's config the run needs to know."""

    architecture: str
    num_layers: int
    head_dim: int
    vocab_size: int  # rows of the embedding
    num_parameters: int  # tied ones once
    num_trained: int  # of them, or of adapters beside them
    hidden: int
    intermediate: int
    query_width: int  # of all heads together
    key_width: int
    dtype: torch.dtype | None  # of the files; None where they don't say, as in GGUF
    tied: bool = False  # head and embeddings are one matrix
    norms_queries: bool = False  # and keys, head by head, as Qwen3 does


@cache
def read_shape(files: ModelFiles) -> ModelShape:
    """Read a model's config. Raises ModelError when transformers does not know it, or packs would leak in it."""
    from transformers import AutoConfig

    with told_as_model_error(files):
        config = AutoConfig.from_pretrained(files.folder, gguf_file=files.gguf, local_files_only=True)
    text = config.get_text_config()
    if mixing := sorted(set(getattr(text, "layer_types", None) or []) - PACKABLE_LAYERS):
        raise ModelError(
            f"{files.name}: its {mixing[0]} layers carry state from one example of a pack into the next, so it "
            "can't be trained on packs yet; choose a model with plain attention"
        )
    model = _built(config)
    num_parameters = count_parameters(model)
    last_names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelShape(
        architecture=(config.architectures or [config.model_type])[0],
        num_layers=text.num_hidden_layers,
        head_dim=head_dim,
        vocab_size=text.vocab_size,
        num_parameters=num_parameters,
        num_trained=num_parameters,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        query_width=text.num_attention_heads * head_dim,
        key_width=(getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * head_dim,
        dtype=text.dtype if files.gguf is None else None,
        tied=bool(getattr(text, "tie_word_embeddings", False)),
        norms_queries=not last_names.isdisjoint({"q_norm", "q_layernorm", "query_norm"}),
    )


def half_dtype(files: ModelFiles) -> torch.dtype | None:
    """The dtype of a model's files where it is a half-precision one: what is trained from them is written in it."""
    dtype = read_shape(files).dtype
    return dtype if dtype in (torch.bfloat16, torch.float16) else None


def shape_as_trained(files: ModelFiles, method: Method) -> ModelShape:
    """The shape with the number of parameters that `method` trains.

    Raises TrainError where it names layers or weights that aren't there.
    """
    from transformers import AutoConfig

    shape = read_shape(files)
    if method.lora is not None and files.adapter is not None:
        raise ModelError(
            f"{files.name}: is an adapter already; merge it first: train export --model {files.name} --merge --out DIR"
        )
    if method.lora is None and not method.freeze:
        return shape
    model = _built(AutoConfig.from_pretrained(files.folder, gguf_file=files.gguf, local_files_only=True))
    with torch.device("meta"):
        choose_trained(model, method, seed=0)
    return replace(shape, num_trained=count_trained(model))


def check_fits(files: ModelFiles, shape: ModelShape, shards: Shards) -> None:
    """Raise ModelError where the shards' ids are not this model's: another vocabulary, tokenizer or template.

    Tokens that were added to the model's own tokenizer fit: `shape_for` makes room for them.
    """
    hashes = tokenizer_hashes(files)
    largest = _largest_id_beyond(shape, shards)
    if largest is not None and (not hashes or _num_without_added(files) > shape.vocab_size):
        raise ModelError(
            f"{files.name}: has {shape.vocab_size} tokens, the shards hold id {largest}; "
            f"train the model they were made for ({shards.manifest.model}), or run: "
            f"dataprep tokenize --model {files.name}"
        )
    for (field, what), found in hashes.items():
        expected = getattr(shards.manifest.tokenizer, field)
        if found != expected:
            raise ModelError(
                f"{files.name}: its {what} is not the shards' (tokenizer.{field} {found[:12]}, manifest.json says "
                f"{expected[:12]}); run: dataprep tokenize --model {files.name}"
            )


def shape_for(shape: ModelShape, shards: Shards) -> ModelShape:
    """The shape with embeddings for all tokens of the shards, where the tokenizer has more than the model."""
    if _largest_id_beyond(shape, shards) is None:
        return shape
    size = -(-shards.manifest.tokenizer.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    if shape.num_trained != shape.num_parameters:
        raise ModelError(
            f"the shards' tokenizer has {shards.manifest.tokenizer.vocab_size} tokens, the model {shape.vocab_size}: "
            "the embeddings of the new ones must be trained; leave --lora, --dora and --freeze out"
        )
    more = (size - shape.vocab_size) * shape.hidden * (1 if shape.tied else 2)
    total = shape.num_parameters + more
    return replace(shape, vocab_size=size, num_parameters=total, num_trained=total)


def _largest_id_beyond(shape: ModelShape, shards: Shards) -> int | None:
    """The largest id in the shards, where the model has no embedding for it."""
    if shards.manifest.tokenizer.vocab_size <= shape.vocab_size:
        return None
    largest = max(split.largest_id() for split in (shards.train, shards.val) if split is not None)
    return largest if largest >= shape.vocab_size else None


def _num_without_added(files: ModelFiles) -> int:
    """Tokens of the model's own tokenizer, those left out that were added to it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(files.tokenizer, gguf_file=files.gguf, local_files_only=True).vocab_size


def make_room(model: Any, vocab_size: int, seed: int) -> int:
    """Grow embeddings and head to so many tokens, the new ones drawn about the mean of the old (Hewitt 2021).

    Gives how many are new.
    """
    new = vocab_size - model.get_input_embeddings().num_embeddings
    if new > 0:
        device = model.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)  # alike on all ranks
            model.resize_token_embeddings(vocab_size)
    return max(0, new)


def tokenizer_hashes(files: ModelFiles) -> dict[tuple[str, str], str]:
    """SHA-256 of the tokenizer's canonical JSON and of the chat template beside the model, as far as they are there.

    Keys are the manifest's field and what it is of.
    """
    from transformers import AutoTokenizer

    if files.gguf is None and not (files.tokenizer / "tokenizer_config.json").is_file():
        return {}
    with told_as_model_error(files):
        tokenizer = AutoTokenizer.from_pretrained(files.tokenizer, gguf_file=files.gguf, local_files_only=True)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    texts = {("sha256", "tokenizer"): backend and backend.to_str(), ("template_sha256", "chat template"): template}
    return {key: hashlib.sha256(text.encode()).hexdigest() for key, text in texts.items() if text}


def load_model(
    files: ModelFiles, config: RunConfig, deepspeed: dict[str, Any], device: torch.device
) -> tuple[Any, object]:
    """Load the model with the packed attention that was registered, in pieces under ZeRO-3, else onto `device`.

    Gives the model, and an object to keep alive as long as it is used (transformers' weak reference to ZeRO-3).
    """
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    in_pieces = config.zero == 3 and files.gguf is None and files.adapter is None
    keep_alive = HfDeepSpeedConfig(deepspeed) if in_pieces else None
    model = load_weights(files, DTYPES[config.precision], NAME, CPU if config.zero == 3 else device)
    checkpoint_layers(model, config.checkpointed_layers)
    return model, keep_alive


def decoder_layers(model: Any) -> list[torch.nn.Module]:
    """The model's layers, first to last."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def checkpoint_layers(model: Any, count: int) -> None:
    """Have the first `count` layers computed again in the backward pass instead of kept; all where -1.

    The first, for they are the last of the backward pass: by then nothing is kept of the others.
    """
    if count:
        # transformers 5.23 gave it another name
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        for layer in decoder_layers(model)[count:] if count > 0 else []:
            layer.gradient_checkpointing = False  # type: ignore[assignment]


def load_weights(
    files: ModelFiles, dtype: torch.dtype, attention: str | None = None, device: torch.device = CPU
) -> Any:
    """The causal language model in `files`, an adapter merged, on `device`: straight from disk where it is a GPU.

    Raises ModelError when it can't be loaded, or weights of it are missing.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    if files.gguf is not None:
        _quiet_gguf()
    with told_as_model_error(files):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            files.folder,
            gguf_file=files.gguf,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            output_loading_info=True,
            **({"device_map": device} if device.type != "cpu" and files.gguf is None else {}),
        )
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{files.name}: {len(missing)} weights are missing, {missing[0]} first; download the model again"
        )
    if files.gguf is not None:  # its weights are plain tensors by now, though transformers still calls it quantized
        model.hf_quantizer = None
        vars(model.config).pop("quantization_config", None)
    if files.adapter is not None:
        model = merge_adapter(model, files.adapter)
        with suppress(OSError):
            model.generation_config = GenerationConfig.from_pretrained(files.adapter)
    return model if device.type == "cpu" else model.to(device)  # ZeRO-3's pieces stay where they are


def build_in_one_piece() -> None:
    """Have models that are built from here on be whole ones, where a run's ZeRO-3 would cut them up over all ranks."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def count_parameters(model: torch.nn.Module) -> int:
    """Parameters, tied ones once, also where ZeRO-3 has cut them up."""
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())


def count_trained(model: torch.nn.Module) -> int:
    """Parameters that have gradients, tied ones once."""
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in trained)


def _built(config: Any) -> Any:
    """The model of a config, without weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@contextmanager
def told_as_model_error(files: ModelFiles) -> Iterator[None]:
    """Tell what transformers says of a model it can't load in one line."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, NotImplementedError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise ModelError(f"{files.name}: can't be loaded: {reason}") from error


def _quiet_gguf() -> None:
    """Hide the bar of transformers' GGUF reader, which heeds none of its settings."""
    from tqdm import tqdm
    from transformers import modeling_gguf_pytorch_utils

    modeling_gguf_pytorch_utils.tqdm = partial(tqdm, disable=True)
