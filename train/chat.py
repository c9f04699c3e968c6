"""`train chat`: a model answers, alone or beside another; what it thinks first is shown apart."""

import re
import shutil
import sys
import textwrap
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ModelError, TrainError
from train.hub import ModelFiles, find_model

WIDE = 100  # columns from which two answers stand side by side


@dataclass(frozen=True, kw_only=True, slots=True)
class Speaker:
    """A loaded model and what it answers to."""

    label: str
    model: Any
    tokenizer: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a model said; `thinking` is None where it did not think aloud."""

    thinking: str | None
    text: str


def chat(options: Namespace) -> int:
    """Answer the prompts given, or talk until Ctrl-D. Gives the exit code."""
    if options.temperature < 0 or options.max_tokens < 1:
        raise TrainError("--temperature must not be below 0, and --max-tokens not below 1")
    names = [options.model] if options.base is None else [options.base, options.model]
    files = [find_model(name) for name in names]
    from train.launch import quiet_libraries

    quiet_libraries()
    speakers = [_load(each) for each in files]
    if options.prompt:
        for prompt in options.prompt:
            print(f"> {prompt}")
            _respond(speakers, [_opening(options.system, prompt) for _ in speakers], options)
        return 0
    _converse(speakers, options)
    return 0


def split_thinking(text: str) -> Answer:
    """Part what stands between think tags from the answer; a template may have opened the tag already."""
    found = re.match(r"\s*(?:<think>)?(.*?)</think>(.*)", text, flags=re.DOTALL)
    if found is None:
        if text.lstrip().startswith("<think>"):  # cut off before it was done thinking
            return Answer(thinking=text.strip().removeprefix("<think>").strip(), text="")
        return Answer(thinking=None, text=text.strip())
    return Answer(thinking=found[1].strip() or None, text=found[2].strip())


def side_by_side(left: str, right: str, width: int) -> str:
    """Two texts in columns of equal width, in `width` characters."""
    column = (width - 3) // 2
    lines = [_wrapped(text, column) for text in (left, right)]
    height = max(map(len, lines))
    rows = zip(*(each + [""] * (height - len(each)) for each in lines), strict=True)
    return "\n".join(f"{_padded(one, column)} | {other}".rstrip() for one, other in rows)


def _load(files: ModelFiles) -> Speaker:
    import torch
    from transformers import AutoTokenizer

    from train.model import load_weights, told_as_model_error

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with told_as_model_error(files):
        tokenizer: Any = AutoTokenizer.from_pretrained(files.tokenizer, gguf_file=files.gguf, local_files_only=True)
    model = load_weights(files, dtype, device=device).eval()
    if tokenizer.chat_template is None:
        raise ModelError(f"{files.name}: its tokenizer has no chat template; choose a chat model")
    label = Path(files.name).name if files.gguf else files.name
    return Speaker(label=label, model=model, tokenizer=tokenizer)


def _opening(system: str | None, prompt: str) -> list[dict[str, str]]:
    start = [] if system is None else [{"role": "system", "content": system}]
    return [*start, {"role": "user", "content": prompt}]


def _answer(
    speaker: Speaker, messages: list[dict[str, str]], options: Namespace, streamer: Any | None = None
) -> Answer:
    import torch

    inputs = speaker.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(speaker.model.device)
    torch.manual_seed(options.seed)
    choice: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if options.temperature > 0:
        choice = {"do_sample": True, "temperature": options.temperature, "top_p": 1.0, "top_k": 0}
    with torch.inference_mode():
        output = speaker.model.generate(**inputs, max_new_tokens=options.max_tokens, streamer=streamer, **choice)
    ids = output[0, inputs["input_ids"].shape[1] :].tolist()
    known = speaker.model.generation_config.eos_token_id
    ends = {speaker.tokenizer.eos_token_id, speaker.tokenizer.pad_token_id}
    ends.update(known if isinstance(known, list) else [known])
    while ids and ids[-1] in ends:
        ids.pop()
    return split_thinking(speaker.tokenizer.decode(ids, skip_special_tokens=False))


def _converse(speakers: list[Speaker], options: Namespace) -> None:
    import readline  # noqa: F401  # gives input() editing and history

    print("Ctrl-D ends, an empty line begins a new conversation.")
    start = _opening(options.system, "")[:-1]
    histories = [list(start) for _ in speakers]
    while True:
        try:
            prompt = input("> ").strip()
        except EOFError:
            print()
            return
        if not prompt:
            histories = [list(start) for _ in speakers]
            print("(new conversation)")
            continue
        for history in histories:
            history.append({"role": "user", "content": prompt})
        answers = _respond(speakers, histories, options)
        for history, answer in zip(histories, answers, strict=True):
            history.append({"role": "assistant", "content": answer.text})


def _respond(speakers: list[Speaker], histories: list[list[dict[str, str]]], options: Namespace) -> list[Answer]:
    """Let each speaker answer its history, and print that: word by word where one speaks on a terminal."""
    if len(speakers) == 1 and sys.stdout.isatty():
        answer = _answer(speakers[0], histories[0], options, streamer=_streamer(speakers[0].tokenizer))
        print()
        return [answer]
    answers = [_answer(speaker, each, options) for speaker, each in zip(speakers, histories, strict=True)]
    _show(answers, speakers)
    return answers


def _streamer(tokenizer: Any) -> Any:
    """Prints what a model says as it says it."""
    from transformers import TextStreamer

    class ThinkingStreamer(TextStreamer):
        """Shows think tags as words."""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            shown = text.replace("<think>", "(thinking)").replace("</think>", "(answer)")
            print(shown, end="\n" if stream_end else "", flush=True)

    return ThinkingStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)


def _show(answers: list[Answer], speakers: list[Speaker]) -> None:
    texts = [_as_text(answer) for answer in answers]
    width = shutil.get_terminal_size().columns
    if len(texts) == 1:
        print(texts[0])
    elif sys.stdout.isatty() and width >= WIDE:
        left, right = (f"[{each.label}]\n{text}" for each, text in zip(speakers, texts, strict=True))
        print(side_by_side(left, right, width))
    else:
        for speaker, text in zip(speakers, texts, strict=True):
            print(f"[{speaker.label}]\n{text}")
    print(flush=True)


def _as_text(answer: Answer) -> str:
    if answer.thinking is None:
        return answer.text
    thought = textwrap.indent(answer.thinking, "  ")
    return f"(thinking)\n{thought}\n(answer)\n{answer.text}" if answer.text else f"(thinking, cut off)\n{thought}"


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns; a Chinese character takes two."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in re.findall(r"\s*[^\s⺀-鿿＀-￯]+|\s*[⺀-鿿＀-￯]|\s+", paragraph):
            if line and _columns(line + word) > width:
                lines.append(line)
                word = word.lstrip()
                line = ""
            while _columns(word) > width:
                lines.append(word[:width])
                word = word[width:]
            line += word
        lines.append(line)
    return lines


def _padded(line: str, width: int) -> str:
    return line + " " * (width - _columns(line))


def _columns(text: str) -> int:
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
