"""Fill: a table of conversations in; the texts of their examples out, laid end to end, with their plans.

Conversations of the same roles and no more than roles and contents are rendered together: each question of a plan's
tree is answered for all of them at once (stages/render.py), and lengths of pieces are array work. The others, with
reasoning or tools, go one by one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dataprep.core.arrays import ragged
from dataprep.core.columns import Columns
from dataprep.core.encode import Encoder
from dataprep.core.trace import Slot
from dataprep.stages.chosen import dialogue_of, wants_all
from dataprep.stages.plan import Dialogue, Growth, Plan, Plans, RefusedError, TurnCounts
from dataprep.stages.render import Renderer
from schemas.manifest import TokenOptions

_DOCUMENT = Plans(
    examples=(
        Plan(
            num_messages=1,
            literals=["", ""],
            slots=[Slot(0, "content")],
            literal_lengths=np.zeros(2, dtype=np.int64),
            point_pieces=np.empty(0, dtype=np.int64),
            point_offsets=np.empty(0, dtype=np.int64),
            turn_messages=[],
            turn_trained=[],
            turn_prompts=[],
            turn_differences=[],
            turn_rooms=np.empty((0, 2), dtype=np.int64),
            num_controls=0,
            plain=True,
        ),
    ),
    turns=TurnCounts(trained=0, differ={}, remain=0, left_out={}, prompts={}),
    growth=None,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """The D texts of a table to encode, a conversation's together and in order; Q plans, T turns, P pieces."""

    rows: NDArray[np.int64]  # (D,): whose example
    texts: list[str]
    plans: list[Plan]  # (Q,), each once
    plan_numbers: NDArray[np.int64]  # (D,)
    is_document: NDArray[np.bool_]  # (D,)
    piece_lengths: NDArray[np.int64]  # (P,): of all texts' pieces, laid end to end
    piece_bounds: NDArray[np.int64]  # (D + 1,)
    turn_counts: NDArray[np.int64]  # (D,)
    turn_messages: NDArray[np.int64]  # (T,)
    trained: NDArray[np.bool_]  # (T,)
    differs: NDArray[np.bool_]  # (T,): from what inference shows
    rooms: NDArray[np.int64]  # (T, 2): see Plan
    point_pieces: NDArray[np.int64]  # (3T,): see Plan
    point_offsets: NDArray[np.int64]  # (3T,)
    num_controls: NDArray[np.int64]  # (D,): that the template itself writes
    text_lengths: NDArray[np.int64]  # (D,)
    turns: dict[int, TurnCounts]  # row -> its counts
    growth: dict[int, int]  # row -> how much longer --turns exact makes its text
    refused: dict[int, RefusedError]  # row -> why

    def lengths_of(self, text: int) -> NDArray[np.int64]:
        """The lengths of a text's pieces."""
        return self.piece_lengths[self.piece_bounds[text] : self.piece_bounds[text + 1]]


def fill(columns: Columns, renderer: Renderer | None, encoder: Encoder, options: TokenOptions) -> Filled:
    """Render every conversation that can be."""
    filling = _Filling(
        columns=columns, encoder=encoder, options=options, lengths=encoder.lengths(columns.content_array)
    )
    offsets = columns.offsets.tolist()
    together: dict[tuple[str, ...], list[int]] = {}
    plain = wants_all(columns, options)
    for row, is_rich in enumerate(columns.rich.tolist()):
        if plain and not is_rich:
            together.setdefault(tuple(columns.roles[offsets[row] : offsets[row + 1]]), []).append(row)
        else:
            filling.add_alone(row, renderer)
    for roles, rows in together.items():
        if roles == ("text",):
            filling.add(_DOCUMENT, rows, roles, None)
        elif renderer is None:
            filling.refused |= dict.fromkeys(rows, RefusedError("no-chat-template", "this model has no chat template"))
        else:
            for plans, served in renderer.plans_of_all(roles, columns.contents, offsets, rows):
                if isinstance(plans, RefusedError):
                    filling.refused |= dict.fromkeys(served, plans)
                else:
                    filling.add(plans, served, roles, None)
    return filling.in_order()


