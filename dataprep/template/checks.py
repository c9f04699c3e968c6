"""The checks that people make by hand before a fine-tune, each a line: ok, or what to look out for and what to do."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from dataprep.template.probes import Message, Probe
from dataprep.template.proof import LEFT_OUT, PROVEN, TURNED_AWAY, UNSUPPORTED, Outcome
from dataprep.template.subject import OFFICIAL_ERRORS, Subject

_NAME = "Ottilie"
_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check's verdict."""

    name: str
    good: bool
    text: str


Outcomes = dict[str, Outcome]  # by probe


def all_checks(subject: Subject, probes: tuple[Probe, ...], outcomes: Outcomes) -> list[Check]:
    """The checks of a template; `outcomes` are those of `probes`."""
    by_name = {probe.name: probe for probe in probes}
    return [
        _targets(outcomes),
        _prompts(outcomes),
        _stable(subject, [by_name[name] for name in ("multi-turn", "tools", "earlier reasoning")]),
        _kept(subject, by_name, outcomes),
        _stops(subject, outcomes),
        _begins(subject, by_name["plain"]),
    ]


def _targets(outcomes: Outcomes) -> Check:
    proven = [name for name, outcome in outcomes.items() if outcome.kind == PROVEN]
    away = {name: outcome for name, outcome in outcomes.items() if outcome.kind == TURNED_AWAY}
    refused = [name for name, outcome in outcomes.items() if outcome.kind == UNSUPPORTED]
    left_out = [name for name, outcome in outcomes.items() if outcome.kind == LEFT_OUT]
    known = {*proven, *away, *refused, *left_out}
    wrong = {name: outcome for name, outcome in outcomes.items() if name not in known}
    text = f"{len(proven)} of {len(outcomes)} probes proven: each answer and its end token, nothing else"
    if refused:
        text += f"; the template itself refuses {', '.join(refused)}"
    if left_out:
        text += f"; it leaves out a text or calls, and such rows are turned away: {', '.join(left_out)}"
    if away:
        reasons = ", ".join(f"{name} ({outcome.detail.split(':')[0]})" for name, outcome in away.items())
        text += f"; rows like these are turned away, never guessed: {reasons}"
    if wrong:
        reasons = ", ".join(f"{name} ({outcome.detail})" for name, outcome in wrong.items())
        text += f"; NOT proven: {reasons}; don't train on rows like these, and report the template"
    untrained = [name for name in proven if any("isn't trained" in note for note in outcomes[name].notes)]
    if untrained:
        text += f"; earlier answers are shown otherwise and are context only: {', '.join(untrained)}"
    good = bool(proven) and not (away or left_out or wrong or untrained)
    return Check(name="targets", good=good, text=text)


def _prompts(outcomes: Outcomes) -> Check:
    found = [turn.prompt for outcome in outcomes.values() for turn in outcome.turns]
    other = list(dict.fromkeys(prompt for prompt in found if prompt))
    if not found:
        return Check(name="prompt", good=False, text="no answer could be tried")
    if not other:
        text = "before every answer stands what inference gives the model (add_generation_prompt=True)"
        return Check(name="prompt", good=True, text=text)
    shown = "; ".join(f"{prompt} ({found.count(prompt)} of {len(found)} answers)" for prompt in other)
    return Check(name="prompt", good=False, text=f"before some answers: {shown}; ask for answers in the same way later")


def _stable(subject: Subject, probes: list[Probe]) -> Check:
    changes = [change for probe in probes for change in _changes(subject, probe)]
    if not changes:
        return Check(name="stable", good=True, text="a longer dialogue begins with the rendering of its beginning")
    return Check(
        name="stable",
        good=False,
        text=f"earlier turns are rendered otherwise once others follow: {changes[0]}; each is trained as the whole "
        "dialogue shows it, and the cache of an inference server can't be reused there",
    )


def _changes(subject: Subject, probe: Probe) -> Iterator[str]:
    messages, tools = probe.messages(), probe.tools()
    try:
        whole = subject.official_text(messages, tools)
        for number, message in enumerate(messages[:-1], start=1):
            if message["role"] != "assistant":
                continue
            part = subject.official_text(messages[:number], tools)
            if not whole.startswith(part):
                same = len(commonprefix([part, whole]))  # noqa: RUF071
                pair = part[same : same + _SHOWN], whole[same : same + _SHOWN]
                yield f"{probe.name}: {pair[0]!r} becomes {pair[1]!r}"
    except OFFICIAL_ERRORS:
        return


