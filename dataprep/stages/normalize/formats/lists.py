"""Rows whose dialogue is lists of plain strings: one that alternates, or one of questions beside one of answers.

Beside a list of strings, a list of `speakers` of the same length tells who says what; or each string begins with the
mark of its speaker.
"""

import re
from typing import Any

from dataprep.stages.normalize.formats.turns import LATER_LISTS, TURN_LISTS, Converted, Roles, with_system
from dataprep.stages.normalize.message import Message, checked_answer
from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown
from dataprep.stages.normalize.role_pairs import with_role_pair
from dataprep.stages.normalize.texts.tools import row_tools

# Where the two lists may stand; `turns` are questions only, so they have their answers beside them.
PARALLEL_KEYS = (
    ("input", "output"),
    ("inputs", "outputs"),
    ("questions", "answers"),
    ("question", "answer"),
    ("queries", "responses"),
    ("prompts", "responses"),
    ("prompts", "completions"),
    ("prompt", "response"),
    ("query", "response"),
    ("human", "assistant"),
    ("user", "assistant"),
    ("human", "gpt"),
    ("human", "bot"),
    ("instructions", "responses"),
    ("instructions", "outputs"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("user_utterances", "bot_utterances"),
    ("user_utterances", "system_utterances"),
    ("turns", "answers"),
    ("turns", "responses"),
    ("turns", "reference"),
)
SPEAKER_KEYS = ("speakers", "speaker", "roles")
_MARK = re.compile(r"\s*[*\[【<]{0,2}([^\W\d_][\w ]{0,15})[*\]】>]{0,2}\s?[:：]\s*")


def from_alternating(row: Any, roles: Roles) -> Converted:
    """Convert {"data": ["…", "…"]}, or a bare list, of strings: the user's first, then in turns.

    With {"speakers": ["…", "…"]} beside it, each says what stands at their place; of two names that are no known roles,
    the first to speak is the user.
    """
    texts = _strings(row)
    said_by = _said_by(row, len(texts), roles) if isinstance(row, dict) else None
    marked = None if said_by else marked_turns(texts, roles)
    messages: list[Message] = []
    for number, text in enumerate(texts, 1):
        where = f"message {number}"
        if type(text) is not str:
            raise TurnedAway("bad-message", f"{where} is {kind_of(text)}, expected a string")
        if marked:
            messages.append(marked[number - 1])
            continue
        role = said_by[number - 1] if said_by else ("assistant", "user")[number % 2]
        messages.append((role, checked_answer(text, where) if role == "assistant" else text))
    return with_system(row, messages), row_tools(row)


def from_parallel(row: Any, roles: Roles) -> Converted:
    """Convert {"input": ["…"], "output": ["…"]}; the last input may lack its output, which ends the dialogue there.

    An `instruction` beside them stands before the first input, on a line of its own.
    """
    if not isinstance(row, dict):
        raise TurnedAway("format-mismatch", f"the row is {kind_of(row)}; parallel needs an object")
    asking, answering = parallel_keys(row) or PARALLEL_KEYS[0]
    for key in (asking, answering):
        if not isinstance(row.get(key), list):
            raise TurnedAway("format-mismatch", f"{key} is {kind_of(row.get(key))}; parallel needs a list")
    inputs, outputs = row[asking], row[answering]
    if len(inputs) - len(outputs) not in (0, 1):
        detail = (
            f"{asking} and {answering} hold {len(inputs)} and {len(outputs)} texts; one output an input is expected"
        )
        raise TurnedAway("uneven-lists", detail)
    messages: list[Message] = []
    for number, text in enumerate(inputs, 1):
        messages.append(("user", _string(text, f"{asking} {number}")))
        if number <= len(outputs):
            where = f"{answering} {number}"
            messages.append(("assistant", checked_answer(_string(outputs[number - 1], where), where)))
    if not messages:
        raise TurnedAway("no-messages", f"{asking} is an empty list")
    instruction = row.get("instruction")
    if type(instruction) is str and instruction:
        messages[0] = ("user", f"{instruction}\n{messages[0][1]}" if messages[0][1] else instruction)
    return with_system(row, messages), row_tools(row)


def parallel_keys(row: dict[str, Any]) -> tuple[str, str] | None:
    """Give the keys of a row's list of questions and of its list of answers; None where it has no such lists."""
    for asking, answering in PARALLEL_KEYS:
        if isinstance(row.get(asking), list) and isinstance(row.get(answering), list):
            usual = asking == "input" and answering == "output"
            if usual or (holds_strings(row[asking]) and holds_strings(row[answering])):
                return asking, answering
    return None


def holds_strings(value: object) -> bool:
    """Tell whether a value is a list whose first item is a string."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def marked_turns(texts: list[Any], roles: Roles) -> list[Message] | None:
    """Read texts each of which begins with its speaker's mark, as in ["问：…", "答：…"]; None where one doesn't."""
    found: list[re.Match[str]] = []
    for text in texts:
        mark = _MARK.match(text) if type(text) is str else None
        if mark is None:
            return None
        found.append(mark)
    known = with_role_pair({mark[1] for mark in found}, roles)
    said = [known.get(mark[1]) for mark in found]
    if not {"user", "assistant"} <= set(said) <= {"user", "assistant", "system"}:
        return None
    return [(role, mark.string[mark.end() :]) for role, mark in zip(said, found, strict=True)]


def _strings(row: Any) -> list[Any]:
    if isinstance(row, list):
        if not row:
            raise TurnedAway("no-messages", "the row is an empty list")
        return row
    found = next((row[key] for key in (*TURN_LISTS, *LATER_LISTS) if holds_strings(row.get(key))), None)
    if found is None:
        raise TurnedAway("format-mismatch", "the row has no list of strings; alternating needs one")
    turns: list[Any] = found
    return turns


def _said_by(row: dict[str, Any], num_texts: int, roles: Roles) -> list[str] | None:
    speakers = next((row[key] for key in SPEAKER_KEYS if holds_strings(row.get(key))), None)
    if speakers is None or len(speakers) != num_texts or not all(type(name) is str for name in speakers):
        return None
    names = list(dict.fromkeys(speakers))
    known = with_role_pair(set(names), roles)
    unknown = [name for name in names if name not in known]
    if unknown:
        if len(names) != 2:
            detail = f"{len(names)} speak, of whom {shown(unknown[0])} has no known role"
            raise TurnedAway("unknown-role", detail)
        asking = _asks(names, known)
        known = {name: "user" if name == asking else "assistant" for name in names}
    other = next((name for name in names if known[name] not in ("user", "assistant", "system")), None)
    if other is not None:
        raise TurnedAway("bad-message", f"{shown(other)} speaks plain text; expected a user, an assistant or a system")
    return [known[name] for name in speakers]


def _asks(names: list[str], known: Roles) -> str:
    """Of two speakers, give the user: the one known as such, or not known as the assistant; else the first to speak."""
    if known.get(names[1]) == "user" or known.get(names[0]) == "assistant":
        return names[1]
    return names[0]


def _string(value: object, where: str) -> str:
    if type(value) is not str:
        raise TurnedAway("bad-message", f"{where} is {kind_of(value)}, expected a string")
    return value