@dataclass(slots=True, kw_only=True)
class _Filling:
    """Texts as they come, by plans."""

    columns: Columns
    encoder: Encoder
    options: TokenOptions
    lengths: NDArray[np.int64]  # of all contents
    rows: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of each text among its conversation's
    texts: list[str] = field(default_factory=list)
    plan_numbers: list[int] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    trained: list[list[bool]] = field(default_factory=list)  # of each plan's turns
    pieces: list[NDArray[np.int64]] = field(default_factory=list)  # lengths, of all texts
    places: dict[int, int] = field(default_factory=dict)  # a plan's identity -> its number
    turns: dict[int, TurnCounts] = field(default_factory=dict)
    growth: dict[int, int] = field(default_factory=dict)
    refused: dict[int, RefusedError] = field(default_factory=dict)

    def add_alone(self, row: int, renderer: Renderer | None) -> None:
        """Add a conversation that has more than roles and contents, or whose targets were chosen."""
        try:
            dialogue = dialogue_of(self.columns, row, self.options)
            if dialogue.roles == ("text",):
                plans = _DOCUMENT
            elif renderer is None:
                raise RefusedError("no-chat-template", "this model has no chat template")
            else:
                plans = renderer.plans(dialogue)
        except RefusedError as refused:
            self.refused[row] = refused
        else:
            self.add(plans, [row], dialogue.roles, dialogue)

    def add(self, plans: Plans, rows: list[int], roles: tuple[str, ...], dialogue: Dialogue | None) -> None:
        """Add conversations that these plans serve; `dialogue` is the only one, where it is more than its contents."""
        wanted = (dialogue or Dialogue(roles=roles, texts={})).trains()
        try:
            trained = [self._trained(plan, wanted, roles) for plan in plans.examples]
        except RefusedError as refused:
            self.refused |= dict.fromkeys(rows, refused)
            return
        firsts = self.columns.offsets[rows]
        lengths = self.lengths[firsts[:, None] + np.arange(len(roles))]
        for number, (plan, of_turns) in enumerate(zip(plans.examples, trained, strict=True)):
            place = self.places.setdefault(id(plan), len(self.plans))
            if place == len(self.plans):
                self.plans.append(plan)
                self.trained.append(of_turns)
            self._add_texts(plan, rows, firsts.tolist(), lengths, dialogue)
            self.rows += rows
            self.numbers += [number] * len(rows)
            self.plan_numbers += [place] * len(rows)
        self.turns |= dict.fromkeys(rows, plans.turns)
        if plans.growth is not None:
            grown = self._grown(plans.growth, lengths, dialogue)
            self.growth |= dict(zip(rows, grown.tolist(), strict=True))

    def _trained(self, plan: Plan, wanted: tuple[bool, ...], roles: tuple[str, ...]) -> list[bool]:
        """Of each turn of an example, whether it is trained on; what isn't must be found where everything else is."""
        if self.options.train_on != "all":
            return plan.turn_trained
        for number, role in enumerate(roles):
            if role == "assistant" and not wanted[number] and number not in plan.turn_messages:
                detail = f"message {number + 1}: marked as not to be trained on, and not found"
                raise RefusedError("turn-not-found", detail)
        return [wanted[message] for message in plan.turn_messages]

    def _add_texts(
        self,
        plan: Plan,
        rows: list[int],
        firsts: list[int],
        lengths: NDArray[np.int64],
        dialogue: Dialogue | None,
    ) -> None:
        """Add a text for each row, and the lengths of its pieces."""
        contents, count = self.columns.contents, lengths.shape[1]
        pieces = plan.pieces([""] * len(plan.slots))
        piece_lengths = np.empty((len(rows), len(pieces)), dtype=np.int64)
        piece_lengths[:, 0::2] = plan.literal_lengths
        if plan.plain:
            piece_lengths[:, 1::2] = lengths[:, : plan.num_messages]
        for number, (row, first) in enumerate(zip(rows, firsts, strict=True)):
            if plan.plain:
                slot_texts = contents[first : first + plan.num_messages]
            else:
                texts = dialogue.texts if dialogue else {"content": contents[first : first + count]}
                slot_texts = plan.slot_texts(texts)
                piece_lengths[number, 1::2] = list(map(self.encoder.length, slot_texts))
            pieces[1::2] = slot_texts
            text = "".join(pieces)
            if not text.isascii():
                normal = self.encoder.normalize(text)
                if normal is not text and normal != text:
                    text = self._add_normal(row, pieces, normal, piece_lengths[number])
            self.texts.append(text)
        self.pieces.append(piece_lengths.ravel())

    def _add_normal(self, row: int, pieces: Sequence[str], normal: str, lengths: NDArray[np.int64]) -> str:
        """The pieces of a text normalised one by one, where that gives the normalised text."""
        normal_pieces = [self.encoder.normalize(piece) for piece in pieces]
        lengths[:] = list(map(self.encoder.length, normal_pieces))
        text = "".join(normal_pieces)
        if text != normal:
            self.refused[row] = RefusedError(
                "bound-inside-token", "a combining character stands at the start of a message"
            )
        return text

    def _grown(self, growth: Growth, lengths: NDArray[np.int64], dialogue: Dialogue | None) -> NDArray[np.int64]:
        """How much longer than the whole exact examples are, but for blanks that the template strips."""
        grown: NDArray[np.int64] = growth.literals + lengths @ growth.contents
        if dialogue is not None:
            for slot, times in growth.others:
                grown += times * self.encoder.length(slot.value(dialogue.texts))
        return grown

    def in_order(self) -> Filled:
        """All texts in the order of their conversations, but for those of conversations that were turned away."""
        kept = [text for text, row in enumerate(self.rows) if row not in self.refused]
        rows = np.array(self.rows, dtype=np.int64)[kept]
        order = np.array(kept, dtype=np.int64)[np.lexsort((np.array(self.numbers, dtype=np.int64)[kept], rows))]
        plan_numbers = np.array(self.plan_numbers, dtype=np.int64)
        num_pieces = _per_plan(2 * len(plan.slots) + 1 for plan in self.plans)[plan_numbers]
        lengths = _joined(self.pieces)[ragged((np.cumsum(num_pieces) - num_pieces)[order], num_pieces[order])]
        own = plan_numbers[order]
        turn_counts = _per_plan(len(plan.turn_messages) for plan in self.plans)
        bounds = np.concatenate(([0], np.cumsum(num_pieces[order])))
        turns = ragged((np.cumsum(turn_counts) - turn_counts)[own], turn_counts[own])
        points = ragged(3 * (np.cumsum(turn_counts) - turn_counts)[own], 3 * turn_counts[own])
        ends = np.concatenate(([0], np.cumsum(lengths)))[bounds]
        return Filled(
            rows=np.array(self.rows, dtype=np.int64)[order],
            texts=[self.texts[text] for text in order.tolist()],
            plans=self.plans,
            plan_numbers=own,
            is_document=np.array([plan is _DOCUMENT.examples[0] for plan in self.plans], dtype=bool)[own],
            piece_lengths=lengths,
            piece_bounds=bounds,
            turn_counts=turn_counts[own],
            turn_messages=_per_plan(message for plan in self.plans for message in plan.turn_messages)[turns],
            trained=np.array([trained for plan in self.trained for trained in plan], dtype=bool)[turns],
            differs=np.array([bool(what) for plan in self.plans for what in plan.turn_differences], dtype=bool)[turns],
            rooms=np.concatenate([np.empty((0, 2), dtype=np.int64), *(plan.turn_rooms for plan in self.plans)])[turns],
            point_pieces=_joined([plan.point_pieces for plan in self.plans])[points],
            point_offsets=_joined([plan.point_offsets for plan in self.plans])[points],
            num_controls=_per_plan(plan.num_controls for plan in self.plans)[own],
            text_lengths=np.diff(ends),
            turns=self.turns,
            growth=self.growth,
            refused=self.refused,
        )


def _per_plan(values: Iterable[int]) -> NDArray[np.int64]:
    return np.array(list(values), dtype=np.int64)


def _joined(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
