"""An exported folder in, what was seen of it out: that it holds what its base holds, loads, and ends its turns."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from schemas.errors import ModelError, TrainError
from train.hub import ModelFiles, find_model
from train.load import Packs, Shards
from train.lora import ADAPTER_WEIGHTS
from train.model import build_in_one_piece, check_fits, half_dtype, load_weights, read_shape, tokenizer_hashes

LOOKED_AT = 256  # packs, for the shortest answer
LONGEST_PROMPT = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportProof:
    """What was seen of a folder that passed."""

    weights: int  # tensors in its files
    dtype: str
    tied: bool  # one matrix is embedding and head
    ends_turn: bool | None  # whether it generated an end token on a training prompt; None where there were no shards

    def line(self) -> str:
        """It in one line."""
        ends = {True: "ends its turn on", False: "does not end its turn on", None: None}[self.ends_turn]
        parts = [
            f"{self.weights} weights in {self.dtype} as in the base, all finite",
            "tied" if self.tied else None,
            "loads again",
            ends and f"{ends} a training prompt",
        ]
        return ", ".join(part for part in parts if part)


def prove_export(folder: Path, base: ModelFiles, shards: Shards | None) -> ExportProof:
    """Look through a folder that was just written. Raises SftpackError where it is not as it must be."""
    build_in_one_piece()
    files = find_model(str(folder))
    if shards is not None:
        check_fits(files, read_shape(files), shards)
        if not tokenizer_hashes(files):
            raise ModelError(f"{folder}: holds no tokenizer")
    written = dict(_headers(folder))
    dtypes = _check_finite(folder)
    if files.adapter is None:
        _check_against_base(written, base, folder)
    shape = read_shape(files)
    dtype = shape.dtype or torch.float32
    has_room = gpu_has_room(1.5 * shape.num_parameters * dtype.itemsize)
    model = load_weights(files, dtype, device=torch.device("cuda" if has_room else "cpu"))
    if files.adapter is None:
        _check_dtype(dtypes, model.dtype, base, folder)
    tied = bool(model.config.get_text_config().tie_word_embeddings)
    if tied and model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        raise ModelError(f"{folder}: its config ties head and embeddings, but they load as two matrices")
    return ExportProof(
        weights=len(written),
        dtype=", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes)),
        tied=tied,
        ends_turn=None if shards is None else ends_turn(model, shards.train),
    )


def ends_turn(model: Any, packs: Packs) -> bool:
    """Whether the model, asked for the shortest answer of the first packs, comes to an end token."""
    prompt, length = shortest_answer(packs)
    known = model.generation_config.eos_token_id
    ends = set(known if isinstance(known, list) else [known])
    model.eval()
    ids = torch.tensor([prompt], device=model.device)
    choice = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4 * length + 16, **choice
        )
    return bool(ends & set(output[0, len(prompt) :].tolist()))


def shortest_answer(packs: Packs) -> tuple[list[int], int]:
    """The prompt with the shortest answer, of the first packs, and that answer's tokens, its end included."""
    found: list[tuple[int, list[int]]] = []
    for index in range(min(LOOKED_AT, len(packs))):
        pack, start = packs[index], 0
        for length in pack.seq_lengths.tolist():
            is_target = pack.is_target[start : start + length]
            if is_target.any() and 0 < (first := int(is_target.argmax())) <= LONGEST_PROMPT:
                rest = is_target[first:]
                answer = len(rest) if rest.all() else int(rest.argmin())
                found.append((answer, pack.input_ids[start : start + first].tolist()))
            start += length
    if not found:
        raise TrainError("none of the first packs holds a prompt and its answer")
    answer, prompt = min(found)
    return prompt, answer


def _headers(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in a folder's safetensors, without reading the weights."""
    from safetensors import safe_open

    for path in _weight_files(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  # it is no dict
                yield name, tuple(file.get_slice(name).get_shape())


def _weight_files(folder: Path) -> list[Path]:
    adapter = folder / ADAPTER_WEIGHTS
    return [adapter] if adapter.is_file() else sorted(folder.glob("model*.safetensors"))


def _check_finite(folder: Path) -> set[torch.dtype]:
    """Read every weight; gives the dtypes of those that are not integers."""
    from safetensors import safe_open

    dtypes = set()
    for path in _weight_files(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                weight = file.get_tensor(name)
                if weight.is_floating_point():
                    dtypes.add(weight.dtype)
                    if not _is_finite(weight):
                        raise ModelError(f"{folder}: {name} holds values that are no numbers")
    return dtypes


def _is_finite(weight: torch.Tensor) -> bool:
    """As `isfinite().all()`, in a fortieth of the time: least and greatest are NaN where any value is."""
    return not weight.numel() or all(bool(end.isfinite()) for end in torch.aminmax(weight))


def _check_against_base(written: dict[str, tuple[int, ...]], base: ModelFiles, folder: Path) -> None:
    """Compare with the base's files, where those are safetensors; loading again compares with its architecture."""
    theirs = dict(_headers(base.folder)) if base.gguf is None else {}
    if not theirs:
        return
    tied = {"lm_head.weight"} if read_shape(base).tied else set()
    old, new = read_shape(base).vocab_size, read_shape(find_model(str(folder))).vocab_size  # tokens may be added
    for name, shape in written.items():
        if name not in theirs and name not in tied:
            raise ModelError(f"{folder}: {name} is not in the base model, {base.name}")
        if theirs.get(name, shape) not in (shape, (old, *shape[1:]) if shape[0] == new > old else shape):
            raise ModelError(f"{folder}: {name} is {list(shape)}, in the base model {list(theirs[name])}")


def _check_dtype(dtypes: set[torch.dtype], loaded: torch.dtype, base: ModelFiles, folder: Path) -> None:
    expected = half_dtype(base) or loaded
    if expected not in dtypes or dtypes - {expected, torch.float32}:  # some norms and routers are kept in float32
        raise ModelError(f"{folder}: its weights are {dtypes}, they should be {expected}")


def gpu_has_room(num_bytes: float) -> bool:
    """Whether the GPU has so much memory free, besides what this process uses; what it only keeps is given back."""
    if not torch.cuda.is_available():
        return False
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0] > num_bytes
