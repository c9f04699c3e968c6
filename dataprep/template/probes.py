"""Short conversations that try what chat templates differ in; no text of one message stands in another."""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schemas.conversation import CONVERSATION, chat_messages, chat_tools

Message = dict[str, Any]  # as conversations are stored: schemas/conversation.md


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A conversation, with the name of its column in the table."""

    name: str
    stored: tuple[Message, ...]
    stored_tools: str | None = None

    def messages(self) -> list[Message]:
        """The messages as `apply_chat_template` is given them."""
        return chat_messages(list(self.stored))

    def tools(self) -> list[dict[str, Any]] | None:
        """The `tools` argument of `apply_chat_template`."""
        return chat_tools(self.stored_tools)

    def table(self) -> pa.Table:
        """The conversation as one row of a conversations file."""
        row = {
            "id": "probe",
            "source": "probe",
            "origin": {"file": "probe", "row": 0},
            "messages": list(self.stored),
            "tools": self.stored_tools,
        }
        return pa.Table.from_pylist([row], schema=CONVERSATION)


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _answer(text: str, **further: Any) -> Message:
    return {"role": "assistant", "content": text, **further}


def _call(number: int, place: str) -> dict[str, Any]:
    return {"id": f"call0000{number}", "name": "weather_at", "arguments": json.dumps({"place": place, "days": number})}


def _result(number: int, text: str) -> Message:
    return {"role": "tool", "content": text, "name": "weather_at", "tool_call_id": f"call0000{number}"}


_TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "weather_at",
                "description": "Look up a forecast.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "place": {"type": "string", "description": "Name of a town."},
                        "days": {"type": "integer", "description": "How far ahead."},
                    },
                    "required": ["place"],
                },
            },
        }
    ]
)

_PLAIN = (_user("How tall is the old tower?"), _answer("It reaches ninety metres."))
_SYSTEM = {"role": "system", "content": "Answer in one short line."}

PROBES = (
    Probe(name="plain", stored=_PLAIN),
    Probe(name="system", stored=(_SYSTEM, *_PLAIN)),
    Probe(
        name="multi-turn",
        stored=(
            *_PLAIN,
            _user("Who built that?"),
            _answer("Masons from the valley."),
            _user("When?"),
            _answer("Around 1480."),
        ),
    ),
    Probe(
        name="tools",
        stored=(
            _user("Will it rain?"),
            _answer("", tool_calls=[_call(1, "Lisbon")]),
            _result(1, "light showers"),
            _answer("Yes, a little."),
        ),
        stored_tools=_TOOLS,
    ),
    Probe(
        name="parallel calls",
        stored=(
            _user("Compare both towns."),
            _answer("Looking.", tool_calls=[_call(1, "Lisbon"), _call(2, "Oslo")]),
            _result(1, "light showers"),
            _result(2, "heavy snow"),
            _answer("The south is milder."),
        ),
        stored_tools=_TOOLS,
    ),
    Probe(
        name="reasoning",
        stored=(_user("Is 91 prime?"), _answer("No.", reasoning="Seven times thirteen gives it.")),
    ),
    Probe(
        name="earlier reasoning",
        stored=(
            _user("Is 91 prime?"),
            _answer("No.", reasoning="Seven times thirteen gives it."),
            _user("And 97?"),
            _answer("Yes, it is.", reasoning="Nothing up to nine divides that."),
        ),
    ),
    Probe(
        name="empty content",
        stored=(_user("Say nothing."), _answer(""), _user("Now speak."), _answer("Gladly.")),
    ),
    Probe(
        name="unicode",
        stored=(_user("早上好，naïve 👩‍👩‍👧?"), _answer("नमस्ते — «été» 🙂 مرحبا")),
    ),
    Probe(
        name="blanks",
        stored=(
            _user("  Why so?\n\n"),
            _answer("\n\n  Because of wind.  \n\n"),
            _user("\tReally?"),
            _answer(" Quite. "),
        ),
    ),
)

_SAMPLE = (
    _SYSTEM,
    _user("Will it rain in Lisbon?"),
    _answer("", reasoning="A forecast is needed.", tool_calls=[_call(1, "Lisbon")]),
    _result(1, "light showers"),
    _answer("Yes, a little.", reasoning="Showers are rain."),
    _user("Is 91 prime?"),
    _answer("No.", reasoning="Seven times thirteen gives it."),
    _user("And 97?"),
    _answer("Yes, it is.", reasoning="Nothing up to nine divides that."),
)


def samples() -> list[Probe]:
    """One dialogue with all that a template may show, then with less, until any template takes it."""
    bare = tuple({**message, "reasoning": None} for message in _SAMPLE)
    no_tools = tuple(each for each in _SAMPLE if each["role"] != "tool" and "tool_calls" not in each)
    bare_no_tools = tuple({**message, "reasoning": None} for message in no_tools)
    return [
        Probe(name="system, tools, reasoning", stored=_SAMPLE, stored_tools=_TOOLS),
        Probe(name="system, tools", stored=bare, stored_tools=_TOOLS),
        Probe(name="system, reasoning", stored=no_tools),
        Probe(name="system", stored=bare_no_tools),
        Probe(name="plain turns", stored=bare_no_tools[1:]),
    ]
