"""Calls in the ReAct style of Qwen's first models: `Thought: …`, `Action: NAME`, `Action Input: {…}`, `Observation:`.

It is read only where nothing about it is in doubt: the row has tools, a tool message follows, and no earlier text asks
for the style (a prompt that does would contradict a structured call). Elsewhere it stays text.
"""

import re

import orjson

from dataprep.stages.normalize.message import Message, ToolCall

_REACT = re.compile(
    r"\s*(?:Thought:[ \t]*(?P<thought>.*?)\s*\n)?Action:[ \t]*(?P<name>[\w.-]+)[ \t]*\n"
    r"Action Input:\s*(?P<arguments>\{.*\})\s*(?:Observation:\s*)?",
    re.DOTALL,
)


def react_call(text: str, messages: list[Message], number: int) -> tuple[str, tuple[ToolCall, ...]] | None:
    """Give the thought, as content, and the call of message `number` in a row with tools; None in doubt."""
    if "Action Input:" not in text or number == len(messages) or messages[number][0] != "tool":
        return None
    if any("Action Input" in message[1] for message in messages[:number] if message[0] in ("system", "user")):
        return None
    found = _REACT.fullmatch(text)
    if found is None or text.count("Action Input:") > 1:
        return None
    try:
        arguments = orjson.loads(found["arguments"])
    except ValueError:
        return None
    if not isinstance(arguments, dict):
        return None
    return found["thought"] or "", ((None, found["name"], found["arguments"]),)
