"""Plans: how conversations of one kind become examples, as literals, slots for texts, and points of turns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataprep.core.trace import Slot, Texts


class RefusedError(Exception):
    """This conversation can't be rendered, or its targets can't be shown; `reason` is a ledger code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """What decides a rendering: roles, texts, and everything else as the chat template is given it."""

    roles: tuple[str, ...]
    texts: Texts
    messages: list[dict[str, Any]] | None = None  # None where each message is a role and a content
    tools: list[dict[str, Any]] | None = None
    keys: tuple[Any, ...] | None = None  # the names in each message, and whether there are tools; texts hold the rest
    extras: str | None = None  # everything but roles and texts, as a key; None: made of the messages when it is needed
    wanted: tuple[bool, ...] | None = None  # the messages to train on; None: every assistant message

    def chat(self) -> list[dict[str, Any]]:
        """The messages for `apply_chat_template`, contents as strings."""
        if self.messages is not None:
            return self.messages
        pairs = zip(self.roles, self.texts["content"], strict=True)
        return [{"role": role, "content": content} for role, content in pairs]

    def own_key(self) -> str | None:
        """Everything but roles and texts, as a key; None where there is nothing else."""
        if self.extras is not None or self.messages is None:
            return self.extras
        rest = [
            {name: value for name, value in message.items() if name not in ("role", "content", "reasoning_content")}
            | ({"reasoning_content": True} if "reasoning_content" in message else {})
            for message in self.messages
        ]
        return str((rest, self.tools))

    def trains(self) -> tuple[bool, ...]:
        """Of each message, whether it is to be trained on."""
        return self.wanted if self.wanted is not None else tuple(role == "assistant" for role in self.roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one example is rendered; lengths and offsets are in the encoder's unit, characters or bytes.

    A rendering is 2n + 1 pieces: literal 0, slot 0, literal 1, slot 1, … Each assistant turn has three points in it:
    where its targets start, where they end, and where what follows the turn begins. A point is an offset into the
    literal piece `point_pieces[i]`; the points of turn t are 3t, 3t + 1 and 3t + 2.
    """

    num_messages: int  # so many first messages of the conversation are rendered
    literals: list[str]
    slots: list[Slot]
    literal_lengths: NDArray[np.int64]  # (n + 1,)
    point_pieces: NDArray[np.int64]  # (3 * turns,)
    point_offsets: NDArray[np.int64]  # (3 * turns,)
    turn_messages: list[int]  # the assistant message of each turn
    turn_trained: list[bool]  # False: context here
    turn_prompts: list[str]  # how each one's prompt stands to inference's: stages/turns.py
    turn_differences: list[str | None]  # what a trained turn differs by from what inference shows: stages/agree.py
    turn_rooms: NDArray[np.int64]  # (turns, 2): how far behind where targets start, and where they end, literals are
    # surely the template's own: so far a token may reach over these points
    added_end: str = (
        ""  # the control token behind the official rendering, where the template ends the last turn with none
    )
    notes: tuple[str, ...] = ()  # what NOTES tell of it
    num_controls: int  # control tokens that the template itself writes
    plain: bool  # slot i is the content of message i, untouched

    def slot_texts(self, texts: Texts) -> list[str]:
        """The n texts that fill the slots."""
        return texts["content"][: self.num_messages] if self.plain else [slot.value(texts) for slot in self.slots]

    def pieces(self, slot_texts: list[str]) -> list[str]:
        """The 2n + 1 pieces whose concatenation is the rendering."""
        pieces: list[str] = [""] * (2 * len(self.slots) + 1)
        pieces[0::2] = self.literals
        pieces[1::2] = slot_texts
        return pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnCounts:
    """What a conversation's turns are to training; names are those of stages/agree.py."""

    trained: int
    differ: dict[str, int]  # trained on, though inference shows them otherwise: by what differs
    remain: int  # of those that differ, how many would under --turns exact
    left_out: dict[str, int]  # wanted, and not trained on: by what differs
    prompts: dict[str, int]  # trained on behind the prompt that this template argument makes


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What the examples of `--turns exact` hold beyond the whole rendering; M messages."""

    literals: int  # length, in the encoder's unit
    contents: NDArray[np.int64]  # (M,): how many times more each message's content stands in them
    others: list[tuple[Slot, int]]  # the same of reasoning and values, where they do


@dataclass(slots=True, kw_only=True)
class Plans:
    """The examples of conversations of one kind, in the order of their last messages."""

    examples: tuple[Plan, ...]
    turns: TurnCounts
    growth: Growth | None  # None where `--turns exact` would give the same
    uses: int = 0
