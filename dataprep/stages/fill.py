"""Fill: a table of conversations in; the texts of their examples out, laid end to end, with their plans.

Conversations of the same roles and no more than roles and contents are rendered together: each question of a plan's
tree is answered for all of them at once (stages/render.py), and lengths of pieces are array work. The others, with
reasoning or tools, go one by one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dataprep.core.arrays import ragged
from dataprep.core.columns import Columns
from dataprep.core.encode import Encoder
from dataprep.core.trace import Slot
from dataprep.stages.chosen import dialogue_of, wants_all
from dataprep.stages.layout import Layout
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


_FEW_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """The D texts of a table to encode, a conversation's together and in order; Q plans, T turns, P pieces."""

    rows: NDArray[np.int64]  # (D,): whose example
    texts: list[str]
    joined: NDArray[np.uint8]  # all of them, as UTF-8
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
    kinds: list[TurnCounts]
    row_kinds: NDArray[np.int64]  # (rows,): which of them is a row's; -1: none
    growth: NDArray[np.int64]  # (rows,): how much longer --turns exact makes its text
    refused: dict[int, RefusedError]  # row -> why

    def lengths_of(self, text: int) -> NDArray[np.int64]:
        """The lengths of a text's pieces."""
        return self.piece_lengths[self.piece_bounds[text] : self.piece_bounds[text + 1]]


