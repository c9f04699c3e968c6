"""Steps that turn a conversation away for what it is as a whole: how long, in which language, how repetitive.

Each is a function of the messages that gives a detail where the conversation is to go, under a reason.
"""

from collections.abc import Callable, Mapping
from functools import partial

from dataprep.stages.clean.languages import CHARACTERS, other_language
from dataprep.stages.clean.notes import Notes
from dataprep.stages.clean.refusals import found_refusal
from dataprep.stages.clean.repetition import repeated_share
from dataprep.stages.normalize.message import Message
from dataprep.stages.normalize.reasons import TurnedAway, shown

Filter = Callable[[list[Message], Notes], None]


def make_filters(values: Mapping[str, str]) -> list[Filter]:
    """Give the filters that are on, in the order of STEPS; loads a language model where `languages` is set."""
    filters: list[Filter] = []
    if values.get("refusals", "off") != "off":
        filters.append(partial(_refusals, values["refusals"]))
    for step, check in _LIMITS.items():
        if values.get(step, "off") != "off":
            filters.append(partial(check, int(values[step])))
    if values.get("repetition", "off") != "off":
        filters.append(partial(_repetition, float(values["repetition"])))
    if values.get("languages", "off") != "off":
        wanted = values["languages"].split(",")
        filters.append(partial(_languages, wanted, other_language(wanted)))
    return filters


def _refusals(value: str, messages: list[Message], notes: Notes) -> None:
    for number, message in enumerate(messages, 1):
        found = found_refusal(message[1]) if message[0] == "assistant" else None
        if found is None:
            continue
        if value == "drop":
            raise TurnedAway("refusals", f"message {number} says {shown(found)}")
        notes.see("refusals")


def _min_turns(limit: int, messages: list[Message], notes: Notes) -> None:
    if (turns := _turns(messages)) < limit and not _is_document(messages):
        raise TurnedAway("too-few-turns", f"{turns:,} messages of user and assistant, below {limit:,}")


def _max_turns(limit: int, messages: list[Message], notes: Notes) -> None:
    if (turns := _turns(messages)) > limit:
        raise TurnedAway("too-many-turns", f"{turns:,} messages of user and assistant, above {limit:,}")


def _min_chars(limit: int, messages: list[Message], notes: Notes) -> None:
    if (size := sum(len(message[1]) for message in messages)) < limit:
        raise TurnedAway("too-few-chars", f"{size:,} characters in all, below {limit:,}")


def _max_chars(limit: int, messages: list[Message], notes: Notes) -> None:
    if (size := sum(len(message[1]) for message in messages)) > limit:
        raise TurnedAway("too-many-chars", f"{size:,} characters in all, above {limit:,}")


def _min_answer_chars(limit: int, messages: list[Message], notes: Notes) -> None:
    for number, message in enumerate(messages, 1):
        if message[0] == "assistant" and len(message[1]) < limit and not (len(message) > 3 and message[3]):
            raise TurnedAway("short-answer", f"message {number} has {len(message[1]):,} characters, below {limit:,}")


def _repetition(limit: float, messages: list[Message], notes: Notes) -> None:
    for number, message in enumerate(messages, 1):
        if message[0] in ("assistant", "text") and (share := repeated_share(message[1])) > limit:
            raise TurnedAway("repetitive", f"{share:.0%} of message {number} repeats itself, above {limit:.0%}")


def _languages(wanted: list[str], other: Callable[[str], str | None], messages: list[Message], notes: Notes) -> None:
    languages: dict[str, None] = {}
    for texts in _sides(messages):
        language = other("\n".join(texts))
        if language is None:
            return
        if language:
            languages[language] = None
    if languages:
        detail = f"the text is in {' and '.join(languages)}, not in {' or '.join(wanted)}"
        raise TurnedAway("other-language", detail)


def _sides(messages: list[Message]) -> tuple[list[str], list[str]]:
    """Give what is asked and what is answered: a translation has its languages on two sides."""
    asked = [message[1][:CHARACTERS] for message in messages if message[0] == "user"]
    return asked, [message[1][:CHARACTERS] for message in messages if message[0] in ("assistant", "text")]


def _turns(messages: list[Message]) -> int:
    return sum(message[0] in ("user", "assistant") for message in messages)


def _is_document(messages: list[Message]) -> bool:
    return messages[0][0] == "text"


_LIMITS: dict[str, Callable[[int, list[Message], Notes], None]] = {
    "min-turns": _min_turns,
    "max-turns": _max_turns,
    "min-chars": _min_chars,
    "max-chars": _max_chars,
    "min-answer-chars": _min_answer_chars,
}
