"""All steps on one conversation, in one order: texts are mended, turns put in order, and then it is judged.

1. texts (markup.py, text.py): html, replacement-chars, control-chars, control-tokens, spaced-chinese, spaces,
   placeholders; `content` and `reasoning` of every message. Of a tool's output only control-chars are looked for, and
   the arguments of tool calls are never changed;
2. turns (structure.py; not of a document): empty-turns, first-role, last-role, system-role, same-role;
3. the whole (filters.py): refusals, limits of turns and characters, repetition, languages.

What is mended goes through 1 and 2 again until nothing changes, so that cleaning what is clean changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter

import orjson

from dataprep.stages.clean.cleaned import Clean, Cleaned
from dataprep.stages.clean.filters import make_filters
from dataprep.stages.clean.markup import has_markup, without_markup
from dataprep.stages.clean.notes import Notes
from dataprep.stages.clean.screen import suspected
from dataprep.stages.clean.structure import empty_turns, first_role, in_order, last_role, same_role, system_role
from dataprep.stages.clean.text import (
    is_spaced_chinese,
    joined_chinese,
    tidy_spaces,
    without_control_chars,
    without_control_tokens,
    without_placeholders,
    without_replacement_chars,
)
from dataprep.stages.normalize.message import Message
from dataprep.stages.normalize.reasons import TurnedAway, shown


@dataclass(frozen=True, kw_only=True, slots=True)
class _TextStep:
    mend: Callable[[str], str]
    applies: Callable[[list[str]], bool] = lambda texts: True  # to the texts of a conversation together
    tool_outputs: bool = False


_TEXT_STEPS = {
    "html": _TextStep(mend=without_markup, applies=has_markup),
    "replacement-chars": _TextStep(mend=without_replacement_chars),
    "control-chars": _TextStep(mend=without_control_chars, tool_outputs=True),
    "control-tokens": _TextStep(mend=without_control_tokens),
    "spaced-chinese": _TextStep(mend=joined_chinese, applies=is_spaced_chinese),
    "spaces": _TextStep(mend=tidy_spaces),
    "placeholders": _TextStep(mend=without_placeholders),
}
_ORDER_STEPS = {
    "first-role": first_role,
    "last-role": last_role,
    "system-role": system_role,
    "same-role": same_role,
}


_ROLE = itemgetter(0)


def make_cleaner(settled: Mapping[str, str]) -> Clean:
    """Give the function that does all steps, as settled_steps settled them; it raises TurnedAway.

    Without messages of the assistant in the end, the reason is no-assistant-turn. The steps `duplicates` and
    `near-duplicates` compare conversations with each other and are not done here.
    """
    texts = {name: settled[name] for name in _TEXT_STEPS if settled.get(name, "off") != "off"}
    turns = {name: settled[name] for name in ("empty-turns", *_ORDER_STEPS) if settled.get(name, "off") != "off"}
    filters = make_filters(settled)

    def clean(messages: list[Message], canonical: bytes) -> Cleaned | None:
        suspects = suspected(canonical, len(messages))
        if not suspects and not filters and in_order(_roles(messages)):
            return None
        notes = Notes()
        cleaned = _mended(messages, suspects, texts, turns, notes)
        for check in filters:
            check(cleaned, notes)
        if not notes.changed and not notes.seen:
            return None
        return Cleaned(messages=cleaned, changed=tuple(notes.changed), seen=tuple(notes.seen))

    return clean


def _mended(
    messages: list[Message], suspects: list[str], texts: Mapping[str, str], turns: Mapping[str, str], notes: Notes
) -> list[Message]:
    while True:
        before = messages
        for name, value in texts.items() if suspects else ():
            if name in suspects:
                messages = _text_step(name, value, messages, notes)
        if messages[0][0] != "text":
            messages = _turn_steps(messages, "empty-turns" in suspects or messages is not before, turns, notes)
        if messages == before:
            return before
        suspects = suspected(orjson.dumps((messages, None)), len(messages))


def _turn_steps(messages: list[Message], maybe_empty: bool, turns: Mapping[str, str], notes: Notes) -> list[Message]:
    before = messages
    if maybe_empty and "empty-turns" in turns:
        messages = empty_turns(messages, turns["empty-turns"], notes)
    for name, step in _ORDER_STEPS.items():
        if in_order(_roles(messages)):
            return messages
        if name in turns:
            messages = step(messages, turns[name], notes)
    asked = turns.get("last-role") in ("fix", "drop") or messages is not before
    if asked and not any(message[0] == "assistant" for message in messages):
        raise TurnedAway("no-assistant-turn", "no message of the assistant is there, or left")
    return messages


def _text_step(name: str, value: str, messages: list[Message], notes: Notes) -> list[Message]:
    step = _TEXT_STEPS[name]
    places = [place for place, m in enumerate(messages) if step.tool_outputs or m[0] != "tool"]
    if not step.applies([messages[place][1] for place in places]):
        return messages
    mended = {}
    for place in places:
        message = _mended_message(messages[place], step.mend)
        if message is not messages[place]:
            mended[place] = message
            if value != "fix":
                break
    if not mended:
        return messages
    if value == "drop":
        place = next(iter(mended))
        raise TurnedAway(name, f"message {place + 1} holds {_difference(messages[place], mended[place])}")
    if value == "count":
        notes.see(name)
        return messages
    notes.change(name)
    return [mended.get(place, message) for place, message in enumerate(messages)]


def _roles(messages: list[Message]) -> tuple[str, ...]:
    return tuple(map(_ROLE, messages))


def _mended_message(message: Message, mend: Callable[[str], str]) -> Message:
    content = mend(message[1])
    reasoning = mend(message[2]) if len(message) > 2 and message[2] else None
    if content == message[1] and (reasoning is None or reasoning == message[2]):
        return message
    fields = [message[0], content, reasoning or None, *message[3:]]
    while fields[-1] is None:  # a message's short form has none of these
        fields.pop()
    return tuple(fields)


def _difference(message: Message, mended: Message) -> str:
    before, after = (message[1], mended[1]) if message[1] != mended[1] else (message[2], mended[2])
    first = next(
        (place for place, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(after)
    )
    return shown(before[first : first + 40])
