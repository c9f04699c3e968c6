"""One row of any format in, one conversation out: which format a row has, and what every conversation must hold.

Which format a row has is decided by its keys alone, in this order; a key whose value is null counts as absent:
1. `chosen` as a message or a list of messages: preference (after the list of 2, or after `prompt` or another question);
2. a list of turns (`messages`, `conversations`, `conversation`, `dialogue`, or the row itself); its first turn's keys
   tell: `from` is sharegpt, `role` is openai (both are turns where their own text key, `value` or `content`, is missing
   and another is there), `speaker` or `author` is turns, a pair's keys (`human`, `assistant`, `input`, `output`) are
   turn-pairs; a list of strings is alternating;
3. `chosen` as text, where it or `prompt` begins with a Human or Assistant mark: hh;
4. `instruction` and `output`: alpaca;
5. `prompt` or `query`, and `response`: prompt-response;
6. `dialog`, `turns` or `data` as a list of objects that are turns as in 2; `dialog` or `data` as a list of strings:
   alternating (not `turns`, which in question sets holds the user's turns only, and not beside a `text`);
7. `prompt` as an object with `text` and `replies`: oasst; `mapping` with nodes: chatgpt; `query`, `tools` and
   `answers`: xlam;
8. `input` and `output` as lists: parallel;
9. a question and an answer under other names (below): question-answer (beside a `text` only if the answer is a string);
10. `text`: text.

In lists of turns, a role name that is not known is understood where the whole conversation has one pair of names out of
role_pairs.py, such as client and counselor; --role goes before that.

A row that is itself a list of strings may be anything: it is read only with --format alternating.

| question-answer | keys, of which the first that is not null counts |
|---|---|
| question, joined by newlines | `instruction`; `question`, `query` or `prompt`; `input`; `context` |
| where none of these but `context` is there | `title`; `ask`; `context`, with `answer` |
| answer | `response`, `answer`, `completion`, `output`, `chosen` |
"""

from collections.abc import Callable
from typing import Any

from dataprep.stages.normalize import marked
from dataprep.stages.normalize.answers import (
    ANSWER_KEYS,
    POST_KEYS,
    QUESTION_GROUPS,
    from_question_answer,
    is_question_answer,
)
from dataprep.stages.normalize.chatgpt_export import from_chatgpt_export, is_chatgpt_export
from dataprep.stages.normalize.lists import from_alternating, from_parallel, holds_strings
from dataprep.stages.normalize.media import MEDIA_KEYS, refuse_media
from dataprep.stages.normalize.message import ROLE_NAMES
from dataprep.stages.normalize.pairs import (
    PAIR_KEYS,
    REASONING_COLUMNS,
    from_alpaca,
    from_marked_text,
    from_prompt_response,
    from_text,
    from_turn_pairs,
    has_marks,
)
from dataprep.stages.normalize.preference import from_preference, is_preference
from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown
from dataprep.stages.normalize.settings import Settings
from dataprep.stages.normalize.tools import TOOL_KEYS
from dataprep.stages.normalize.trees import from_oasst, is_tree
from dataprep.stages.normalize.turns import (
    LATER_LISTS,
    SYSTEM_KEYS,
    TURN_LISTS,
    Converted,
    Roles,
    from_openai,
    from_sharegpt,
    from_turns,
    holds_turns,
    turn_keys,
)
from dataprep.stages.normalize.unfold import may_hold_more, unfold
from dataprep.stages.normalize.xlam import from_xlam, is_xlam
from schemas.errors import InputError

FORMATS: dict[str, Callable[[Any, Roles], Converted]] = {
    "openai": from_openai,
    "sharegpt": from_sharegpt,
    "turns": from_turns,
    "turn-pairs": from_turn_pairs,
    "alternating": from_alternating,
    "parallel": from_parallel,
    "alpaca": from_alpaca,
    "prompt-response": from_prompt_response,
    "question-answer": from_question_answer,
    "preference": from_preference,
    "oasst": from_oasst,
    "chatgpt": from_chatgpt_export,
    "xlam": from_xlam,
    "hh": from_marked_text,
    "marked": marked.from_marked,
    "text": from_text,
}

# The keys that are read of a row; all others are passed over.
KEYS = (
    *TURN_LISTS,
    *LATER_LISTS,
    *(*SYSTEM_KEYS, *TOOL_KEYS, *MEDIA_KEYS, *REASONING_COLUMNS),
    *("instruction", "input", "output", "history", "answers", "mapping", "current_node"),
    *("prompt", "query", "response", "chosen", "text"),
    *(*marked.WHOLE_KEYS, *marked.PROMPT_KEYS, *marked.SYSTEM_KEYS),
    *(*ANSWER_KEYS, *POST_KEYS, *(key for group in QUESTION_GROUPS for key in group)),
)

