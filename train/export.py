"""A trained engine in, a Hugging Face folder out: complete under its name, or not there."""

import fnmatch
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from schemas.errors import SftpackError, TrainError
from train.hub import ModelFiles
from train.launch import Ranks, import_deepspeed
from train.load import Shards
from train.lora import write_adapter
from train.model import build_in_one_piece, half_dtype, load_weights, read_shape
from train.proof import ExportProof, prove_export

CHAT_TEMPLATES = "additional_chat_templates"  # where transformers keeps those that have names
NO_TOKENIZER = "adapter_*", "*.safetensors*", "*.bin*", "*.pt*", "*.gguf", "config.json", "generation_config.json", ".*"


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """A model, or what a run had trained of one when it was taken: its weights, or an adapter's."""

    model: Any  # where weights are given, for its settings: its own may have changed since
    weights: dict[str, torch.Tensor] | None = None  # in CPU memory of rank 0, elsewhere none
    is_adapter: bool = False


def take(engine: Any, base: ModelFiles, ranks: Ranks, *, is_adapter: bool) -> Taken:
    """Copy what the engine trains; every rank calls it.

    The dtype is that of the files the model came from where that is a half-precision one, whatever it was trained in;
    adapters stay as they are.
    """
    engine.empty_partition_cache()  # ZeRO-3 joins weights ahead, also behind the last step
    dtype = None if is_adapter else half_dtype(base)
    weights = gathered_weights(engine.module, dtype, ranks, trained_only=is_adapter)
    return Taken(model=engine.module, weights=weights, is_adapter=is_adapter)


def export(taken: Taken, folder: Path, tokenizer: Path, base: ModelFiles, shards: Shards | None) -> ExportProof:
    """Write a folder that transformers or peft loads, with a tokenizer and where generation stops, proven on `base`."""
    with _whole_folder(folder, tokenizer) as temporary:
        _put(taken, temporary, tokenizer, base)
        with _reaching_the_disk(temporary):
            return prove_export(temporary, base, shards)


def keep(taken: Taken, folder: Path, tokenizer: Path, base: ModelFiles, note: tuple[str, str]) -> None:
    """Write it likewise, with a further file of this name and text, but prove nothing yet."""
    with _whole_folder(folder, tokenizer) as temporary:
        _put(taken, temporary, tokenizer, base)
        name, text = note
        (temporary / name).write_text(text, encoding="utf-8")
        with _reaching_the_disk(temporary):
            pass


def export_files(files: ModelFiles, folder: Path, shards: Shards | None) -> ExportProof:
    """Write a model from its files, in their dtype; an adapter is merged. On the CPU, by one process."""
    build_in_one_piece()
    model = load_weights(files, read_shape(files).dtype or torch.bfloat16)
    return export(Taken(model=model), folder, files.tokenizer, files, shards)


def _put(taken: Taken, folder: Path, tokenizer: Path, base: ModelFiles) -> None:
    model, weights = taken.model, taken.weights
    _add_turn_end(model.generation_config, tokenizer)
    if taken.is_adapter:
        assert weights is not None
        write_adapter(model, weights, base.name, folder)
        model.generation_config.save_pretrained(folder)
    else:
        model.save_pretrained(folder, state_dict=weights)
        _set_dtype(folder / "config.json", next(iter((weights or model.state_dict()).values())).dtype)


@contextmanager
def _whole_folder(folder: Path, tokenizer: Path) -> Iterator[Path]:
    """A folder to write into, the tokenizer in it, which takes its name once it is complete and proven.

    What is refused stays beside it, as FOLDER-refused.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.copytree(tokenizer, temporary, ignore=_no_tokenizer)
        yield temporary
        temporary.rename(folder)
    except SftpackError as error:
        refused = folder.with_name(f"{folder.name}-refused")
        temporary.rename(refused)
        reason = str(error).replace(str(temporary), str(refused))
        raise TrainError(f"{folder}: what was written did not pass its check: {reason}") from error
    except (OSError, SafetensorError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise TrainError(f"{folder}: the model can't be written: {reason}; free space there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _reaching_the_disk(folder: Path) -> Iterator[None]:
    """Bring a folder's files to the disk while the block looks at them, which takes long too."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    readable = (folder / "generation_config.json").stat().st_mode
    for file in files:
        file.chmod(readable)  # safetensors writes files that only their owner may read
    with ThreadPoolExecutor(1) as pool:
        reached = pool.map(_sync, files)
        yield
        list(reached)


def _sync(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _no_tokenizer(folder: str, names: list[str]) -> set[str]:
    """What of a folder is not its tokenizer, where that lies beside a model or an adapter."""
    no_files = {name for pattern in NO_TOKENIZER for name in fnmatch.filter(names, pattern)}
    return no_files | {name for name in names if (Path(folder) / name).is_dir() and name != CHAT_TEMPLATES}


def gathered_weights(
    module: torch.nn.Module, dtype: torch.dtype | None, ranks: Ranks, *, trained_only: bool = False
) -> dict[str, torch.Tensor]:
    """Parameters and buffers in CPU memory of rank 0 (elsewhere none), ZeRO-3's pieces joined one at a time.

    A tied parameter comes once, under its first name: transformers ties it again when it loads.
    """
    zero = import_deepspeed(on_gpu=ranks.device.type == "cuda").zero
    weights: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in seen or (trained_only and not tensor.requires_grad):
            continue
        seen.add(id(tensor))
        with zero.GatheredParameters([tensor] if hasattr(tensor, "ds_id") else []):
            if ranks.is_first:
                wanted = dtype if tensor.is_floating_point() else None
                weights[name] = tensor.detach().to("cpu", wanted, copy=True).contiguous()
    return weights


def turn_end_id(tokenizer: Any) -> int | None:
    """The id that ends an assistant's turn in the chat template: the first control token after its text."""
    if tokenizer.chat_template is None:
        return None
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "zebra"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    rest = tokenizer(text.rpartition("zebra")[2], add_special_tokens=False).input_ids
    control = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return next((index for index in rest if index in control), None)


def _add_turn_end(generation: Any, tokenizer: Path) -> None:
    """Let generation stop where a turn ends: base models only know the end of a text."""
    turn, text, pad = _ends_and_pad(tokenizer)
    known = generation.eos_token_id
    known = [] if known is None else known if isinstance(known, list) else [known]
    ends = [index for index in (turn, text, *known) if index is not None]
    generation.eos_token_id = list(dict.fromkeys(ends)) or None
    if generation.pad_token_id is None:
        generation.pad_token_id = pad


@cache
def _ends_and_pad(folder: Path) -> tuple[int | None, int | None, int | None]:
    """A tokenizer's ends of a turn and of a text, and its padding; read once, for it holds up other threads."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return turn_end_id(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id


def _set_dtype(path: Path, dtype: torch.dtype) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
