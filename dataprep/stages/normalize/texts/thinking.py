"""Reasoning that stands in an assistant's text, between think tags, before the answer.

The line breaks around the reasoning and before the answer belong to the tags: a template that splits such a text itself
(Qwen3's does) renders the split message and the text alike.
"""

import re

from dataprep.stages.normalize.reasons import TurnedAway

# Opening tag -> closing tag. Without its closing tag the first kinds are a reasoning that was cut off.
_TAGS = {"<think>": "</think>", "<thinking>": "</thinking>", "<|begin_of_thought|>": "<|end_of_thought|>"}
_LOOSE_TAGS = {"<reasoning>": "</reasoning>"}
_OPENING = re.compile(r"\s*(<think>|<thinking>|<\|begin_of_thought\|>|<reasoning>)")
_CLOSING_ONLY = re.compile(r"(?<![^\n])</think>|</think>(?=\s*\n|\Z)")
_SOLUTION = ("<|begin_of_solution|>", "<|end_of_solution|>")


def split_thinking(text: str, where: str) -> tuple[str | None, str] | None:
    """Give the reasoning at the head of an assistant's text, None if it is empty, and the rest; None without tags.

    A `</think>` whose opening tag stood in the prompt ends a reasoning, too. `where` begins the detail of a row that is
    turned away.
    """
    opening = _OPENING.match(text)
    if opening is None:
        return _without_opening(text) if "</think>" in text else None
    tag = opening[1]
    close = _TAGS.get(tag) or _LOOSE_TAGS[tag]
    end = text.find(close, opening.end())
    if end < 0:
        if tag in _LOOSE_TAGS:
            return None
        raise TurnedAway("truncated-reasoning", f"{where} begins with {tag} and has no {close}")
    rest = text[end + len(close) :].lstrip("\r\n")
    return _trimmed(text[opening.end() : end]), _solution(rest) if tag == "<|begin_of_thought|>" else rest


def require_answer(text: str, where: str) -> None:
    """Turn away an answer of reasoning alone: it would teach to think and stop."""
    if not text or text.isspace():
        raise TurnedAway("empty-assistant-turn", f"{where} has reasoning and no answer after it")


def _without_opening(text: str) -> tuple[str | None, str] | None:
    if text.count("</think>") != 1 or "<think>" in text:
        return None
    closing = _CLOSING_ONLY.search(text)
    if closing is None or text.count("```", 0, closing.start()) % 2:
        return None
    return _trimmed(text[: closing.start()]), text[closing.end() :].lstrip("\r\n")


def _trimmed(reasoning: str) -> str | None:
    reasoning = reasoning.strip("\r\n")
    return None if not reasoning or reasoning.isspace() else reasoning


def _solution(text: str) -> str:
    before, after = _SOLUTION
    stripped = text.strip()
    if not stripped.startswith(before):
        return text
    return stripped.removeprefix(before).removesuffix(after).strip("\r\n")
