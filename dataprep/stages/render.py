"""Render: a conversation in, its text as the model's own chat template writes it, and where each assistant turn stands.

The template is traced once for each structure of conversation and each way it branches on the texts (core/trace.py).
What comes out is a plan: literals, slots for texts, and the span of each assistant turn. Rendering by plan is a join of
strings. A plan is compared with the official rendering when it is made and again on its 2nd, 4th, 8th… use.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import Template, meta
from numpy.typing import NDArray

from dataprep.core.sandbox import TEMPLATE_ERRORS, render_chat
from dataprep.core.trace import Question, Slot, Texts, Trace, TracedTemplate, UntraceableError
from dataprep.stages.turns import Marked, NoTurnError, Turn, TurnSearch

MAX_STRUCTURES = 20_000  # plans are forgotten all at once beyond this, so that memory stays flat

_WHOLE = ("strip", "lstrip", "rstrip", "json")  # operations that leave a text whole
_NONE: Mapping[str, Any] = {}
_GIVEN = ("messages", "tools", "documents", "add_generation_prompt")


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
    extras: str | None = None  # everything but roles and texts, as a key

    def chat(self) -> list[dict[str, Any]]:
        """The messages for `apply_chat_template`, contents as strings."""
        if self.messages is not None:
            return self.messages
        pairs = zip(self.roles, self.texts["content"], strict=True)
        return [{"role": role, "content": content} for role, content in pairs]


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


@dataclass(slots=True, kw_only=True)
class Plan:
    """How conversations of one kind are rendered; lengths and offsets are in the encoder's unit, characters or bytes.

    A rendering is 2n + 1 pieces: literal 0, slot 0, literal 1, slot 1, … Each assistant turn has three points in it:
    where its targets start, where they end, and where what follows the turn begins. A point is an offset into the
    literal piece `point_pieces[i]`; the points of turn t are 3t, 3t + 1 and 3t + 2.
    """

    literals: list[str]
    slots: list[Slot]
    literal_lengths: NDArray[np.int64]  # (n + 1,)
    point_pieces: NDArray[np.int64]  # (3 * turns,)
    point_offsets: NDArray[np.int64]  # (3 * turns,)
    turn_messages: list[int]  # the assistant message of each turn
    turn_trained: list[bool]  # False where the template ends a turn otherwise than as the last one
    num_controls: int  # control tokens that the template itself writes
    plain: bool  # slot i is the content of message i, untouched
    uses: int = 0

    def slot_texts(self, texts: Texts) -> list[str]:
        """The n texts that fill the slots."""
        return texts["content"] if self.plain else [slot.value(texts) for slot in self.slots]

    def pieces(self, slot_texts: list[str]) -> list[str]:
        """The 2n + 1 pieces whose concatenation is the rendering."""
        pieces: list[str] = [""] * (2 * len(self.slots) + 1)
        pieces[0::2] = self.literals
        pieces[1::2] = slot_texts
        return pieces


@dataclass(slots=True)
class _Branch:
    """A question and where each answer leads: another branch, a plan, or a refusal."""

    question: Question
    answers: dict[Any, "_Node"] = field(default_factory=dict)


_Node = _Branch | Plan | RefusedError
_Structure = tuple[tuple[str, ...], str | None]


def template_arguments(compiled: Template, template: str, special_tokens: Mapping[str, str]) -> list[str]:
    """Names that a template asks for beside the messages, such as `enable_thinking`; it decides what they do."""
    asked = meta.find_undeclared_variables(compiled.environment.parse(template))
    return sorted(asked - {*_GIVEN, *special_tokens, *compiled.environment.globals})


class Renderer:
    """Plans for one chat template, made as conversations come by."""

    def __init__(
        self,
        template: str,
        special_tokens: Mapping[str, str],
        control_tokens: Sequence[str],
        length: Callable[[str], int],
        compiled: Template,
    ) -> None:
        """`special_tokens` are names a template may use (bos_token …), `control_tokens` those that can end turns.

        `compiled` is the template as it is officially rendered; `length` measures texts in the encoder's unit.
        """
        self._special_tokens = dict(special_tokens)
        self._control_tokens = tuple(control_tokens)
        self._length = length
        self._compiled = compiled
        self._traced = TracedTemplate(compiled.environment, template)
        self._arguments = template_arguments(compiled, template, special_tokens)
        self._roots: dict[_Structure, _Node] = {}
        self.takes_parts = takes_parts(compiled, special_tokens)

    def plan(self, dialogue: Dialogue) -> Plan:
        """The plan for a dialogue. Raises RefusedError where the template refuses it or its turns can't be shown."""
        structure = (dialogue.roles, dialogue.extras)
        node = self._roots.get(structure)
        while isinstance(node, _Branch):
            node = node.answers.get(node.question.answer(dialogue.texts))
        if node is None:
            node = self._learn(structure, dialogue)
        if isinstance(node, RefusedError):
            raise node
        node.uses += 1
        if node.uses & (node.uses - 1) == 0:
            self._check(node, dialogue)
        return node

    def traced_anew(self, dialogue: Dialogue) -> Plan:
        """A plan made for this dialogue alone. Raises RefusedError."""
        return _Tracing(self, Trace(dialogue.texts), dialogue).plan()

    def official(self, dialogue: Dialogue) -> str:
        """What `tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)` gives."""
        return self._official(dialogue.chat(), dialogue.tools)

    def _official(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, add_generation_prompt: bool = False
    ) -> str:
        given = in_parts(messages) if self.takes_parts else messages
        return render_chat(self._compiled, self._special_tokens, given, tools, add_generation_prompt)

    def _check(self, plan: Plan, dialogue: Dialogue) -> None:
        try:
            official = self.official(dialogue)
        except TEMPLATE_ERRORS as error:
            raise RefusedError("template-refuses", f"the chat template says: {error}") from error
        if "".join(plan.pieces(plan.slot_texts(dialogue.texts))) != official:
            raise RefusedError("rendering-differs", "the traced rendering is not what the chat template writes")

    def _learn(self, structure: _Structure, dialogue: Dialogue) -> Plan | RefusedError:
        """Trace the dialogue and hang the outcome below the questions that were asked on the way."""
        if len(self._roots) >= MAX_STRUCTURES:
            self._roots.clear()
        trace = Trace(dialogue.texts)
        leaf: Plan | RefusedError
        try:
            leaf = _Tracing(self, trace, dialogue).plan()
        except RefusedError as refused:
            leaf = refused
        holder: dict[Any, _Node] = self._roots
        key: Any = structure
        for question, answer in trace.questions.items():
            branch = holder.get(key)
            if not isinstance(branch, _Branch):
                branch = holder[key] = _Branch(question)
            if branch.question != question:  # it must depend on the earlier answers only
                return RefusedError("rendering-differs", "the chat template doesn't ask the same of equal texts")
            holder, key = branch.answers, answer
        holder[key] = leaf
        return leaf


