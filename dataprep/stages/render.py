"""Render: a conversation in, its text as the model's own chat template writes it, and where each assistant turn stands.

The template is traced once for each structure of conversation and each way it branches on the texts (core/trace.py).
What comes out are plans (stages/plan.py), one an example: literals, slots for texts, and the span of each assistant
turn. Rendering by plan is a join of strings. Plans are compared with the official rendering when they are made and
again on their 2nd, 4th, 8th… use; where they prove wrong, those beside them are compared on every use.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from jinja2 import Template, meta, nodes
from numpy.typing import NDArray

from dataprep.core.contents import Contents
from dataprep.core.sandbox import TEMPLATE_ERRORS, render_chat
from dataprep.core.trace import VALUE_FIELDS, Question, Trace
from dataprep.core.traced_template import TracedTemplate
from dataprep.stages.plan import Dialogue, Plan, Plans, RefusedError
from dataprep.stages.tracing import UNTRACEABLE, ChatTemplate, Tracing, Untraced, in_parts, takes_parts
from schemas.manifest import TokenOptions

MAX_STRUCTURES = 20_000  # plans are forgotten all at once beyond this, so that memory stays flat
FEW_TRACES = 64  # so many, and a template must have been served by shared plans as often, or they are given up
MAX_VALUE_QUESTIONS = 100  # a template that asks more about tools and calls is traced for each set of them

DEFAULT_OPTIONS = TokenOptions()
CLOCK = "strftime_now"  # the function by which templates ask for today's date

_GIVEN = ("messages", "tools", "documents", "add_generation_prompt")


@dataclass(slots=True)
class _Branch:
    """A question and where each answer leads: another branch, a plan, or a refusal."""

    question: Question
    answers: dict[Any, "_Node"] = field(default_factory=dict)


_Node = _Branch | Plans | RefusedError
_Structure = tuple[tuple[str, ...], tuple[Any, ...] | str | None, tuple[bool, ...] | None]


def given_arguments(options: TokenOptions) -> dict[str, Any]:
    """What the template is given beside the messages; `strftime_now` tells of one day, whenever it is asked."""
    given = dict(options.template_args)
    if CLOCK in given:
        given[CLOCK] = date.fromisoformat(given[CLOCK]).strftime
    return given


def template_arguments(compiled: Template, template: str, special_tokens: Mapping[str, str]) -> list[str]:
    """Names that a template asks for beside the messages, such as `enable_thinking`; it decides what they do."""
    tree = compiled.environment.parse(template)
    asked = meta.find_undeclared_variables(tree) - {*_GIVEN, *special_tokens, *compiled.environment.globals}
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}  # set in some branch
    doubts = [
        *(test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")),
        *(each.node for each in tree.find_all(nodes.Filter) if each.name in ("default", "d")),
    ]
    doubted = {node.name for node in doubts if isinstance(node, nodes.Name)}
    return sorted(asked - (own - doubted))


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
        asked = template_arguments(compiled, template, special_tokens)
        eos = special_tokens.get("eos_token")
        self.takes_parts = takes_parts(compiled, special_tokens)
        self._template = ChatTemplate(
            names={**special_tokens, **arguments},
            control_tokens=tuple(control_tokens),
            eos=eos if eos in control_tokens else None,
            bos=special_tokens.get("bos_token"),
            length=length,
            compiled=compiled,
            traced=TracedTemplate(compiled.environment, template),
            arguments=[name for name in asked if name not in arguments],
            options=options,
            takes_parts=self.takes_parts,
        )
        self._roots: dict[_Structure, _Node] = {}
        self._shared_traces = self._shared_uses = 0  # of plans that serve dialogues with other tools, too
        self._doubted: set[_Structure] = set()  # of which plans proved wrong

    def plans(self, dialogue: Dialogue) -> Plans:
        """The plans for a dialogue's examples.

        Raises RefusedError where the template refuses it or its turns can't be shown.
        """
        shared = self._shared(dialogue) if dialogue.keys is not None else None
        if shared is not None:
            return shared
        structure = (dialogue.roles, dialogue.own_key(), dialogue.wanted)
        node = self._found(structure, dialogue)
        if node is None:
            node = self._learn(structure, dialogue)
        if isinstance(node, RefusedError):
            if node.reason == UNTRACEABLE:
                return Untraced(self._template, dialogue).plans()
            raise node.with_traceback(None)
        self._use(node, structure, dialogue)
        return node

    def plans_of_all(
        self, roles: tuple[str, ...], contents: Contents, offsets: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> Iterator[tuple[Plans | RefusedError, NDArray[np.int64]]]:
        """The same for several conversations of these roles that hold nothing but contents, by their plans.

        Conversation r is contents[offsets[r]:offsets[r + 1]].
        """
        structure: _Structure = (roles, None, None)
        left = rows
        while len(left):
            again = [left[:0]]
            for node, led in self._led(structure, contents, offsets, left):
                own = led
                while len(own):
                    if isinstance(node, Plans) and structure not in self._doubted:
                        unchecked = (1 << node.uses.bit_length()) - 1 - node.uses
                        if unchecked:
                            node.uses += len(own[:unchecked])
                            yield node, own[:unchecked]
                            own = own[unchecked:]
                            continue
                    yield self._plans_or_refusal(roles, contents.texts(offsets[own[0]], offsets[own[0] + 1])), own[:1]
                    own = own[1:]
                    if node is None:
                        again.append(own)
                        break
            left = np.concatenate(again)

    def _led(
        self, structure: _Structure, contents: Contents, offsets: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> Iterator[tuple[Plans | RefusedError | None, NDArray[np.int64]]]:
        """Conversations by where their answers lead them: see `_found`."""
        waiting: list[tuple[_Node | None, NDArray[np.int64]]] = [(self._roots.get(structure), rows)]
        while waiting:
            node, own = waiting.pop()
            if not isinstance(node, _Branch):
                yield node, own
                continue
            answers = node.question.answers(contents, offsets[own], offsets[own + 1])
            waiting.extend((node.answers.get(answer), led) for answer, led in _by_answer(answers, own))

    def _plans_or_refusal(self, roles: tuple[str, ...], contents: list[str]) -> Plans | RefusedError:
        try:
            return self.plans(Dialogue(roles=roles, texts={"content": contents}))
        except RefusedError as refused:
            return refused

    def _shared(self, dialogue: Dialogue) -> Plans | None:
        """Plans that serve dialogues with other tools and tool calls, too; None where these don't do.

        What these would turn away is decided by plans of its own.
        """
        if self._shared_traces >= FEW_TRACES and self._shared_uses < self._shared_traces:
            return None
        structure = (dialogue.roles, dialogue.keys, dialogue.wanted)
        node = self._found(structure, dialogue)
        if node is None:
            self._shared_traces += 1
            node = self._learn(structure, dialogue, values=True)
        if isinstance(node, Plans):
            self._shared_uses += 1
            try:
                self._use(node, structure, dialogue)
                return node
            except RefusedError:
                pass
        return None

    def _found(self, structure: _Structure, dialogue: Dialogue) -> Plans | RefusedError | None:
        """Where the answers to a structure's questions lead; None where nobody went that way yet."""
        node = self._roots.get(structure)
        while isinstance(node, _Branch):
            node = node.answers.get(node.question.answer(dialogue.texts))
        return node

    def _use(self, plans: Plans, structure: _Structure, dialogue: Dialogue) -> None:
        """Count a use of plans, and compare them with the official rendering now and then. Raises RefusedError."""
        plans.uses += 1
        if plans.uses & (plans.uses - 1) == 0 or (self._doubted and structure in self._doubted):
            try:
                for plan in plans.examples:
                    self._check(plan, dialogue)
            except RefusedError as refused:
                self._doubt(structure, dialogue, refused)
                raise

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
            return Tracing(self._template, Trace(dialogue.texts), dialogue).plans()
        except RefusedError as refused:
            if refused.reason != UNTRACEABLE:
                raise
        return Untraced(self._template, dialogue).plans()

    def official(self, dialogue: Dialogue) -> str:
        """What `tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)` gives."""
        return self._official(dialogue.chat(), dialogue.tools)

    def _official(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        given = in_parts(messages) if self.takes_parts else messages
        return render_chat(self._template.compiled, dict(self._template.names), given, tools)

    def _check(self, plan: Plan, dialogue: Dialogue) -> None:
        try:
            official = self._official(dialogue.chat()[: plan.num_messages], dialogue.tools)
        except TEMPLATE_ERRORS as error:
            raise RefusedError("template-refuses", f"the chat template says: {error}") from error
        if "".join(plan.pieces(plan.slot_texts(dialogue.texts))) != official + plan.added_end:
            raise RefusedError("rendering-differs", "the traced rendering is not what the chat template writes")

    def _learn(self, structure: _Structure, dialogue: Dialogue, *, values: bool = False) -> Plans | RefusedError:
        """Trace the dialogue and hang the outcome below the questions that were asked on the way."""
        if len(self._roots) >= MAX_STRUCTURES:
            self._roots.clear()
        trace = Trace(dialogue.texts)
        leaf: Plans | RefusedError
        try:
            leaf = Tracing(self._template, trace, dialogue, values=values).plans()
        except RefusedError as refused:
            leaf = refused
        if values and _num_value_questions(trace) > MAX_VALUE_QUESTIONS:
            self._roots[structure] = leaf = RefusedError(UNTRACEABLE, "the chat template looks into its tools")
            return leaf
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


def _by_answer(
    answers: NDArray[np.bool_] | list[Any], rows: NDArray[np.int64]
) -> Iterator[tuple[Any, NDArray[np.int64]]]:
    """Each answer with the rows that gave it."""
    if isinstance(answers, list):
        for answer in dict.fromkeys(answers):
            yield answer, rows[[its == answer for its in answers]]
        return
    for answer, chosen in ((True, answers), (False, ~answers)):
        if chosen.all():
            yield answer, rows
        elif chosen.any():
            yield answer, rows[chosen]


def _num_value_questions(trace: Trace) -> int:
    return sum(question.slot.field in VALUE_FIELDS for question in trace.questions)
