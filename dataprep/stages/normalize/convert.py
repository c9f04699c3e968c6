"""One row of any format in, one conversation out: which format a row has, and what every conversation must hold.

Which format a row has is decided by its keys, and by speaker marks in a text, in this order; a key whose value is null
counts as absent:
1. `chosen` as a message or a list of messages, or as a text beside a list of turns: preference (after the list of 2, or
   after `prompt` or another question);
2. a list of turns (`messages`, `conversations`, `conversation`, `dialogue`, or the row itself); its first turn's keys
   tell: `from` is sharegpt, `role` is openai (both are turns where their own text key, `value` or `content`, is missing
   and another is there), `speaker` and other ROLE_KEYS are turns, a pair's keys (`human`, `user`, `assistant`, `input`,
   `output`) are turn-pairs; a list of strings is alternating, one string with speaker marks (marks.py) is marked;
3. `chosen` as text, where it or `prompt` begins with a Human or Assistant mark: hh; `chosen` with other marks, or a
   question with marks up to its answer, which stands under another key: marked;
4. `instruction` and `output`, which is no list: alpaca;
5. `prompt` or `query`, and `response`, neither a list: prompt-response;
6. `dialog`, `turns` or `data` as a list of objects that are turns as in 2; `dialog` or `data` as a list of strings:
   alternating (not `turns`, which in question sets holds the user's turns only, and not beside a `text`);
7. `prompt` as an object with `text` and `replies`: oasst; `mapping` with nodes: chatgpt; `query`, `tools` and
   `answers`: xlam;
8. a list of questions and a list of answers, such as `input` and `output` (PARALLEL_KEYS of lists.py): parallel;
9. a question and an answer under other names (below): question-answer (beside a `text` only if the answer is a string);
10. an unusual arrangement of any of these (reshape.py): the format of what it holds;
11. one message of a tree, which names its parent: oasst (flat_trees.py joins those of a file);
12. a whole dialogue with speaker marks as the `text`, or under another key of marked.py: marked;
13. `text`: text.

The shapes of a mapping file go before all of them.

In lists of turns, a role name that is not known is understood where the whole conversation has one pair of names out of
role_pairs.py, such as client and counselor; --role goes before that.

A row that is itself a list of strings may be anything: it is read only with --format alternating, or where each begins
with its speaker's mark. An object of no format may be turns in numbered columns (unnamed.py), or a whole file of rows
under their ids (keyed.py).

| question-answer | keys, of which the first that is not null counts |
|---|---|
| question, joined by newlines | `instruction`; `question`, `query` or `prompt`; `input`; `context` |
| where only `context` of these is there, with `answer` | `title`; `ask`, `body`, `description`, `content`; `context` |
| beside `question` | `description` after it; under all, what there is to choose from (choices.py) |
| answer | `response`, `answer`, `completion`, `output`, `chosen` |
| where there is no such pair | NAMED_PAIRS of answers.py, such as `human` and `gpt`; then any of these in capitals |
"""

from collections.abc import Callable
from typing import Any

from dataprep.stages.normalize.formats import marked
from dataprep.stages.normalize.formats.answers import (
    ANSWER_KEYS,
    ANSWER_SPELLINGS,
    POST_KEYS,
    QUESTION_GROUPS,
    SPELLINGS,
    SPOKEN_ANSWERS,
    asks_by_text,
    from_question_answer,
    is_question_answer,
    is_unanswered,
    lowered,
)
from dataprep.stages.normalize.formats.cells import as_list
from dataprep.stages.normalize.formats.chatgpt_export import from_chatgpt_export, is_chatgpt_export
from dataprep.stages.normalize.formats.history import EXCHANGE_KEYS
from dataprep.stages.normalize.formats.keyed import keyed_rows
from dataprep.stages.normalize.formats.lists import (
    PARALLEL_KEYS,
    SPEAKER_KEYS,
    from_alternating,
    from_parallel,
    holds_strings,
    marked_turns,
    parallel_keys,
)
from dataprep.stages.normalize.formats.pairs import (
    PAIR_KEYS,
    REASONING_COLUMNS,
    from_alpaca,
    from_marked_text,
    from_prompt_response,
    from_text,
    from_turn_pairs,
    has_marks,
)
from dataprep.stages.normalize.formats.preference import from_preference, has_role, is_preference
from dataprep.stages.normalize.formats.reshape import RESHAPED_KEYS, reshaped
from dataprep.stages.normalize.formats.trees import PARENT_KEYS, from_oasst, is_flat_message, is_tree
from dataprep.stages.normalize.formats.turn_rows import TURN_ROW_KEYS, is_one_turn
from dataprep.stages.normalize.formats.turns import (
    LATER_LISTS,
    ROLE_KEYS,
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
from dataprep.stages.normalize.formats.unnamed import numbered
from dataprep.stages.normalize.formats.xlam import from_xlam, is_xlam
from dataprep.stages.normalize.mapping import convert_shape, keys_of, shape_of
from dataprep.stages.normalize.message import ROLE_NAMES
from dataprep.stages.normalize.reasons import TurnedAway, kind_of, shown
from dataprep.stages.normalize.settings import Settings
from dataprep.stages.normalize.texts.media import MEDIA_KEYS, refuse_media
from dataprep.stages.normalize.texts.tools import TOOL_KEYS
from dataprep.stages.normalize.texts.unfold import may_hold_more, unfold
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
    *(*SPELLINGS, *SPEAKER_KEYS, *RESHAPED_KEYS, *(key for pair in PARALLEL_KEYS for key in pair)),
    *(*PARENT_KEYS, "id", "message_id", "role", "rank", "deleted", "review_result"),
    *(*TURN_ROW_KEYS, "content", "value", "tool_calls", "name", "tool_call_id"),
)

