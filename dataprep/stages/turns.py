"""A traced rendering in, the span of each assistant turn in it out: what the model must produce, no more and no less.

A turn's targets begin where the prompt that inference would build for it ends (`add_generation_prompt=True` over the
messages before), and end with the control token that the template puts behind its last text. No template is known by
name: prompts and endings are found by rendering parts of the conversation.

Where the template takes arguments (`enable_thinking`), inference may build other prompts: the one that reaches furthest
and is the rendering's own beginning counts, so that an empty think block, which such a prompt holds, isn't trained on.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from dataprep.core.trace import Trace


class NoTurnError(Exception):
    """An assistant message whose span in the rendering can't be shown; `reason` is a ledger code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


# Of a prompt: how what stands before a turn's targets in the rendering is what inference would give the model.
SAME = "same"  # the generation prompt of the messages before
LONGER = "longer"  # that prompt goes on, opening what this rendering leaves out (such as a think block)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One assistant message in a rendering; places are characters of the rendering over stand-ins."""

    message: int
    start: int  # first target
    end: int  # one past the end token
    next_start: int  # where what follows begins
    prompt: str  # SAME, LONGER, or the template argument that makes the prompt, such as enable_thinking=False
    ended: bool  # False: the template ends it otherwise here than where it is the last message, so it isn't trained on


# Messages, whether a generation prompt is wanted, further template arguments -> a rendering; None where there is none.
Render = Callable[[list[dict[str, Any]], bool, dict[str, Any]], str | None]


class Marked:
    """A marked rendering, and where its marks stand."""

    def __init__(self, trace: Trace, text: str) -> None:
        self.text = text
        self._places: list[int] = []
        self._owned: dict[int, list[int]] = {}  # message -> places of its marks
        for place, mark in trace.marks(text):
            self._places.append(place)
            for message in trace.slot_of(mark).messages():
                self._owned.setdefault(message, []).append(place)

    def owned(self, message: int) -> list[int]:
        """Where the texts of a message stand."""
        return self._owned.get(message, [])

    def point(self, place: int) -> tuple[int, int]:
        """A place as (literal, characters into it)."""
        literal = bisect_left(self._places, place)
        return literal, place - (self._places[literal - 1] + 1 if literal else 0)

    def literal_after(self, place: int) -> str:
        """The literal text from a place to the next mark."""
        following = bisect_left(self._places, place)
        return self.text[place : self._places[following] if following < len(self._places) else None]

    def literal_before(self, place: int) -> str:
        """The literal text from the mark before a place up to it."""
        before = bisect_left(self._places, place)
        return self.text[self._places[before - 1] + 1 if before else 0 : place]

    def count(self, start: int, end: int) -> int:
        """Marks between two places."""
        return bisect_left(self._places, end) - bisect_left(self._places, start)


