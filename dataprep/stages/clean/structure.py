"""Steps on the order of turns: empty ones, the first, the last, two in a row, and system messages out of place.

Each takes the messages, the step's value and notes, and gives the messages. A document is never given to them.
"""

from functools import lru_cache
from itertools import pairwise

from dataprep.stages.clean.notes import Notes
from dataprep.stages.normalize.message import Message
from dataprep.stages.normalize.reasons import TurnedAway


@lru_cache(maxsize=4096)
def in_order(roles: tuple[str, ...]) -> bool:
    """Tell by the roles alone whether no step here but empty_turns finds anything; so for every document."""
    if roles == ("text",):
        return True
    turns = roles[1:] if roles[:1] == ("system",) else roles
    if not turns or turns[0] == "assistant" or turns[-1] != "assistant" or "system" in turns:
        return False
    return all(left != right or left == "tool" for left, right in pairwise(turns))


def empty_turns(messages: list[Message], value: str, notes: Notes) -> list[Message]:
    """Cut empty last answers with the questions before them, and empty system messages; count empty questions.

    Raises TurnedAway for an empty answer before others; for any at all where the value is drop.
    """
    empty = [place for place, message in enumerate(messages) if _is_empty(message)]
    if not empty:
        return messages
    if value == "count":
        notes.see("empty-turns")
        return messages
    answers = [place for place in empty if messages[place][0] == "assistant"]
    full = [place for place, message in enumerate(messages) if message[0] == "assistant" and place not in answers]
    last = full[-1] if full else -1
    if answers and (value == "drop" or answers[0] < last or last < 0):
        raise TurnedAway("empty-assistant-turn", f"message {answers[0] + 1} is an empty assistant turn")
    end = last + 1 if answers else len(messages)
    kept = [m for place, m in enumerate(messages[:end]) if not (m[0] == "system" and place in empty)]
    if any(messages[place][0] == "user" for place in empty if place < end):
        notes.see("empty-turns")
    if len(kept) == len(messages):
        return messages
    notes.change("empty-turns")
    return kept


def first_role(messages: list[Message], value: str, notes: Notes) -> list[Message]:
    """Look for an assistant's turn before any of the user's; fix cuts all before the user's but system messages."""
    first = next((place for place, message in enumerate(messages) if message[0] != "system"), None)
    if first is None or messages[first][0] != "assistant":
        return messages
    if value == "drop":
        raise TurnedAway("first-role", f"message {first + 1}, the first beside system messages, is the assistant's")
    if value == "count":
        notes.see("first-role")
        return messages
    notes.change("first-role")
    start = next((place for place, message in enumerate(messages) if message[0] == "user"), len(messages))
    return [m for place, m in enumerate(messages) if place >= start or m[0] == "system"]


def last_role(messages: list[Message], value: str, notes: Notes) -> list[Message]:
    """Look for turns after the last of the assistant's; fix cuts them. With no assistant's turn there is none."""
    last = next((place for place in range(len(messages) - 1, -1, -1) if messages[place][0] == "assistant"), None)
    if last is None or last == len(messages) - 1:
        return messages
    if value == "drop":
        raise TurnedAway("last-role", f"message {len(messages)}, the last, is the {messages[-1][0]}'s")
    if value == "count":
        notes.see("last-role")
        return messages
    notes.change("last-role")
    return messages[: last + 1]


def system_role(messages: list[Message], value: str, notes: Notes) -> list[Message]:
    """Look for a system message that is not the first message."""
    place = next((place for place, message in enumerate(messages) if place and message[0] == "system"), None)
    if place is None:
        return messages
    if value == "drop":
        raise TurnedAway("system-role", f"message {place + 1} is a system message in the middle")
    notes.see("system-role")
    return messages


def same_role(messages: list[Message], value: str, notes: Notes) -> list[Message]:
    """Look for two of the user's or two of the assistant's in a row; merge joins those that have nothing but a text.

    Those with reasoning, a name or a train flag are left and counted; turns with tool calls may follow each other.
    """
    places = [place for place, pair in enumerate(pairwise(messages), 2) if _is_same(*pair)]
    if not places:
        return messages
    if value == "drop":
        role = messages[places[0] - 1][0]
        raise TurnedAway("same-role", f"messages {places[0] - 1} and {places[0]} are both the {role}'s")
    merged = messages[:1] if value == "merge" else messages
    for message in messages[1:] if value == "merge" else ():
        if len(message) == 2 and len(merged[-1]) == 2 and _is_same(merged[-1], message):
            merged[-1] = (message[0], f"{merged[-1][1]}\n{message[1]}")
        else:
            merged.append(message)
    if len(merged) < len(messages):
        notes.change("same-role")
    if any(_is_same(*pair) for pair in pairwise(merged)):
        notes.see("same-role")
    return merged


def _is_empty(message: Message) -> bool:
    """Tell whether nothing is said; an answer that reasons or calls tools says something."""
    text = message[1]
    if text and not text.isspace():
        return False
    return message[0] != "tool" and not (len(message) > 2 and (message[2] or (len(message) > 3 and message[3])))


def _is_same(left: Message, right: Message) -> bool:
    if left[0] != right[0] or left[0] not in ("user", "assistant"):
        return False
    return not any(len(message) > 3 and message[3] for message in (left, right))
