"""A few prompts of the shards in, what the base model and the trained one answer to them out.

Made at the end of a run at little cost: all prompts at once, greedy, short, and for so many seconds at most.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train.chat import Answer, split_thinking
from train.hub import ModelFiles, find_model
from train.load import Packs, Shards
from train.model import build_in_one_piece, load_weights
from train.proof import gpu_has_room

COUNT, LOOKED_AT = 4, 64  # prompts, and packs they are sought in
SHORTEST_PROMPT, LONGEST_PROMPT = 4, 1024  # tokens
LONGEST_ANSWER = 160
SECONDS = 45.0  # for each model to answer; what it has said by then is shown
CPU_PARAMETERS = 1_000_000_000  # larger models take minutes to load and answer without a GPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """The beginning of an example, up to its first target, and what the data has the model say there."""

    source: str
    ids: list[int]
    expected: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What two models made of a prompt."""

    source: str
    prompt: str
    expected: Answer
    before: Answer
    after: Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """All samples of a run, or why there are none."""

    note: str
    samples: Sequence[Sample] = ()


def take_samples(files: ModelFiles, trained: Path, shards: Shards, num_parameters: int) -> Samples:
    """Ask both models; `files` are the base's, `trained` is the folder a run wrote. Rank 0 does it alone."""
    try:
        return _take(files, trained, shards, num_parameters)
    except Exception as error:  # of a model's own code: what was trained is safe, so it is no reason to fail
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
        return Samples(note=f"They could not be taken: {reason}")


def _take(files: ModelFiles, trained: Path, shards: Shards, num_parameters: int) -> Samples:
    prompts = choose_prompts(shards)
    split = "training" if shards.val is None else "held-out"
    if not prompts:
        return Samples(note=f"None of the first {split} packs begins with a prompt.")
    size = 2 * num_parameters
    on_gpu = gpu_has_room(1.5 * size)
    if not on_gpu and num_parameters > CPU_PARAMETERS:
        ask = f"train chat --model {trained} --base {files.name} --prompt …"
        return Samples(
            note=f"Left out: no GPU has room for the model now, and on the CPU it would take long. Ask it: {ask}"
        )
    from transformers import AutoTokenizer

    started = time.perf_counter()
    build_in_one_piece()
    tokenizer: Any = AutoTokenizer.from_pretrained(shards.tokenizer, local_files_only=True)
    device = torch.device("cuda" if on_gpu else "cpu")
    before, after = (_answers(each, prompts, tokenizer, device) for each in (files, find_model(str(trained))))
    samples = [
        Sample(
            source=prompt.source,
            prompt=_readable(tokenizer, prompt.ids),
            expected=_said(tokenizer, prompt.expected),
            before=_said(tokenizer, one),
            after=_said(tokenizer, other),
        )
        for prompt, one, other in zip(prompts, before, after, strict=True)
    ]
    seconds = time.perf_counter() - started
    note = (
        f"{len(prompts)} {split} prompts, the likeliest tokens, at most {LONGEST_ANSWER} of them; "
        f"loading both models and asking them took {seconds:.0f} s."
    )
    return Samples(note=note, samples=samples)


def choose_prompts(shards: Shards) -> list[Prompt]:
    """The first prompts of the held-out packs (else of the training packs), from as many sources as there are."""
    packs = shards.val if shards.val is not None else shards.train
    found: dict[str, list[Prompt]] = {}
    for index in range(min(LOOKED_AT, len(packs))):
        for prompt in _prompts(packs, index, shards.manifest.sources):
            found.setdefault(prompt.source, []).append(prompt)
    turns = [each for prompts in found.values() for each in enumerate(prompts)]
    return [prompt for _, prompt in sorted(turns, key=lambda each: each[0])[:COUNT]]  # each source's first, then …


def _prompts(packs: Packs, index: int, sources: list[str]) -> list[Prompt]:
    pack, start, prompts = packs[index], 0, []
    for length, source in zip(pack.seq_lengths.tolist(), packs.source_ids(index).tolist(), strict=True):
        is_target, ids = pack.is_target[start : start + length], pack.input_ids[start : start + length]
        start += length
        if not is_target.any():
            continue
        first = int(is_target.argmax())
        end = length if is_target[first:].all() else first + int(is_target[first:].argmin())
        if SHORTEST_PROMPT <= first <= LONGEST_PROMPT:
            prompts.append(Prompt(source=sources[source], ids=ids[:first].tolist(), expected=ids[first:end].tolist()))
    return prompts


def _answers(files: ModelFiles, prompts: Sequence[Prompt], tokenizer: Any, device: torch.device) -> list[list[int]]:
    """What a model says to each prompt, up to its end token."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = load_weights(files, dtype, device=device).eval()
    known = model.generation_config.eos_token_id
    ends = {*(known if isinstance(known, list) else [known]), tokenizer.eos_token_id} - {None}
    pad = next(iter(ends), 0)
    width = max(len(prompt.ids) for prompt in prompts)
    # prompts [1 2 3], [4] -> [[1 2 3], [pad pad 4]]
    ids = torch.tensor([[pad] * (width - len(prompt.ids)) + prompt.ids for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(each.ids)) + [1] * len(each.ids) for each in prompts], device=device)
    choice: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=min(LONGEST_ANSWER, 2 * max(len(prompt.expected) for prompt in prompts)),
            max_time=SECONDS,
            eos_token_id=sorted(ends) or None,
            pad_token_id=pad,
            **choice,
        )
    return [_up_to(row, ends) for row in output[:, width:].tolist()]


def _up_to(ids: list[int], ends: set[int]) -> list[int]:
    """What comes before the first end token."""
    return next((ids[:at] for at, token in enumerate(ids) if token in ends), ids)


def _said(tokenizer: Any, ids: list[int]) -> Answer:
    """Tokens as text; think tags must still be seen, the template's other marks not."""
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    while ids and (ids[-1] in ends or tokenizer.decode(ids[-1:]).isspace()):
        ids = ids[:-1]
    return split_thinking(tokenizer.decode(ids))


def _readable(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True).strip()