class TurnSearch:
    """The search for all turns of one rendering."""

    def __init__(
        self,
        whole: Marked,
        trace: Trace,
        messages: list[dict[str, Any]],
        render: Render,
        control_tokens: Sequence[str],
        arguments: Sequence[str],
    ) -> None:
        """`arguments` are names that the template may be given beside the messages."""
        self._whole, self._trace, self._messages, self._render = whole, trace, messages, render
        self._control_tokens = control_tokens
        self._variants = [{name: value} for name in arguments for value in (False, True)]
        self._beginnings: dict[str, tuple[int, str]] = {}  # literal before a first text -> characters of it, prompt
        self._endings: list[str] = []  # found so far

    def turns(self) -> list[Turn]:
        """Every assistant message's turn, in order. Raises NoTurnError."""
        return [self._turn(number) for number, message in enumerate(self._messages) if message["role"] == "assistant"]

    def _turn(self, number: int) -> Turn:
        owned = self._whole.owned(number)
        start, prompt = self._start(number, owned[0] if owned else None)
        last = max(start, owned[-1] + 1) if owned else start
        follows = self._whole.text[last:]
        ending = self._ending(number, start, follows)
        shared = self._shared(ending, follows)
        end = last + len(shared or "")
        self._refuse_strangers(start, end, number)
        tail = self._whole.literal_after(end)
        controls = [place for place in map(tail.find, self._control_tokens) if place >= 0]
        next_start = end + min(controls, default=0)
        return Turn(
            message=number, start=start, end=end, next_start=next_start, prompt=prompt, ended=shared is not None
        )

    def _start(self, number: int, first: int | None) -> tuple[int, str]:
        """Where the prompt of message `number` ends; `first` is where the message's first text stands.

        What was found for one turn holds for another before whose first text the same literal stands, so that a long
        dialogue isn't rendered once a turn.
        """
        literal = self._whole.literal_before(first) if first is not None else None
        if literal in self._beginnings:
            back, prompt = self._beginnings[literal]
            assert first is not None
            return first - back, prompt
        start, prompt = self._searched_start(number, first)
        if literal is not None and first is not None and first - start <= len(literal):
            self._beginnings[literal] = first - start, prompt
        return start, prompt

    def _searched_start(self, number: int, first: int | None) -> tuple[int, str]:
        before, whole = self._messages[:number], self._whole.text
        prompt = self._render(before, True, {})
        if prompt is not None and len(prompt) == first and whole.startswith(prompt):
            return first, SAME
        found = [(len(prompt), SAME)] if prompt is not None and self._begins(prompt, first) else []
        for variant in self._variants:
            other = self._render(before, True, variant)
            if other is not None and self._begins(other, first):
                found.append((len(other), next(f"{name}={value}" for name, value in variant.items())))
        if found:
            return max(found, key=lambda candidate: candidate[0])
        if first is not None and prompt is not None and prompt.startswith(whole[:first]):
            return first, LONGER
        raise NoTurnError("turn-not-found", f"message {number + 1}: the rendering doesn't begin with its prompt")

    def _begins(self, prompt: str, first: int | None) -> bool:
        return self._whole.text.startswith(prompt) and (first is None or len(prompt) <= first)

    def _ending(self, number: int, start: int, follows: str) -> str:
        """What ends the turn of message `number` after its last text, where a conversation ends with it.

        An ending that was found for an earlier turn and stands here too is taken as it is.
        """
        known = [ending for ending in self._endings if follows.startswith(ending)]
        if len(known) == 1 and "tool_calls" not in self._messages[number] and self._whole.owned(number):
            return known[0]
        until = self._render(self._messages[: number + 1], False, {})
        if until is None:
            raise NoTurnError("turn-not-found", f"message {number + 1}: a conversation can't end with it")
        owned = Marked(self._trace, until).owned(number)
        if not owned and self._whole.owned(number):
            raise NoTurnError("turn-not-found", f"message {number + 1}: its text isn't in the rendering")
        tail = until[max(start, owned[-1] + 1) if owned else start :]
        ending = self._up_to_control(tail)
        if ending is None:
            raise NoTurnError("no-end-token", f"message {number + 1}: no control token ends its turn")
        if ending not in self._endings:
            self._endings.append(ending)
        return ending

    def _shared(self, ending: str, follows: str) -> str | None:
        """What of `ending` stands in the whole rendering too, up to a control token; None where nothing does."""
        return ending if follows.startswith(ending) else self._up_to_control(commonprefix([ending, follows]))  # noqa: RUF071

    def _up_to_control(self, text: str) -> str | None:
        ends = [text.rfind(token) + len(token) for token in self._control_tokens if token in text]
        return text[: max(ends)] if ends else None

    def _refuse_strangers(self, start: int, end: int, number: int) -> None:
        """Raise where a turn holds another message's text, or lacks its own texts or tool calls."""
        if self._whole.count(start, end) != len(self._whole.owned(number)):
            raise NoTurnError("turn-not-found", f"message {number + 1}: another message's text stands inside its turn")
        for call in self._messages[number].get("tool_calls", ()):
            if call["function"]["name"] not in self._whole.text[start:end]:
                raise NoTurnError("message-dropped", f"message {number + 1}: the template leaves out its tool calls")