# Only a row with one of these is looked at for the later formats, 6 to 9.
_LATER_KEYS = frozenset((*LATER_LISTS, *ANSWER_KEYS, "prompt", "answers", "mapping"))
_TARGETS = ("user", "assistant", "system", "tool")


def role_names(roles: dict[str, str]) -> dict[str, str]:
    """Add the user's role names to those built in. Raises InputError for a role that is none."""
    for name, role in roles.items():
        if role not in _TARGETS:
            raise InputError(f"--role {name}={role}: no such role; use one of {', '.join(_TARGETS)}")
    return ROLE_NAMES | roles


def checked_format(name: str | None) -> str | None:
    """Give a format's name back. Raises InputError for one that does not exist."""
    if name is not None and name not in FORMATS:
        raise InputError(f"--format {name}: no such format; use one of {', '.join(FORMATS)}")
    return name


def format_of(row: Any, settings: Settings) -> str:
    """Name the format that a row is read as: the one settled for all, or its own. Raises TurnedAway."""
    if type(row) is not dict and type(row) is not list:
        raise TurnedAway("not-an-object", f"the row is {kind_of(row)}, expected an object")
    return settings.format or detect_format(row)


def convert_as(row: Any, format_name: str, settings: Settings) -> Converted:
    """Give a row's messages and tools. Raises TurnedAway for a row that can't become a conversation."""
    messages, tools = FORMATS[format_name](row, settings.roles)
    if may_hold_more(messages, tools):
        messages, tools = unfold(messages, tools)
    refuse_media(row, messages)
    for message in messages:
        if message[0] == "assistant" or message[0] == "text":
            return messages, tools
    found = ", ".join(dict.fromkeys(message[0] for message in messages))
    raise TurnedAway("no-assistant-turn", f"the roles are {found}; none is the assistant's")


def detect_format(row: dict[str, Any] | list[Any]) -> str:
    """Name a row's format, by the precedence above. Raises TurnedAway where there is none."""
    if isinstance(row, list):
        return "openai" if holds_strings(row) else _turns_format(row, "openai")
    if "chosen" in row and is_preference(row):
        return "preference"
    for key, default in zip(TURN_LISTS, ("openai", "sharegpt", "turn-pairs", "openai"), strict=True):
        if row.get(key) is not None:
            return _turns_format(row[key], default)
    if has_marks(row):
        return "hh"
    if marked.find_marked_pair(row):
        return "marked"
    if row.get("instruction") is not None and "output" in row:
        return "alpaca"
    if "response" in row and (row.get("prompt") is not None or row.get("query") is not None):
        return "prompt-response"
    if not _LATER_KEYS.isdisjoint(row) and (name := _later_format(row)):
        return name
    if marked.find_whole(row):
        return "marked"
    if row.get("text") is not None:
        return "text"
    found = ", ".join(str(key) for key, value in row.items() if value is not None) or "none that is not null"
    raise TurnedAway("unknown-format", f"no known format has these keys: {shown(found)[1:-1]}")


def _later_format(row: dict[str, Any]) -> str | None:
    for key in LATER_LISTS:
        if holds_turns(row.get(key)) and (name := _turns_format(row[key], "")):
            return name
        if key != "turns" and row.get("text") is None and holds_strings(row.get(key)):
            return "alternating"
    if is_tree(row.get("prompt")):
        return "oasst"
    if is_chatgpt_export(row):
        return "chatgpt"
    if is_xlam(row):
        return "xlam"
    if isinstance(row.get("input"), list) and isinstance(row.get("output"), list):
        return "parallel"
    if is_question_answer(row) and (row.get("text") is None or any(type(row.get(key)) is str for key in ANSWER_KEYS)):
        return "question-answer"
    return None


def _turns_format(turns: object, default: str) -> str:
    first = turns[0] if isinstance(turns, list) and turns else None
    if not isinstance(first, dict):
        if isinstance(first, str):
            return "alternating"
        return "marked" if marked.holds_dialogue(turns) else default
    if first.get("from") is not None:
        return "sharegpt" if "value" in first else _named_turns(first)
    if first.get("role") is not None:
        return "openai" if "content" in first else _named_turns(first)
    if first.get("speaker") is not None or first.get("author") is not None:
        return "turns"
    return "turn-pairs" if any(key in first for key in PAIR_KEYS) else default


def _named_turns(first: dict[str, Any]) -> str:
    usual = {("from", "value"): "sharegpt", ("role", "content"): "openai"}
    return usual.get(turn_keys(first), "turns")