# Only a row with one of these is looked at for the later formats, 6 to 9.
_LATER_KEYS = frozenset(
    (*LATER_LISTS, "prompt", "mapping", *ANSWER_SPELLINGS, *(answering for _, answering in PARALLEL_KEYS))
)
_RESHAPED_KEYS = frozenset((*TURN_LISTS, *LATER_LISTS, *ANSWER_KEYS, *RESHAPED_KEYS)) - {"text"}
# An exchange with one of these has more to say than a pair of PAIR_KEYS reads.
_EXCHANGE_KEYS = frozenset(key for pair in EXCHANGE_KEYS for key in pair) - frozenset(PAIR_KEYS)
_TALKS = ("prompt", "question", "query", "input", "context", *ANSWER_KEYS)
_FURTHER_ROLES = tuple(key for key in ROLE_KEYS if key not in ("from", "role"))
_PARENT_KEYS = frozenset(PARENT_KEYS)
_ONE_TURN = (
    "the row is one turn; rows of a dialogue are joined where the file's first row names a known speaker: "
    "--role NAME=user, --role NAME=assistant"
)
_DOCUMENTS = ("text", "marked")
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


def checked_row(row: Any) -> None:
    """Turn away a row that is neither an object nor a list."""
    if type(row) is not dict and type(row) is not list:
        raise TurnedAway("not-an-object", f"the row is {kind_of(row)}, expected an object")


def columns_read(settings: Settings) -> tuple[str, ...]:
    """Name the columns that are read of tables: KEYS, and what a mapping file's shapes name."""
    return tuple(dict.fromkeys((*KEYS, *keys_of(settings.shapes))))


def format_of(row: Any, settings: Settings) -> str:
    """Name the format that a row is read as: the one settled for all, or its own. Raises TurnedAway."""
    checked_row(row)
    shape = shape_of(row, settings.shapes) if settings.shapes else None
    return shape.name if shape else settings.format or detect_format(row)


def convert_as(row: Any, format_name: str, settings: Settings) -> Converted:
    """Give the messages and tools of a row that `parts_of` gave. Raises TurnedAway where it is no conversation."""
    reader = FORMATS.get(format_name)
    messages, tools = reader(row, settings.roles) if reader else _convert_mapped(row, format_name, settings)
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
    name = named_rows(row)[0]
    if name is not None:
        return name
    keys = row if isinstance(row, dict) else {}
    found = ", ".join(str(key) for key, value in keys.items() if value is not None) or "none that is not null"
    fix = _ONE_TURN if is_one_turn(keys) else None
    raise TurnedAway("unknown-format", f"no known format has these keys: {shown(found)[1:-1]}", fix)


def named_rows(row: Any, depth: int = 2) -> tuple[str | None, list[Any]]:
    """Give a row's format, and the row itself or the ordinary rows of that format that it means.

    The name is None where the row has no format. Unusual arrangements may hold others, `depth` deep at most.
    """
    name = _own_format(row)
    if name is not None:
        return name, [row]
    if depth and (isinstance(row, list) or not _RESHAPED_KEYS.isdisjoint(row)):
        for rows in reshaped(row):
            if len(rows) > 1:
                return "alpaca", rows  # the instances of one instruction
            name, inner = named_rows(rows[0], depth - 1)
            if name is not None and not (name in _DOCUMENTS and row.get("text") is not None):
                return name, inner
    name = _last_format(row)
    return (name, [row]) if name or not depth else _rows_within(row, depth - 1)


