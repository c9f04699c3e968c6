"""Render: a conversation in, its text as the model's own chat template writes it, and where each assistant turn stands.

The template is traced once for each structure of conversation and each way it branches on the texts (core/trace.py).
What comes out are plans (stages/plan.py), one an example: literals, slots for texts, and the span of each assistant
turn. Rendering by plan is a join of strings. Plans are compared with the official rendering when they are made and
again on their 2nd, 4th, 8th… use.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
from jinja2 import Template, meta
from numpy.typing import NDArray

from dataprep.core.sandbox import TEMPLATE_ERRORS, render_chat
from dataprep.core.trace import Question, Slot, Trace, TracedTemplate, UntraceableError
from dataprep.stages.agree import ExampleSearch, ShownExample, count_turns
from dataprep.stages.plan import Dialogue, Growth, Plan, Plans, RefusedError
from dataprep.stages.turns import Marked, NoTurnError, TurnSearch
from schemas.manifest import TokenOptions

MAX_STRUCTURES = 20_000  # plans are forgotten all at once beyond this, so that memory stays flat

UNTRACEABLE = "template-untraceable"
FOUND_BY_RENDERING = "turns found by rendering"  # the note on plans that were made without tracing
END_ADDED = "end added:"  # the note on plans whose last turn the template doesn't end
_WHOLE = ("strip", "lstrip", "rstrip", "json")  # operations that leave a text whole
_NONE: Mapping[str, Any] = {}
DEFAULT_OPTIONS = TokenOptions()
CLOCK = "strftime_now"  # the function by which templates ask for today's date

_GIVEN = ("messages", "tools", "documents", "add_generation_prompt")


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


@dataclass(slots=True)
class _Branch:
    """A question and where each answer leads: another branch, a plan, or a refusal."""

    question: Question
    answers: dict[Any, "_Node"] = field(default_factory=dict)


_Node = _Branch | Plans | RefusedError
_Structure = tuple[tuple[str, ...], str | None, tuple[bool, ...] | None]


def given_arguments(options: TokenOptions) -> dict[str, Any]:
    """What the template is given beside the messages; `strftime_now` tells of one day, whenever it is asked."""
    given = dict(options.template_args)
    if CLOCK in given:
        given[CLOCK] = date.fromisoformat(given[CLOCK]).strftime
    return given


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
        *,
        options: TokenOptions = DEFAULT_OPTIONS,
    ) -> None:
        """`special_tokens` are names a template may use (bos_token …), `control_tokens` those that can end turns.

        `compiled` is the template as it is officially rendered; `length` measures texts in the encoder's unit.
        """
        arguments = given_arguments(options)
        self._names = {**special_tokens, **arguments}
        self._control_tokens = tuple(control_tokens)
        self._length = length
        self._compiled = compiled
        self._options = options
        self._traced = TracedTemplate(compiled.environment, template)
        self._arguments = [n for n in template_arguments(compiled, template, special_tokens) if n not in arguments]
        eos = special_tokens.get("eos_token")
        self._eos = eos if eos in self._control_tokens else None
        self._roots: dict[_Structure, _Node] = {}
        self._doubted: set[_Structure] = set()  # of which plans proved wrong
        self.takes_parts = takes_parts(compiled, special_tokens)

    def plans(self, dialogue: Dialogue) -> Plans:
        """The plans for a dialogue's examples.

        Raises RefusedError where the template refuses it or its turns can't be shown.
        """
        structure = (dialogue.roles, dialogue.extras, dialogue.wanted)
        node = self._roots.get(structure)
        while isinstance(node, _Branch):
            node = node.answers.get(node.question.answer(dialogue.texts))
        if node is None:
            node = self._learn(structure, dialogue)
        if isinstance(node, RefusedError):
            if node.reason == UNTRACEABLE:
                return Untraced(self, dialogue).plans()
            raise node.with_traceback(None)
        node.uses += 1
        if node.uses & (node.uses - 1) == 0 or structure in self._doubted:
            try:
                for plan in node.examples:
                    self._check(plan, dialogue)
            except RefusedError as refused:
                self._doubt(structure, dialogue, refused)
                raise
        return node

    def _doubt(self, structure: _Structure, dialogue: Dialogue, refused: RefusedError) -> None:
        """Put a refusal in the place of plans that proved wrong, and check each use of those beside them."""
        self._doubted.add(structure)
        holder: dict[Any, _Node] = self._roots
        key: Any = structure
        while isinstance(node := holder[key], _Branch):
            holder, key = node.answers, node.question.answer(dialogue.texts)
        holder[key] = refused

    def plan(self, dialogue: Dialogue) -> Plan:
        """The plan of a dialogue's last example: of its only one, where turns aren't shown apart."""
        return self.plans(dialogue).examples[-1]

    def traced_anew(self, dialogue: Dialogue) -> Plans:
        """Plans made for this dialogue alone. Raises RefusedError."""
        try:
            return _Tracing(self, Trace(dialogue.texts), dialogue).plans()
        except RefusedError as refused:
            if refused.reason != UNTRACEABLE:
                raise
        return Untraced(self, dialogue).plans()

    def official(self, dialogue: Dialogue) -> str:
        """What `tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)` gives."""
        return self._official(dialogue.chat(), dialogue.tools)

    def _official(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        given = in_parts(messages) if self.takes_parts else messages
        return render_chat(self._compiled, self._names, given, tools)

    def _check(self, plan: Plan, dialogue: Dialogue) -> None:
        try:
            official = self._official(dialogue.chat()[: plan.num_messages], dialogue.tools)
        except TEMPLATE_ERRORS as error:
            raise RefusedError("template-refuses", f"the chat template says: {error}") from error
        if "".join(plan.pieces(plan.slot_texts(dialogue.texts))) != official + plan.added_end:
            raise RefusedError("rendering-differs", "the traced rendering is not what the chat template writes")

    def _learn(self, structure: _Structure, dialogue: Dialogue) -> Plans | RefusedError:
        """Trace the dialogue and hang the outcome below the questions that were asked on the way."""
        if len(self._roots) >= MAX_STRUCTURES:
            self._roots.clear()
        trace = Trace(dialogue.texts)
        leaf: Plans | RefusedError
        try:
            leaf = _Tracing(self, trace, dialogue).plans()
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
    """One dialogue's renderings over stand-ins, and the plans of its examples."""

    _examples: type[ExampleSearch] = ExampleSearch

    def __init__(self, renderer: Renderer, trace: Trace, dialogue: Dialogue) -> None:
        self._renderer, self._trace, self._dialogue = renderer, trace, dialogue
        self._messages = _with_stand_ins(trace, dialogue)
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
        options = self._renderer._options
        search = self._examples(
            self._trace,
            self._messages,
            self._dialogue.trains(),
            self._render_or_none,
            self._search,
            needs_reasoning=options.thinking == "only",
        )
        try:
            if options.turns == "whole":
                examples = [search.whole()]
                growth = self._growth(search, examples[0])
            else:
                examples, growth = search.exact(), None
        except NoTurnError as error:
            raise RefusedError(error.reason, str(error)) from error
        return Plans(examples=tuple(map(self._plan, examples)), turns=count_turns(examples), growth=growth)

    def _plan(self, example: ShownExample) -> Plan:
        literals, slots = self._trace.pieces(example.shown.text)
        self._refuse_dropped(slots, example.num_messages)
        turns = [each.turn for each in example.turns]
        points = [example.shown.point(place) for turn in turns for place in (turn.start, turn.end, turn.next_start)]
        length = self._renderer._length
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
            added_end=example.added,
            notes=(f"{END_ADDED} {example.added}",) if example.added else (),
            num_controls=sum(literal.count(token) for literal in literals for token in self._renderer._control_tokens),
            plain=slots == [Slot(number, "content") for number in range(example.num_messages)],
        )

    def _growth(self, search: ExampleSearch, whole: ShownExample) -> Growth | None:
        """What exact examples would hold beyond the whole one; None where nothing."""
        if not any(each.difference for each in whole.turns):
            return None
        literals = 0
        times: dict[str, NDArray[np.int64]] = {
            field: np.zeros(len(self._messages), dtype=np.int64) for field in ("content", "reasoning")
        }
        try:
            texts = search.exact_texts()
        except NoTurnError:
            return None
        for text, sign in [(whole.shown.text, -1), *((text, 1) for text in texts)]:
            own, slots = self._trace.pieces(text)
            literals += sign * sum(map(self._renderer._length, own))
            for leaf in (leaf for slot in slots for leaf in slot.leaves()):
                times[leaf.field][leaf.message] += sign
        return Growth(literals=literals, contents=times["content"], reasoning=times["reasoning"])

    def _search(self, whole: Marked, messages: list[dict[str, Any]]) -> TurnSearch:
        return TurnSearch(
            whole,
            self._trace,
            messages,
            self._render_or_none,
            self._renderer._control_tokens,
            self._renderer._arguments,
            self._renderer._eos,
        )

    def _refuse_dropped(self, slots: list[Slot], num_messages: int) -> None:
        """Turn a dialogue away whose template leaves out a message's text."""
        owned: dict[int, list[Slot]] = {}
        for slot in slots:
            for message in slot.messages():
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
            "tools": self._dialogue.tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        given = in_parts(messages) if self._renderer.takes_parts else messages
        arguments |= {"messages": given, **self._renderer._names, **further}
        return self._renderer._traced.render(self._trace, arguments)

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


