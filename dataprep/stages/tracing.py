"""A dialogue and its chat template in, the plans of its examples out (stages/plan.py).

Plans are found over stand-ins for the texts (core/trace.py), and then serve all dialogues alike; where a template can't
be traced so, over the texts themselves, for one dialogue alone.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jinja2 import Template
from numpy.typing import NDArray

from dataprep.core.sandbox import TEMPLATE_ERRORS, render_chat
from dataprep.core.trace import VALUES_OF_MESSAGES, Slot, Trace, UntraceableError
from dataprep.core.trace_values import stand_in_for
from dataprep.core.traced_template import TracedTemplate
from dataprep.stages.agree import ExampleSearch, ShownExample, count_turns
from dataprep.stages.marked import Marked
from dataprep.stages.plan import Dialogue, Growth, Plan, Plans, RefusedError
from dataprep.stages.turns import NoTurnError, Turn, TurnSearch
from schemas.manifest import TokenOptions

UNTRACEABLE = "template-untraceable"
FOUND_BY_RENDERING = "turns found by rendering"  # the note on plans that were made without tracing
END_ADDED = "end added:"  # the note on plans whose last turn the template doesn't end

_WHOLE = ("strip", "lstrip", "rstrip", "json")  # operations that leave a text whole
_NONE: Mapping[str, Any] = {}
_MANY_TURNS = 64  # what exact examples of so many would hold is reckoned
_MOST_EXACT = 1_000  # as many texts, each longer than the one before, may come of one conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """A chat template, and what it is given."""

    names: Mapping[str, Any]  # beside the messages: special tokens, and what the user chose
    control_tokens: tuple[str, ...]  # that can end turns
    eos: str | None  # the one that ends texts
    bos: str | None  # the one that begins them
    length: Callable[[str], int]  # of a text, in the encoder's unit
    compiled: Template  # as it is officially rendered
    traced: TracedTemplate
    arguments: list[str]  # names that it asks for and that are not given
    options: TokenOptions
    takes_parts: bool


def in_parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same messages, each content a list of one text part: the only form that some multimodal templates show."""
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def takes_parts(compiled: Template, special_tokens: Mapping[str, str]) -> bool:
    """Whether a template shows contents only where they are lists of parts."""
    texts = ("first text", "second text")
    probe = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), texts, strict=True)]

    def shows(messages: list[dict[str, Any]]) -> bool:
        try:
            rendered = render_chat(compiled, dict(special_tokens), messages, None)
        except TEMPLATE_ERRORS:
            return False
        return all(text in rendered for text in texts) and "type" not in rendered  # of a list written out

    return not shows(probe) and shows(in_parts(probe))