def _kept(subject: Subject, probes: dict[str, Probe], outcomes: Outcomes) -> Check:
    lost = [part for part in (_system(subject, probes), _calls(outcomes)) if part]
    for name in ("reasoning", "earlier reasoning"):
        notes = " ".join(outcomes[name].notes)
        if "reasoning is left out" in notes:
            lost.append("reasoning is left out" if name == "reasoning" else "reasoning of earlier turns is left out")
            break
    if any("definitions" in note for note in outcomes["tools"].notes):
        lost.append("the tools' definitions are left out")
    named: list[Message] = [{"role": "user", "name": _NAME, "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    text = _text_or_none(subject, named)
    if text is not None and _NAME not in text:
        lost.append("names of users are left out")
    if not lost:
        return Check(name="kept", good=True, text="system, tools, calls, reasoning and names all stand there")
    serious = [part for part in lost if not part.startswith("names")]
    return Check(name="kept", good=not serious, text="; ".join(lost))


def _system(subject: Subject, probes: dict[str, Probe]) -> str:
    messages = probes["system"].messages()
    plain, whole = _text_or_none(subject, probes["plain"].messages()), _text_or_none(subject, messages)
    system, question = messages[0]["content"], messages[1]["content"]
    if whole is None or plain is None:
        return "a system message is refused"
    if system not in whole:
        return "the system message is left out"
    controls = subject.bundle.control_tokens
    counts = [
        sum(text[: text.find(question)].count(token) for token in controls)
        for text in (plain, whole)
        if question in text
    ]
    return "the system message is moved into the user's turn" if len(counts) == 2 and counts[0] == counts[1] else ""


def _calls(outcomes: Outcomes) -> str:
    tools = outcomes["tools"]
    if tools.kind == UNSUPPORTED:
        return "tool calls are refused"
    return "tool calls are left out" if "message-dropped" in tools.detail else ""


def _text_or_none(subject: Subject, messages: list[Message]) -> str | None:
    try:
        return subject.official_text(messages, None)
    except OFFICIAL_ERRORS:
        return None


def end_tokens(subject: Subject, outcomes: Outcomes) -> list[str]:
    """The control tokens that answers end with."""
    texts = [turn.text for outcome in outcomes.values() for turn in outcome.turns]
    ends = [next((token for token in subject.bundle.control_tokens if text.endswith(token)), "") for text in texts]
    return list(dict.fromkeys(end for end in ends if end))


def _stops(subject: Subject, outcomes: Outcomes) -> Check:
    ends = end_tokens(subject, outcomes)
    if not ends:
        text = "no answer ends with a control token: the model can't learn to stop; use another template"
        return Check(name="stops", good=False, text=text)
    shown = " and ".join(map(repr, ends))
    if subject.place is None:
        text = f"answers end with {shown}; give --tokenizer to see whether generation stops there"
        return Check(name="stops", good=True, text=text)
    official, wrong = subject.official, []
    ids = [official.convert_tokens_to_ids(end) for end in ends]
    if official.eos_token not in ends:
        wrong.append(f"the tokenizer's eos is {official.eos_token!r}")
    generation = _generation_eos(subject)
    absent = [f"{end!r} ({number})" for end, number in zip(ends, ids, strict=True) if number not in (generation or ids)]
    if absent:
        wrong.append(f"generation_config.json doesn't stop at {', '.join(absent)}: add it to eos_token_id")
    elif wrong:
        wrong[0] += "" if generation else ", and there is no generation_config.json: set eos_token_id when you serve"
    if official.pad_token in ends:
        wrong.append("padding is the same token: trainers that mask padding by its id take it out of the targets")
    if wrong and (absent or not generation or official.pad_token in ends):
        return Check(name="stops", good=False, text=f"answers end with {shown}, but {'; '.join(wrong)}")
    where = "the tokenizer's eos" if not wrong else "no eos of the tokenizer"
    where += ", and stands in generation_config.json" if generation else "; there is no generation_config.json"
    return Check(name="stops", good=True, text=f"{shown} ends answers: {where}")


def _generation_eos(subject: Subject) -> list[int] | None:
    if subject.place is None:
        return None
    try:
        config = json.loads((subject.place / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    eos: Any = config.get("eos_token_id")
    return eos if isinstance(eos, list) else [] if eos is None else [eos]


def _begins(subject: Subject, probe: Probe) -> Check:
    if subject.place is None:
        return Check(name="begins", good=True, text="give --tokenizer to see whether bos is written twice")
    bos = subject.official.bos_token_id
    text = _text_or_none(subject, probe.messages())
    writes = bool(bos is not None and text and text.startswith(subject.official.bos_token))
    adds = bos is not None and subject.official("a")["input_ids"][:1] == [bos]
    if writes and adds:
        text = "both template and tokenizer write bos: encode rendered text with add_special_tokens=False (done here)"
        return Check(name="begins", good=False, text=text)
    if adds:
        text = "the tokenizer writes bos but the template doesn't: chats begin without it, here and at inference"
        return Check(name="begins", good=False, text=text)
    return Check(name="begins", good=True, text="with one bos, the template's" if writes else "without bos")