def _with_stand_ins(trace: Trace, dialogue: Dialogue) -> list[dict[str, Any]]:
    messages = []
    for number, message in enumerate(dialogue.chat()):
        marked = {**message, "content": trace.stand_in(Slot(number, "content"))}
        if "reasoning_content" in message:
            marked["reasoning_content"] = trace.stand_in(Slot(number, "reasoning"))
            marked["thinking"] = marked["reasoning_content"]  # the other name that the official renderer fills
        messages.append(marked)
    return messages


class _UntracedExamples(ExampleSearch):
    def _leaves_out(self, targets: str, number: int) -> bool:
        return not all(_bare(text) in _bare(targets) for text in _own_texts(self._messages[number]))


class _UntracedTurns(TurnSearch):
    def _after_header(self, *_: Any) -> None:
        """Only prompts that the rendering begins with count: without marks nothing else is sure."""


class Untraced(_Tracing):
    """The plans of one dialogue alone, over its own texts: for templates that can't be traced.

    A turn begins where an official prompt ends with which the official rendering begins, and ends with the control
    token that ends the official rendering up to it.
    """

    _examples = _UntracedExamples

    def __init__(self, renderer: Renderer, dialogue: Dialogue) -> None:
        """Raises RefusedError where a text holds what can't be told from the template's own tokens."""
        trace = Trace(dialogue.texts)
        super().__init__(renderer, trace, dialogue)
        self._messages = [dict(message) for message in dialogue.chat()]
        texts = [text for field_texts in dialogue.texts.values() for text in field_texts]
        if any(token in text for text in texts for token in renderer._control_tokens) or any(
            map(any, map(trace.marks, texts))
        ):
            raise RefusedError(UNTRACEABLE, "a message holds the text of a control token, or of a private character")

    def _render(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool = False, further: Mapping[str, Any] = _NONE
    ) -> str:
        given = in_parts(messages) if self._renderer.takes_parts else messages
        names = {**self._renderer._names, **further}
        return render_chat(self._renderer._compiled, names, given, self._dialogue.tools, add_generation_prompt)

    def _search(self, whole: Marked, messages: list[dict[str, Any]]) -> TurnSearch:
        renderer = self._renderer
        given = (renderer._control_tokens, renderer._arguments, renderer._eos)
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