class Tracing:
    """One dialogue's renderings over stand-ins, and the plans of its examples."""

    _examples: type[ExampleSearch] = ExampleSearch

    def __init__(self, template: ChatTemplate, trace: Trace, dialogue: Dialogue, *, values: bool = False) -> None:
        """With `values`, tools and tool calls have stand-ins too, so that the plans serve dialogues with others."""
        self._template, self._trace, self._dialogue = template, trace, dialogue
        self._messages = _with_stand_ins(trace, dialogue, values)
        self._values = values
        self._tools: Any = dialogue.tools
        if values and dialogue.tools is not None:
            self._tools = stand_in_for("list", trace, Slot(-1, "tools"))
        self._rendered: dict[tuple[int, bool, str], str | None] = {}

    def plans(self) -> Plans:
        """Raises RefusedError."""
        try:
            return self._plans()
        except RefusedError:
            if not self._drop_empty():
                raise
            return self._plans()

    def _drop_empty(self) -> bool:
        """Take out the stand-ins of empty texts beside tool calls, as a text of no length may stand anywhere."""
        empty = [
            message
            for number, message in enumerate(self._messages)
            if "tool_calls" in message and not self._trace.ask(Slot(number, "content"), "filled")
        ]
        for message in empty:
            message["content"] = ""
        self._rendered.clear()
        return bool(empty)

    def _plans(self) -> Plans:
        try:
            self._rendered[len(self._messages), False, "{}"] = self._render(self._messages)
        except UntraceableError as error:
            raise RefusedError(UNTRACEABLE, f"the chat template takes the {error}") from error
        except TEMPLATE_ERRORS as error:
            detail = str(error).split("\n")[0] or type(error).__name__
            raise RefusedError("template-refuses", f"the chat template says: {detail}") from error
        options = self._template.options
        search = self._examples(
            self._trace,
            self._messages,
            self._dialogue.trains(),
            self._render_or_none,
            self._search,
            needs_reasoning=options.thinking == "only",
        )
        try:
            if options.turns == "exact" and sum(self._dialogue.trains()) > _MOST_EXACT:
                detail = f"more than {_MOST_EXACT:,} answers, each of which --turns exact may show on its own"
                raise RefusedError("too-many-turns", detail)
            if options.turns == "whole":
                examples = [search.whole()]
                growth = self._growth(search, examples[0])
            else:
                examples, growth = search.exact(), None
        except NoTurnError as error:
            raise RefusedError(error.reason, str(error)) from error
        if self._values and any(self._is_open_call(each.turn) for example in examples for each in example.turns):
            raise RefusedError("turn-not-found", "a turn with tool calls has no end of its own")
        return Plans(examples=tuple(map(self._plan, examples)), turns=count_turns(examples), growth=growth)

    def _is_open_call(self, turn: Turn) -> bool:
        """Whether a turn with tool calls isn't ended: how much of them stands in it can't be told from stand-ins."""
        return not turn.ended and "tool_calls" in self._messages[turn.message]

    def _plan(self, example: ShownExample) -> Plan:
        literals, slots = self._trace.pieces(example.shown.text)
        self._refuse_dropped(slots, example.num_messages)
        turns = [each.turn for each in example.turns]
        points = [example.shown.point(place) for turn in turns for place in (turn.start, turn.end, turn.next_start)]
        length = self._template.length
        return Plan(
            num_messages=example.num_messages,
            literals=literals,
            slots=slots,
            literal_lengths=np.array([length(literal) for literal in literals], dtype=np.int64),
            point_pieces=np.array([2 * literal for literal, _ in points], dtype=np.int64),
            point_offsets=np.array([length(literals[i][:offset]) for i, offset in points], dtype=np.int64),
            turn_messages=[turn.message for turn in turns],
            turn_trained=[each.trained for each in example.turns],
            turn_prompts=[turn.prompt for turn in turns],
            turn_differences=[each.difference for each in example.turns],
            turn_rooms=np.array([self._rooms(example.shown, turn) for turn in turns], dtype=np.int64).reshape(-1, 2),
            added_end=example.added,
            notes=(f"{END_ADDED} {example.added}",) if example.added else (),
            num_controls=sum(literal.count(token) for literal in literals for token in self._template.control_tokens),
            plain=slots == [Slot(number, "content") for number in range(example.num_messages)],
        )

    def _rooms(self, shown: Marked, turn: Turn) -> list[int]:
        """See Plan; of a turn with tool calls, which stand in literals, only blanks are surely the template's own."""
        own = "".join(self._trace.pieces(shown.text[turn.start : turn.end])[0])
        if "tool_calls" in self._messages[turn.message]:
            own = own[: len(own) - len(own.lstrip())]
        length = self._template.length
        return [length(own), length(shown.literal_after(turn.end))]

    def _growth(self, search: ExampleSearch, whole: ShownExample) -> Growth | None:
        """What exact examples would hold beyond the whole one; None where nothing."""
        if not any(each.difference for each in whole.turns):
            return None
        if len(whole.turns) > _MANY_TURNS:
            return self._reckoned_growth(whole)
        literals = 0
        contents: NDArray[np.int64] = np.zeros(len(self._messages), dtype=np.int64)
        others: Counter[Slot] = Counter()
        try:
            texts = search.exact_texts()
        except NoTurnError:
            return None
        for text, sign in [(whole.shown.text, -1), *((text, 1) for text in texts)]:
            own, slots = self._trace.pieces(text)
            literals += sign * sum(map(self._template.length, own))
            for leaf in (leaf for slot in slots for leaf in slot.leaves()):
                if leaf.field == "content":
                    contents[leaf.message] += sign
                else:
                    others[leaf if leaf.is_value else replace(leaf, operations=())] += sign
        return Growth(
            literals=literals, contents=contents, others=[(slot, times) for slot, times in others.items() if times]
        )

    def _reckoned_growth(self, whole: ShownExample) -> Growth:
        """The same for a long dialogue: as if each turn that differs had the whole up to its end for itself."""
        contents = np.zeros(len(self._messages), dtype=np.int64)
        differing = [each.turn for each in whole.turns[:-1] if each.difference]
        np.add.at(contents, [turn.message for turn in differing], 1)
        pieces, _ = self._trace.pieces(whole.shown.text)
        before = np.concatenate(([0], np.cumsum([self._template.length(literal) for literal in pieces])))
        literals = int(sum(before[whole.shown.point(turn.end)[0]] for turn in differing))
        return Growth(literals=literals, contents=np.cumsum(contents[::-1])[::-1], others=[])

    def _search(self, whole: Marked, messages: list[dict[str, Any]]) -> TurnSearch:
        return TurnSearch(
            whole,
            self._trace,
            messages,
            self._render_or_none,
            self._template.control_tokens,
            self._template.arguments,
            self._template.eos,
            self._template.bos,
        )

    def _refuse_dropped(self, slots: list[Slot], num_messages: int) -> None:
        """Turn a dialogue away whose template leaves out a message's text."""
        owned: dict[int, list[Slot]] = {}
        for slot in slots:
            for message in () if slot.is_value else slot.messages():
                owned.setdefault(message, []).append(slot)
        for number, role in enumerate(self._dialogue.roles[:num_messages]):
            content = Slot(number, "content")
            own = owned.get(number, [])
            if not own and self._trace.ask(content, "filled"):
                raise RefusedError("message-dropped", f"message {number + 1}: the template leaves out this {role} text")
            whole = role == "assistant" or all(method in _WHOLE for slot in own for method, _, _ in slot.operations)
            if not whole and not self._trace.ask(content, "covered", *own):
                raise RefusedError("message-dropped", f"message {number + 1}: the template cuts this {role} text")

    def _render(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool = False, further: Mapping[str, Any] = _NONE
    ) -> str:
        arguments: dict[str, Any] = {
            "tools": self._tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        given = in_parts(messages) if self._template.takes_parts else messages
        arguments |= {"messages": given, **self._template.names, **further}
        return self._template.traced.render(self._trace, arguments)

    def _render_or_none(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool, further: Mapping[str, Any]
    ) -> str | None:
        """A rendering, made once for the first messages of the dialogue; None where there is none."""
        count = len(messages)
        if count > len(self._messages) or (count and messages[-1] is not self._messages[count - 1]):
            return self._render_anew(messages, add_generation_prompt, further)
        key = (count, add_generation_prompt, str(further))
        if key not in self._rendered:
            self._rendered[key] = self._render_anew(messages, add_generation_prompt, further)
        return self._rendered[key]

    def _render_anew(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool, further: Mapping[str, Any]
    ) -> str | None:
        try:
            return self._render(messages, add_generation_prompt, further)
        except (UntraceableError, *TEMPLATE_ERRORS):
            return None


def _with_stand_ins(trace: Trace, dialogue: Dialogue, values: bool) -> list[dict[str, Any]]:
    messages = []
    for number, message in enumerate(dialogue.chat()):
        marked = {**message, "content": trace.stand_in(Slot(number, "content"))}
        if "reasoning_content" in message:
            marked["reasoning_content"] = trace.stand_in(Slot(number, "reasoning"))
            marked["thinking"] = marked["reasoning_content"]  # the other name that the official renderer fills
        for name in VALUES_OF_MESSAGES if values else ():
            if name in message:
                slot = Slot(number, name)
                marked[name] = stand_in_for("list", trace, slot) if name == "tool_calls" else trace.stand_in(slot)
        messages.append(marked)
    return messages


class _UntracedExamples(ExampleSearch):
    def _leaves_out(self, targets: str, number: int) -> bool:
        return not all(_bare(text) in _bare(targets) for text in _own_texts(self._messages[number]))


class _UntracedTurns(TurnSearch):
    def _after_header(self, *_: Any) -> None:
        """Only prompts that the rendering begins with count: without marks nothing else is sure."""


class Untraced(Tracing):
    """The plans of one dialogue alone, over its own texts: for templates that can't be traced.

    A turn begins where an official prompt ends with which the official rendering begins, and ends with the control
    token that ends the official rendering up to it.
    """

    _examples = _UntracedExamples

    def __init__(self, template: ChatTemplate, dialogue: Dialogue) -> None:
        """Raises RefusedError where a text holds what can't be told from the template's own tokens."""
        trace = Trace(dialogue.texts)
        super().__init__(template, trace, dialogue)
        self._messages = [dict(message) for message in dialogue.chat()]
        values = [value for field_values in dialogue.texts.values() for value in field_values if value]
        texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
        if any(token in text for text in texts for token in template.control_tokens) or any(
            map(any, map(trace.marks, texts))
        ):
            raise RefusedError(UNTRACEABLE, "a message holds the text of a control token, or of a private character")

    def _render(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool = False, further: Mapping[str, Any] = _NONE
    ) -> str:
        given = in_parts(messages) if self._template.takes_parts else messages
        names = {**self._template.names, **further}
        return render_chat(self._template.compiled, names, given, self._dialogue.tools, add_generation_prompt)

    def _search(self, whole: Marked, messages: list[dict[str, Any]]) -> TurnSearch:
        template = self._template
        given = (template.control_tokens, template.arguments, template.eos, template.bos)
        return _UntracedTurns(whole, self._trace, messages, self._render_or_none, *given)

    def _plan(self, example: ShownExample) -> Plan:
        text = example.shown.text
        for number, message in enumerate(self._messages[: example.num_messages]):
            if _bare(message["content"]) not in _bare(self._added_by(number, text)):
                raise RefusedError("message-dropped", f"message {number + 1}: the template cuts this text")
        for turn in (each.turn for each in example.turns if each.trained):
            if _bare(self._messages[turn.message]["content"]) not in _bare(text[turn.start : turn.end]):
                raise RefusedError("turn-not-found", f"message {turn.message + 1}: its text isn't inside its turn")
        plan = super()._plan(example)
        return replace(plan, notes=(*plan.notes, FOUND_BY_RENDERING))

    def _rooms(self, shown: Marked, turn: Turn) -> list[int]:
        """None: what is the template's own can't be told from texts."""
        return [0, 0]

    def _added_by(self, number: int, text: str) -> str:
        """What a message adds to the rendering of those before it; all of `text` where that isn't so simple."""
        before, after = (self._render_or_none(self._messages[:n], False, {}) for n in (number, number + 1))
        return after[len(before or "") :] if after and after.startswith(before or "") else text

    def _refuse_dropped(self, slots: list[Slot], num_messages: int) -> None:
        """Nothing: there are no slots; `_plan` looks at the texts."""


def _own_texts(message: dict[str, Any]) -> list[str]:
    return [message["content"], message.get("reasoning_content") or ""]


def _bare(text: str) -> str:
    return "".join(text.split())