def fill(columns: Columns, renderer: Renderer | None, encoder: Encoder, options: TokenOptions) -> Filled:
    """Render every conversation that can be."""
    filling = _Filling.of(columns, encoder, options)
    alone = filling.rows_alone().tolist()
    if len(alone) > _FEW_ROWS:
        columns.contents.strings()  # at once
    for row in alone:
        filling.add_alone(row, renderer)
    for roles, rows in filling.rows_together():
        if roles == ("text",):
            filling.add(_DOCUMENT, rows, roles, None)
        elif renderer is None:
            filling.refuse(rows, RefusedError("no-chat-template", "this model has no chat template"))
        else:
            for plans, served in renderer.plans_of_all(roles, columns.contents, columns.offsets, rows):
                if isinstance(plans, RefusedError):
                    filling.refuse(served, plans)
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
    layout: Layout
    row_kinds: NDArray[np.int64]
    growth: NDArray[np.int64]
    plans: list[Plan] = field(default_factory=list)
    trained: list[list[bool]] = field(default_factory=list)  # of each plan's turns
    literals: list[int] = field(default_factory=list)  # each plan's first one in the layout
    places: dict[int, int] = field(default_factory=dict)  # a plan's identity -> its number
    kinds: list[TurnCounts] = field(default_factory=list)
    kind_places: dict[int, int] = field(default_factory=dict)  # the identity of one -> its number
    refused: dict[int, RefusedError] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: Columns, encoder: Encoder, options: TokenOptions) -> "_Filling":
        """Nothing yet."""
        num_rows = len(columns.offsets) - 1
        return cls(
            columns=columns,
            encoder=encoder,
            options=options,
            lengths=encoder.lengths(columns.contents.array),
            layout=Layout(columns.contents.array),
            row_kinds=np.full(num_rows, -1),
            growth=np.zeros(num_rows, dtype=np.int64),
        )

    def rows_alone(self) -> NDArray[np.int64]:
        """Conversations that have more than roles and contents, or whose targets are chosen."""
        every = not wants_all(self.columns, self.options)
        return np.flatnonzero(self.columns.rich | every)

    def rows_together(self) -> Iterator[tuple[tuple[str, ...], NDArray[np.int64]]]:
        """The others, by their roles."""
        numbers = self.columns.role_numbers
        keys, bounds = numbers.tobytes(), (numbers.itemsize * self.columns.offsets).tolist()
        together: dict[bytes, list[int]] = {}
        is_alone = np.zeros(len(self.row_kinds), dtype=bool)
        is_alone[self.rows_alone()] = True
        for row in np.flatnonzero(~is_alone).tolist():
            together.setdefault(keys[bounds[row] : bounds[row + 1]], []).append(row)
        for rows in together.values():
            yield self.columns.roles(rows[0]), np.array(rows)

    def refuse(self, rows: NDArray[np.int64], refused: RefusedError) -> None:
        """Turn these away."""
        self.refused |= dict.fromkeys(rows.tolist(), refused)

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
            self.add(plans, np.array([row]), dialogue.roles, dialogue)

    def add(self, plans: Plans, rows: NDArray[np.int64], roles: tuple[str, ...], dialogue: Dialogue | None) -> None:
        """Add conversations that these plans serve; `dialogue` is the only one, where it is more than its contents."""
        wanted = (dialogue or Dialogue(roles=roles, texts={})).trains()
        try:
            trained = [self._trained(plan, wanted, roles) for plan in plans.examples]
        except RefusedError as refused:
            self.refuse(rows, refused)
            return
        contents = self.columns.offsets[rows][:, None] + np.arange(len(roles))
        for number, (plan, of_turns) in enumerate(zip(plans.examples, trained, strict=True)):
            place = self.places.setdefault(id(plan), len(self.plans))
            if place == len(self.plans):
                self.plans.append(plan)
                self.trained.append(of_turns)
                self.literals.append(self.layout.add_strings(plan.literals))
            pieces, sources = self._pieces(place, contents, dialogue)
            self.layout.add(rows, number, place, pieces, sources)
        kind = self.kind_places.setdefault(id(plans.turns), len(self.kinds))
        if kind == len(self.kinds):
            self.kinds.append(plans.turns)
        self.row_kinds[rows] = kind
        if plans.growth is not None:
            self.growth[rows] = self._grown(plans.growth, self.lengths[contents], dialogue)

    def _trained(self, plan: Plan, wanted: tuple[bool, ...], roles: tuple[str, ...]) -> list[bool]:
        """Of each turn of an example, whether it is trained on; what isn't must be found where everything else is."""
        if self.options.train_on != "all":
            return plan.turn_trained
        for number, role in enumerate(roles):
            if role == "assistant" and not wanted[number] and number not in plan.turn_messages:
                detail = f"message {number + 1}: marked as not to be trained on, and not found"
                raise RefusedError("turn-not-found", detail)
        return [wanted[message] for message in plan.turn_messages]

    def _pieces(
        self, place: int, contents: NDArray[np.int64], dialogue: Dialogue | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each conversation the lengths of its pieces, and where the layout finds them: see Layout.add."""
        plan, num_rows = self.plans[place], len(contents)
        lengths = np.empty((num_rows, 2 * len(plan.slots) + 1), dtype=np.int64)
        lengths[:, 0::2] = plan.literal_lengths
        if plan.plain:
            lengths[:, 1::2] = self.lengths[contents[:, : plan.num_messages]]
            sources = np.empty_like(lengths)
            sources[:, 0::2] = self.literals[place] - np.arange(len(plan.literals))
            sources[:, 1::2] = contents[:, : plan.num_messages]
            return lengths, sources
        texts = []
        for number, own in enumerate(contents.tolist()):
            held = dialogue.texts if dialogue else {"content": self.columns.contents.texts(own[0], own[-1] + 1)}
            slot_texts = plan.slot_texts(held)
            lengths[number, 1::2] = list(map(self.encoder.length, slot_texts))
            texts.append("".join(plan.pieces(slot_texts)))
        first = self.layout.add_strings(texts)
        return lengths, np.arange(first, first - num_rows, -1)[:, None]

    def _grown(self, growth: Growth, lengths: NDArray[np.int64], dialogue: Dialogue | None) -> NDArray[np.int64]:
        """How much longer than the whole exact examples are, but for blanks that the template strips."""
        grown: NDArray[np.int64] = growth.literals + lengths @ growth.contents
        if dialogue is not None:
            for slot, times in growth.others:
                grown += times * self.encoder.length(slot.value(dialogue.texts))
        return grown

    def in_order(self) -> Filled:
        """All texts in the order of their conversations, but for those of conversations that were turned away."""
        laid = self.layout.laid_out(self.encoder, self.refused)
        own, num_pieces, lengths = laid.plan_numbers, laid.num_pieces, laid.lengths
        turn_counts = _per_plan(len(plan.turn_messages) for plan in self.plans)
        bounds = np.concatenate(([0], np.cumsum(num_pieces)))
        turns = ragged((np.cumsum(turn_counts) - turn_counts)[own], turn_counts[own])
        points = ragged(3 * (np.cumsum(turn_counts) - turn_counts)[own], 3 * turn_counts[own])
        ends = np.concatenate(([0], np.cumsum(lengths)))[bounds]
        return Filled(
            rows=laid.rows,
            texts=laid.texts,
            joined=laid.joined,
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
            kinds=self.kinds,
            row_kinds=self.row_kinds,
            growth=self.growth,
            refused=self.refused,
        )


def _per_plan(values: Iterable[int]) -> NDArray[np.int64]:
    return np.array(list(values), dtype=np.int64)


def _joined(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