class _Tracing:
    """One dialogue's renderings over stand-ins, and the search for its turns in them."""

    def __init__(self, renderer: Renderer, trace: Trace, dialogue: Dialogue) -> None:
        self._renderer, self._trace, self._dialogue = renderer, trace, dialogue
        self._messages = _with_stand_ins(trace, dialogue)

    def plan(self) -> Plan:
        """Raises RefusedError."""
        try:
            whole = self._render(self._messages)
        except UntraceableError as error:
            raise RefusedError("template-untraceable", f"the chat template takes the {error}") from error
        except TEMPLATE_ERRORS as error:
            detail = str(error).split("\n")[0] or type(error).__name__
            raise RefusedError("template-refuses", f"the chat template says: {detail}") from error
        literals, slots = self._trace.pieces(whole)
        self._refuse_dropped(slots)
        marked = Marked(self._trace, whole)
        turns = self._turns(marked)
        points = [marked.point(place) for turn in turns for place in (turn.start, turn.end, turn.next_start)]
        length = self._renderer._length
        return Plan(
            literals=literals,
            slots=slots,
            literal_lengths=np.array([length(literal) for literal in literals], dtype=np.int64),
            point_pieces=np.array([2 * literal for literal, _ in points], dtype=np.int64),
            point_offsets=np.array([length(literals[i][:offset]) for i, offset in points], dtype=np.int64),
            turn_messages=[turn.message for turn in turns],
            turn_trained=[turn.ended for turn in turns],
            num_controls=sum(literal.count(token) for literal in literals for token in self._renderer._control_tokens),
            plain=slots == [Slot(number, "content") for number in range(len(self._dialogue.roles))],
        )

    def _turns(self, whole: Marked) -> list[Turn]:
        search = TurnSearch(
            whole,
            self._trace,
            self._messages,
            self._render_or_none,
            self._renderer._control_tokens,
            self._renderer._arguments,
        )
        try:
            return search.turns()
        except NoTurnError as error:
            raise RefusedError(error.reason, str(error)) from error

    def _refuse_dropped(self, slots: list[Slot]) -> None:
        """Turn a dialogue away whose template leaves out a message's text."""
        owned: dict[int, list[Slot]] = {}
        for slot in slots:
            for message in slot.messages():
                owned.setdefault(message, []).append(slot)
        for number, role in enumerate(self._dialogue.roles):
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
            "tools": self._dialogue.tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        given = in_parts(messages) if self._renderer.takes_parts else messages
        arguments |= {"messages": given, **self._renderer._special_tokens, **further}
        return self._renderer._traced.render(self._trace, arguments)

    def _render_or_none(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool, further: Mapping[str, Any]
    ) -> str | None:
        try:
            return self._render(messages, add_generation_prompt, further)
        except (UntraceableError, *TEMPLATE_ERRORS):
            return None


def _with_stand_ins(trace: Trace, dialogue: Dialogue) -> list[dict[str, Any]]:
    messages = []
    for number, message in enumerate(dialogue.chat()):
        marked = {**message, "content": trace.stand_in(Slot(number, "content"))}
        if "reasoning_content" in message:
            marked["reasoning_content"] = trace.stand_in(Slot(number, "reasoning"))
            marked["thinking"] = marked["reasoning_content"]  # the other name that the official renderer fills
        messages.append(marked)
    return messages