def _rows_within(row: dict[str, Any], depth: int) -> tuple[str | None, list[Any]]:
    """Give the rows of an object that no format has: turns in numbered columns, or a file of rows under their ids."""
    joined = numbered(row)
    if joined is not None:
        return named_rows(joined, depth)
    name, inner = None, []
    for value in keyed_rows(row):
        own, rows = named_rows(value, depth)
        if (own is None and name is None) or own in _DOCUMENTS:
            return None, [row]
        name = name or own
        inner += rows if own == name else [value]
    return name, inner or [row]


def _own_format(row: dict[str, Any] | list[Any]) -> str | None:
    if isinstance(row, list):
        if holds_strings(row):
            return "alternating" if marked_turns(row, ROLE_NAMES) else "openai"
        return _turns_format(row)
    if "chosen" in row and is_preference(row):
        return "preference"
    for key in TURN_LISTS:
        if row.get(key) is not None:
            return _turns_format(row[key])
    if has_marks(row):
        return "hh"
    if marked.find_marked_pair(row):
        return "marked"
    answer = row.get("output")
    if answer is not None and type(answer) is not list and row.get("instruction") is not None:
        return "alpaca"
    answer = row.get("response")
    if answer is not None and type(answer) is not list:
        asked = row.get("prompt")
        if type(row.get("query") if asked is None else asked) is str:
            return "prompt-response"
    return None if _LATER_KEYS.isdisjoint(row) else _later_format(row)


def _last_format(row: dict[str, Any] | list[Any]) -> str | None:
    """Name the format of a row that only seems to have one, so that its reader says what is wrong; or of a document."""
    if isinstance(row, list):
        return "openai"
    for key, default in zip(TURN_LISTS, ("openai", "sharegpt", "turn-pairs", "openai"), strict=True):
        if row.get(key) is not None:
            return default
    if not _PARENT_KEYS.isdisjoint(row) and is_flat_message(row):
        return "oasst"
    if marked.find_whole(row):
        return "marked"
    if row.get("text") is None:
        return _unanswered(row)
    return "question-answer" if asks_by_text(row) else "text"


def _unanswered(row: dict[str, Any]) -> str | None:
    """Name the format of a row whose one answer is null."""
    if row.get("instruction") is not None and "output" in row:
        return "alpaca"
    if "response" in row and (row.get("prompt") is not None or row.get("query") is not None):
        return "prompt-response"
    return "question-answer" if is_unanswered(row) else None


def _convert_mapped(row: Any, name: str, settings: Settings) -> Converted:
    shape = next(shape for shape in settings.shapes if shape.name == name)
    if shape.format is None:
        return convert_shape(row, shape, settings.roles)
    return FORMATS[shape.format](row, settings.roles)


def _later_format(row: dict[str, Any]) -> str | None:
    has_lists = list in map(type, row.values())
    for key in LATER_LISTS if has_lists else ():
        if holds_turns(row.get(key)) and (name := _turns_format(row[key])):
            return name
        if key != "turns" and row.get("text") is None and holds_strings(row.get(key)):
            return "alternating"
    if is_tree(row.get("prompt")):
        return "oasst"
    if is_chatgpt_export(row):
        return "chatgpt"
    if is_xlam(row):
        return "xlam"
    if has_lists and parallel_keys(row):
        return "parallel"
    small = row if is_question_answer(row) else lowered(row)
    if small is None or (small is not row and has_lists and parallel_keys(small)):
        return None
    if small is row and row.get("text") is not None and asks_by_text(row):
        return None
    for key in _TALKS:
        if key in small and _holds_talk(small[key]):
            return None
    if row.get("text") is None or any(type(value) is str for key, value in small.items() if key in SPOKEN_ANSWERS):
        return "question-answer"
    return None


def _holds_talk(value: object) -> bool:
    """Tell whether a value is a list of messages, as it is or as text; parts of one message are none."""
    if type(value) is str and value[:1] not in ("[", "{"):
        return False
    turns = as_list(value)
    return isinstance(turns, list) and bool(turns) and has_role(turns[0]) and turn_keys(turns[0])[1] in turns[0]


def _turns_format(turns: object) -> str | None:
    first = turns[0] if isinstance(turns, list) and turns else None
    if not isinstance(first, dict):
        if isinstance(first, str):
            return "alternating"
        return "marked" if marked.holds_dialogue(turns) else None
    if first.get("from") is not None:
        return "sharegpt" if "value" in first else _named_turns(first)
    if first.get("role") is not None:
        return "openai" if "content" in first else _named_turns(first)
    if any(first.get(key) is not None for key in _FURTHER_ROLES):
        return "turns"
    return "turn-pairs" if any(key in first for key in PAIR_KEYS) and _EXCHANGE_KEYS.isdisjoint(first) else None


def _named_turns(first: dict[str, Any]) -> str:
    usual = {("from", "value"): "sharegpt", ("role", "content"): "openai"}
    return usual.get(turn_keys(first), "turns")
