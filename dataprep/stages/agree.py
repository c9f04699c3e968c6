"""Renderings of a conversation in, its examples out: which turns one rendering shows as inference would show them.

What inference makes of turn k is what a conversation that ends with it renders to (`messages[:k + 1]`): the prompt it
would get, then what the model must produce. A rendering of more messages shows the turn so where it begins with the
same text, up to the turn's end token. Whatever else a turn differs by has a name, and is counted under it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataprep.core.trace import Slot, Trace
from dataprep.stages.marked import Marked
from dataprep.stages.plan import TurnCounts
from dataprep.stages.repeats import Repeats
from dataprep.stages.turns import LONGER, OTHER, SAME, NoTurnError, Turn, TurnSearch

# What a turn differs by; or the template argument whose prompt it would need, such as enable_thinking=False.
REASONING = "reasoning-left-out"  # its reasoning, or another part of its text, isn't in the rendering
PROMPT = "prompt-differs"  # inference would put other text before it
TEXT = "text-differs"  # its own text is written otherwise where the conversation ends with it
END = "end-token"  # it ends otherwise there
INSIDE_TOKEN = "prompt-inside-token"  # inference's prompt ends inside a token of the rendering: stages/shown.py

_WHOLE = ("strip", "lstrip", "rstrip", "json")  # operations that leave a text whole

Search = Callable[[Marked, list[dict[str, Any]]], TurnSearch]
Render = Callable[[list[dict[str, Any]], bool, dict[str, Any]], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTurn:
    """A turn of an example."""

    turn: Turn
    wanted: bool
    trained: bool
    difference: str | None = None  # from what inference shows; None: there is none
    remains: bool = False  # it differs even where the conversation ends with it


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownExample:
    """A rendering of the first messages of a conversation, and the turns in it."""

    num_messages: int
    shown: Marked  # with what must be added to the official rendering
    added: str
    turns: list[ShownTurn]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Own:
    """A turn where the conversation ends with it."""

    shown: Marked
    turn: Turn

    @property
    def text(self) -> str:
        """All that inference would see, and what the model must produce."""
        return self.shown.text[: self.turn.end]


class ExampleSearch:
    """The search for the examples of one conversation over stand-ins."""

    def __init__(
        self,
        trace: Trace,
        messages: list[dict[str, Any]],
        wanted: Sequence[bool],
        render: Render,
        search: Search,
        *,
        needs_reasoning: bool,
    ) -> None:
        """`search` makes the search for turns in a rendering; `needs_reasoning`: to be trained on, it must be shown."""
        self._needs_reasoning = needs_reasoning
        self._trace, self._messages, self._wanted = trace, messages, wanted
        self._render, self._search = render, search
        self._owns: dict[int, _Own | NoTurnError] = {}
        self._turn_repeats, self._own_repeats, self._repeats = (Repeats(messages) for _ in range(3))

    def whole(self) -> ShownExample:
        """One example of the whole. Raises NoTurnError where a wanted turn isn't found in it."""
        return self._example(len(self._messages), self._wanted)

    def exact(self) -> list[ShownExample]:
        """The fewest examples in which every wanted turn is shown as inference shows it, in order.

        Raises NoTurnError where a wanted turn can't be shown at all.
        """
        return [self._example(count, wanted) for count, wanted in reversed(self._groups())]

    def exact_texts(self) -> list[str]:
        """The renderings that `exact` would give. Raises NoTurnError."""
        return [self._whole_text(count) for count, _ in self._groups()]

    def _groups(self) -> list[tuple[int, list[bool]]]:
        """Numbers of messages to render, the largest first, and the wanted turns that are shown right there."""
        left = [number for number, wanted in enumerate(self._wanted) if wanted]
        groups = []
        count = len(self._messages)
        while left:
            text = self._whole_text(count)
            agreeing = {number for number in left if number < count and text.startswith(self._own(number).text)}
            if agreeing:
                groups.append((count, [number in agreeing for number in range(count)]))
                left = [number for number in left if number not in agreeing]
            count = left[-1] + 1 if left else 0
        return groups

    def _example(self, count: int, wanted: Sequence[bool]) -> ShownExample:
        text = self._render(self._messages[:count], False, {})
        assert text is not None, "it was rendered before"
        marked = Marked(self._trace, text)
        search, turns = self._search(marked, self._messages[:count]), []
        for number, message in enumerate(self._messages[:count]):
            if message["role"] != "assistant":
                continue
            try:
                turns.append((self._found_turn(search, marked, number), wanted[number]))
            except NoTurnError:
                if wanted[number]:
                    raise
        added = turns[-1][0].added if turns else ""
        shown = Marked(self._trace, text + added)
        return ShownExample(
            num_messages=count,
            shown=shown,
            added=added,
            turns=[self._shown_turn(shown, turn, wanted) for turn, wanted in turns],
        )

    def _found_turn(self, search: TurnSearch, marked: Marked, number: int) -> Turn:
        """Raises NoTurnError."""
        if number + 1 < len(self._messages) and (alike := self._turn_repeats.find(marked, number)):
            turn, _ = alike
            search.passed(turn)
            return turn
        turn = search.turn(number)
        self._turn_repeats.note(marked, turn)
        return turn

    def _shown_turn(self, shown: Marked, turn: Turn, wanted: bool) -> ShownTurn:
        """A turn with its difference; where there is none, its span is that of the conversation that ends with it."""
        if not wanted:
            return ShownTurn(turn=turn, wanted=False, trained=False)
        also = turn.ended, self._leaves_out(shown.text[turn.start : turn.end], turn.message)
        if alike := self._repeats.find(shown, turn.message, also):
            turn, (trained, difference, remains) = alike
            return ShownTurn(turn=turn, wanted=True, trained=trained, difference=difference, remains=remains)
        found = self._compared_turn(shown, turn)
        self._repeats.note(shown, found.turn, also, (found.trained, found.difference, found.remains))
        return found

    def _compared_turn(self, shown: Marked, turn: Turn) -> ShownTurn:
        try:
            own = self._own(turn.message)
        except NoTurnError:
            return ShownTurn(turn=turn, wanted=True, trained=turn.ended, difference=PROMPT, remains=True)
        if shown.text.startswith(own.text):
            next_start = turn.next_start if turn.end == own.turn.end else own.turn.end
            turn = replace(own.turn, next_start=next_start, ended=True)
        difference = self._difference(shown, turn, own)
        return ShownTurn(
            turn=turn,
            wanted=True,
            trained=turn.ended and not (self._needs_reasoning and difference == REASONING),
            difference=difference,
            remains=difference is not None and self._difference(own.shown, own.turn, own) is not None,
        )

    def _own(self, number: int) -> _Own:
        """Raises NoTurnError."""
        if number not in self._owns:
            try:
                self._owns[number] = self._found_own(number)
            except NoTurnError as error:
                self._owns[number] = error
        own = self._owns[number]
        if isinstance(own, NoTurnError):
            raise own
        return own

    def _found_own(self, number: int) -> _Own:
        messages = self._messages[: number + 1]
        text = self._render(messages, False, {})
        if text is None:
            raise NoTurnError("turn-not-found", f"message {number + 1}: a conversation can't end with it")
        marked = Marked(self._trace, text)
        if alike := self._own_repeats.find(marked, number):
            turn, _ = alike
        else:
            turn = self._search(marked, messages).turn(number)
            self._own_repeats.note(marked, turn)
        return _Own(shown=Marked(self._trace, text + turn.added) if turn.added else marked, turn=turn)

    def _whole_text(self, count: int) -> str:
        """The rendering of the first messages, with what must be added to it."""
        if self._messages[count - 1]["role"] == "assistant":
            try:
                return self._own(count - 1).shown.text
            except NoTurnError:
                pass
        return self._render(self._messages[:count], False, {}) or ""

    def _difference(self, shown: Marked, turn: Turn, own: _Own) -> str | None:
        if self._leaves_out(shown.text[turn.start : turn.end], turn.message):
            return REASONING
        if own.turn.prompt in (LONGER, OTHER):
            return PROMPT
        if shown.text.startswith(own.text):
            return None
        before, own_before = shown.text[: turn.start], own.text[: own.turn.start]
        if before != own_before:
            prompt = self._render(self._messages[: turn.message], True, {})
            needs_argument = own.turn.prompt != SAME and prompt is not None and before.startswith(prompt)
            return own.turn.prompt if needs_argument else PROMPT
        text, own_text = (
            self._up_to_last_mark(each) for each in (shown.text[turn.start : turn.end], own.text[turn.start :])
        )
        return TEXT if text != own_text else END

    def _up_to_last_mark(self, text: str) -> str:
        return text[: max((place + 1 for place, _ in self._trace.marks(text)), default=0)]

    def _leaves_out(self, targets: str, number: int) -> bool:
        """Whether the message has text or reasoning that its targets don't hold."""
        slots = [slot for _, mark in self._trace.marks(targets) if not (slot := self._trace.slot_of(mark)).is_value]
        if "reasoning_content" in self._messages[number]:
            there = any(leaf.field == "reasoning" for slot in slots for leaf in slot.leaves())
            if not there and self._trace.ask(Slot(number, "reasoning"), "filled"):
                return True
        cut = any(method not in _WHOLE for slot in slots for method, _, _ in slot.operations)
        return cut and not self._trace.ask(Slot(number, "content"), "covered", *slots)


def count_turns(examples: Sequence[ShownExample]) -> TurnCounts:
    """What the wanted turns of a conversation's examples are to training."""
    wanted = [turn for example in examples for turn in example.turns if turn.wanted]
    trained = [turn for turn in wanted if turn.trained]
    arguments = (turn.turn.prompt for turn in trained if turn.turn.prompt not in (SAME, LONGER, OTHER))
    return TurnCounts(
        trained=len(trained),
        differ=Counter(turn.difference for turn in trained if turn.difference),
        remain=sum(turn.remains for turn in trained),
        left_out=Counter(turn.difference or END for turn in wanted if not turn.trained),
        prompts=Counter(arguments),
    )
