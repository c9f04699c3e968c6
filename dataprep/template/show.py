"""`dataprep template M`: a sample with its targets, what the template asks and adds, and the checks, on two screens."""

import tempfile
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from dataprep.template.checks import Check, all_checks, end_tokens
from dataprep.template.probes import PROBES, Probe, samples
from dataprep.template.proof import PROVEN, Outcome, prove
from dataprep.template.subject import OFFICIAL_ERRORS, Subject, load_subject

_GREEN, _GREY, _BOLD, _RED, _OFF = "\x1b[32m", "\x1b[90m", "\x1b[1m", "\x1b[31m", "\x1b[0m"
_WIDTH = 118
_MOST_LINES = 60  # of a sample


def template_text(source: str, tokenizer: str | None, colour: bool) -> str:
    """What a model's chat template does. Raises ModelError and InputError."""
    with tempfile.TemporaryDirectory() as scratch:
        subject = load_subject(source, tokenizer, Path(scratch))
        outcomes = {probe.name: prove(subject, probe) for probe in PROBES}
        lines = [
            _styled(f"{source}: a chat template of {len(subject.template):,} characters", _BOLD, colour),
            *_sample(subject, colour),
            "",
            *_facts(subject, outcomes),
            "",
            *(line for check in all_checks(subject, PROBES, outcomes) for line in _check_lines(check, colour)),
        ]
        return "\n".join(lines)


def _styled(text: str, style: str, colour: bool) -> str:
    return f"{style}{text}{_OFF}" if colour else text


def _sample(subject: Subject, colour: bool) -> Iterator[str]:
    """The richest sample that the template takes, its targets set off."""
    tried: list[tuple[Probe, Outcome]] = []
    for probe in samples():
        outcome = prove(subject, probe)
        tried.append((probe, outcome))
        if outcome.kind == PROVEN:
            break
    for probe, outcome in tried:
        if outcome.kind != PROVEN:
            yield f"a sample with {probe.name}: {outcome.kind}: {outcome.detail}"
    probe, outcome = tried[-1]
    if outcome.kind != PROVEN:
        return
    legend = f"{_GREEN}targets{_OFF} {_GREY}context{_OFF}" if colour else "targets stand in ⟦ ⟧, the rest is context"
    yield _styled(f"── a sample with {probe.name} ".ljust(100, "─"), _BOLD, colour)
    yield legend
    lines = "".join(_spans(subject, subject.example(probe), colour)).rstrip("\n").split("\n")
    if len(lines) > _MOST_LINES:  # the head, most of it tools' definitions, gives way
        kept = _MOST_LINES * 2 // 3
        lines = [*lines[: _MOST_LINES - kept], f"… {len(lines) - _MOST_LINES} lines …", *lines[-kept:]]
    yield from lines
    yield _styled("─" * 100, _BOLD, colour)


def _spans(subject: Subject, example: dict[str, Any], colour: bool) -> Iterator[str]:
    pairs = zip(example["input_ids"], example["assistant_masks"], strict=True)
    for target, group in groupby(pairs, key=lambda pair: pair[1]):
        text = subject.decode([number for number, _ in group])
        if colour:
            style = _GREEN if target else _GREY
            yield "\n".join(f"{style}{line}{_OFF}" if line else "" for line in text.split("\n"))
        else:
            yield f"⟦{text}⟧" if target else text


def _facts(subject: Subject, outcomes: dict[str, Outcome]) -> Iterator[str]:
    yield from _fact("prompt", _prompt(subject, {}))
    taken = [shown for name in subject.arguments() if (shown := _argument(subject, name)) is not None]
    yield from _fact("arguments", "; ".join(taken) or "none")
    yield from _fact("end", " ".join(end_tokens(subject, outcomes)) or "none")
    if subject.place is not None:
        yield from _fact("eos", f"{subject.official.eos_token}  (pad {subject.official.pad_token})")
    marks = list(dict.fromkeys(outcome.marks for outcome in outcomes.values() if outcome.marks))
    if marks:
        yield from _fact("marks", f"transformers' own mask, against ours: {marks[0]}")


def _fact(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{name:<10}", subsequent_indent=" " * 10) or [name]


def _argument(subject: Subject, name: str) -> str | None:
    """A template's argument and the prompts that it makes; None where no value of it changes a rendering."""
    probe, changes = samples()[1], False
    for value in (False, True, "some text"):
        try:
            given = subject.official_text(probe.messages(), probe.tools(), True, {name: value})
            changes |= given != subject.official_text(probe.messages(), probe.tools(), True)
        except OFFICIAL_ERRORS:
            changes = True
    if not changes:
        return None
    shown = {str(value): _prompt(subject, {name: value}) for value in (False, True)}
    prompts = [f"{value}: {text}" for value, text in shown.items() if text not in (_prompt(subject, {}), "")]
    return name + (f" (the prompt with {'; with '.join(prompts)})" if prompts else "")


def _prompt(subject: Subject, further: dict[str, Any]) -> str:
    """What add_generation_prompt=True adds behind a question; "" where the template refuses."""
    messages = PROBES[0].messages()[:1]
    try:
        bare = subject.official_text(messages, None, False, further)
        prompt = subject.official_text(messages, None, True, further)
    except OFFICIAL_ERRORS:
        return ""
    if prompt == bare:
        return "nothing is added"
    return repr(prompt.removeprefix(bare)) if prompt.startswith(bare) else "the whole rendering changes"


def _check_lines(check: Check, colour: bool) -> list[str]:
    verdict = "ok" if check.good else "look out"
    lines = textwrap.wrap(f"{check.name}: {check.text}", _WIDTH - 10, break_long_words=False)
    head = _styled(f"{verdict:<10}", _GREEN if check.good else _RED, colour)
    return [head + lines[0], *(" " * 10 + line for line in lines[1:])]
