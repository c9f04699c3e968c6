"""Tracing a chat template: run it once on stand-ins for the texts, and learn what it does with any texts like them.

A stand-in is a string whose characters are private marks, so the rendering shows where each text goes. Whenever the
template asks something about a text (`'</think>' in content`, `content.startswith(...)`), the stand-in answers for the
real text and the question is noted. Conversations of the same structure that answer every noted question alike are
rendered alike: the template is a function of the answers. What is done to texts that were joined with others is
answered for the joined text. A template that does something to a text that can't be noted (going through its
characters) raises Untraceable.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataprep.core.contents import Contents

MARK_BASE = 0xF0000  # private use: no text of a template lives here
_MARKS = re.compile("[\U000f0000-\U000ffffd]")

# What a slot may hold beside texts of messages: parsed JSON (core/trace_values.py), and the names in messages.
VALUES_OF_MESSAGES = ("tool_calls", "name", "tool_call_id")
VALUE_FIELDS = ("tools", *VALUES_OF_MESSAGES)

Operation = tuple[str, tuple[Any, ...], int | None]  # method, arguments, which item of the result


class UntraceableError(Exception):
    """The template does something to a text that the stand-ins can't answer for."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a text comes from: a field of a message, and what the template did to it on the way."""

    message: int  # of joined texts the first, if all are of one message; else -1
    field: str  # content | reasoning | joined | one of VALUE_FIELDS
    operations: tuple[Operation, ...] = ()
    parts: tuple["str | Slot", ...] = ()  # of joined texts: literals and slots

    def value(self, texts: "Texts") -> str:
        """The text that stands in this slot for these messages."""
        if not self.operations and not self.parts:
            return texts[self.field][self.message]
        if self.parts:
            value = "".join(part if isinstance(part, str) else part.value(texts) for part in self.parts)
        else:
            value = texts[self.field][self.message]
        for method, arguments, item in self.operations:
            if method == "__getitem__" and type(arguments[0]) is not Slot:
                value = value[arguments[0]]
            elif method == "json":
                value = json.dumps(value, ensure_ascii=False)[1:-1]
            elif method == "slice":
                value = value[slice(*arguments)]
            elif method == "tojson":
                ensure_ascii, indent, separators, sort_keys = arguments
                value = json.dumps(
                    value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
                )
            else:
                result = getattr(value, method)(*_resolved(arguments, texts))
                value = result if item is None else result[item]
        return value

    @property
    def is_value(self) -> bool:
        """Whether no text of a message is in it, but a tool's definition, a call, or a name."""
        return all(leaf.field in VALUE_FIELDS for leaf in self.leaves())

    def messages(self) -> set[int]:
        """The messages whose text stands in it."""
        if not self.parts:
            return {self.message}
        return set().union(*(part.messages() for part in self.parts if isinstance(part, Slot)))

    def leaves(self) -> Iterator["Slot"]:
        """The messages' own texts that it is made of, what was done to them aside."""
        if not self.parts:
            yield self
        for part in self.parts:
            if isinstance(part, Slot):
                yield from part.leaves()


def _resolved(arguments: tuple[Any, ...], texts: "Texts") -> Iterable[Any]:
    for argument in arguments:
        if type(argument) is Slot:
            return [each.value(texts) if isinstance(each, Slot) else each for each in arguments]
    return arguments


Texts = dict[str, list[Any]]  # field -> text of each message, or value: VALUE_FIELDS


@dataclass(frozen=True, slots=True)
class Question:
    """Something a template asked about a text; equal answers lead to equal renderings."""

    slot: Slot
    method: str
    arguments: tuple[Any, ...]

    def answer(self, texts: Texts) -> Any:
        """Answer for these messages."""
        return _ANSWERS[self.method](self.slot.value(texts), *_resolved(self.arguments, texts))

    def answers(
        self, contents: Contents, firsts: NDArray[np.int64], lasts: NDArray[np.int64]
    ) -> NDArray[np.bool_] | list[Any]:
        """Answer for several conversations that are contents[first:last] and nothing else."""
        slot, arguments = self.slot, self.arguments
        strings: list[str]
        if slot.operations or slot.parts or any(isinstance(argument, Slot | tuple) for argument in arguments):
            strings = contents.strings()
            bounds = zip(firsts.tolist(), lasts.tolist(), strict=True)
            return [self.answer({"content": strings[first:last]}) for first, last in bounds]
        known = contents.answers(self.method, arguments)
        if known is not None:
            return known[firsts + slot.message]
        ask, strings = _ANSWERS[self.method], contents.strings()
        return [ask(strings[place], *arguments) for place in (firsts + slot.message).tolist()]


def _bare(text: str) -> str:
    return "".join(text.split())


def _kind(value: Any) -> Any:
    """What a template can tell of a value of JSON without looking inside; of what has no inside, all of it."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict | list):
        return "object" if isinstance(value, dict) else "list"
    return type(value).__name__, repr(value)


def _kind_at(value: dict[str, Any], key: str) -> Any:
    return _kind(value[key]) if key in value else "missing"


def _kinds(value: dict[str, Any] | list[Any]) -> tuple[Any, ...]:
    if isinstance(value, dict):
        return tuple((name, _kind(item)) for name, item in value.items())
    return tuple(map(_kind, value))


_ANSWERS: dict[str, Callable[..., Any]] = {
    "contains": lambda text, item: item in text,
    "equals": lambda text, other: text == other,
    "filled": lambda text: bool(text),
    "kind": _kind_at,
    "kinds": _kinds,
    "length": len,
    "order": lambda text, other: (text > other) - (text < other),
    "startswith": lambda text, *arguments: text.startswith(*arguments),
    "endswith": lambda text, *arguments: text.endswith(*arguments),
    "changed": lambda text, method, *arguments: getattr(text, method)(*arguments) != text,
    "covered": lambda text, *values: _bare(text) in _bare("".join(values)),
    "parts": lambda text, method, *arguments: len(getattr(text, method)(*arguments)),
}


@dataclass(slots=True)
class Trace:
    """One run of a template over stand-ins for `texts`: the slots handed out and the questions asked, in order."""

    texts: Texts
    slots: list[Slot] = field(default_factory=list)
    numbers: dict[Slot, int] = field(default_factory=dict)  # of the slots
    questions: dict[Question, Any] = field(default_factory=dict)

    def stand_in(self, slot: Slot) -> "StandIn":
        """The stand-in for a slot; the same slot always has the same mark."""
        number = self.numbers.setdefault(slot, len(self.slots))
        if number == len(self.slots):
            self.slots.append(slot)
        return StandIn(self, number)

    def ask(self, slot: Slot, method: str, *arguments: Any) -> Any:
        """Answer a question for the real text, and note it."""
        question = Question(slot, method, _noted(arguments))
        if question not in self.questions:
            self.questions[question] = question.answer(self.texts)
        return self.questions[question]

    def tracked(self, text: str) -> str:
        """Wrap a string that may hold marks, so that what is done to it next is noticed."""
        if len(text) == 1 and _MARKS.match(text):
            return StandIn(self, ord(text) - MARK_BASE)
        return Rope(self, text) if _MARKS.search(text) else text

    def pieces(self, rendered: str) -> tuple[list[str], list[Slot]]:
        """Split a rendering into n + 1 literals and the n slots between them."""
        return _MARKS.split(rendered), [self.slot_of(mark) for mark in _MARKS.findall(rendered)]

    def slot_of(self, mark: str) -> Slot:
        """The slot that a mark stands for."""
        return self.slots[ord(mark) - MARK_BASE]

    @staticmethod
    def marks(rendered: str) -> Iterator[tuple[int, str]]:
        """Each mark of a rendering with its place."""
        return ((found.start(), found[0]) for found in _MARKS.finditer(rendered))


def _noted(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments as they are kept in a question or an operation: a text by its slot."""
    return tuple(argument.slot if isinstance(argument, Tracked) else argument for argument in arguments)


class Tracked(str):
    """A string that holds marks. What looks inside it is answered for the real text, or refused."""

    trace: Trace

    @property
    def slot(self) -> Slot:
        """Where its text comes from."""
        raise NotImplementedError

    def __add__(self, other: str) -> str:
        return self.trace.tracked(str.__add__(self, other))

    def __radd__(self, other: str) -> str:
        return self.trace.tracked(str.__add__(other, self))

    def __iter__(self) -> Any:
        raise UntraceableError("characters of a text one by one")
        yield ""  # a generator: `is iterable` may look, only taking an item is refused

    def __len__(self) -> int:
        return self.trace.ask(self.slot, "length")

    def __contains__(self, item: object) -> bool:
        return self.trace.ask(self.slot, "contains", item)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Tracked) and str.__eq__(self, other):
            return True
        return isinstance(other, str) and self.trace.ask(self.slot, "equals", other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: str) -> bool:
        return self.trace.ask(self.slot, "order", other) < 0

    def __le__(self, other: str) -> bool:
        return self.trace.ask(self.slot, "order", other) <= 0

    def __gt__(self, other: str) -> bool:
        return self.trace.ask(self.slot, "order", other) > 0

    def __ge__(self, other: str) -> bool:
        return self.trace.ask(self.slot, "order", other) >= 0

    def __hash__(self) -> int:
        raise UntraceableError("hash of a text")

    def __getitem__(self, key: Any) -> str:
        if isinstance(key, slice):
            return self._derived(("slice", (key.start, key.stop, key.step), None))
        if not isinstance(key, int):
            raise TypeError("string indices must be integers")
        if not -len(self) <= key < len(self):
            raise IndexError("string index out of range")
        return self._derived(("__getitem__", (key,), None))

    def startswith(self, *arguments: Any) -> bool:
        """Asked of the real text."""
        return self.trace.ask(self.slot, "startswith", *arguments)

    def endswith(self, *arguments: Any) -> bool:
        """Asked of the real text."""
        return self.trace.ask(self.slot, "endswith", *arguments)

    def _changed_by(self, method: str, *arguments: Any) -> str:
        if not self.trace.ask(self.slot, "changed", method, *arguments):
            return self
        return self._derived((method, _noted(arguments), None))

    def _parts_of(self, method: str, *arguments: Any) -> list[str]:
        count = self.trace.ask(self.slot, "parts", method, *arguments)
        if count == 1 and arguments and arguments[0] is not None:  # no separator in it
            return [self]
        return [self._derived((method, _noted(arguments), item)) for item in range(count)]

    def _derived(self, operation: Operation) -> "StandIn":
        slot = self.slot
        return self.trace.stand_in(replace(slot, operations=(*slot.operations, operation)))


def _refuse(method: str) -> Callable[..., Any]:
    def refused(self: Tracked, *arguments: Any, **keywords: Any) -> Any:
        raise UntraceableError(f"{method} of a text")

    return refused


for _name in dir(str):
    if _name not in vars(Tracked) and (
        _name in ("__mod__", "__rmod__", "__mul__", "__rmul__", "__format__") or _name[0] != "_"
    ):
        setattr(Tracked, _name, _refuse(_name.strip("_")))


class Rope(Tracked):
    """Marks joined with literal text, or with each other."""

    def __new__(cls, trace: Trace, text: str) -> "Rope":
        """Wrap `text`, which holds at least one mark and another character."""
        rope = super().__new__(cls, text)
        rope.trace = trace
        return rope

    @property
    def slot(self) -> Slot:
        """A slot of its own, of all its parts."""
        literals, slots = self.trace.pieces(str(self))
        parts = [part for pair in zip(literals, [*slots, None], strict=True) for part in pair if part]
        owners = {slot.message for slot in slots}
        return Slot(owners.pop() if len(owners) == 1 else -1, "joined", (), tuple(parts))

    def __bool__(self) -> bool:
        return bool(_MARKS.sub("", str(self))) or self.trace.ask(self.slot, "filled")

    def strip(self, *arguments: Any) -> str:
        """What is stripped are the parts on both ends."""
        stripped = self.lstrip(*arguments)
        return stripped.rstrip(*arguments)

    def lstrip(self, *arguments: Any) -> str:
        """Blank parts at the start go, then the first that isn't blank is stripped."""
        return self._stripped("lstrip", arguments)

    def rstrip(self, *arguments: Any) -> str:
        """Blank parts at the end go, then the last that isn't blank is stripped."""
        return self._stripped("rstrip", arguments)

    def _stripped(self, method: str, arguments: tuple[Any, ...]) -> str:
        text, place = str(self), 0 if method == "lstrip" else -1
        while text:
            edge = text[place]
            if _MARKS.match(edge):
                own = getattr(self.trace.tracked(edge), method)(*arguments)
                text = _without(text, place)
                if own:
                    text = str(own) + text if place == 0 else text + str(own)
                    break
            else:
                bare = getattr(edge, method)(*arguments)
                if bare:
                    break
                text = _without(text, place)
        return self.trace.tracked(text)


def _without(text: str, place: int) -> str:
    return text[1:] if place == 0 else text[:-1]


class StandIn(Tracked):
    """One mark, standing for one text; answers the questions that templates ask."""

    number: int

    def __new__(cls, trace: Trace, number: int) -> "StandIn":
        """The mark of slot `number`."""
        stand_in = super().__new__(cls, chr(MARK_BASE + number))
        stand_in.trace, stand_in.number = trace, number
        return stand_in

    @property
    def slot(self) -> Slot:
        """What this stands for."""
        return self.trace.slots[self.number]

    def __bool__(self) -> bool:
        return self.trace.ask(self.slot, "filled")


def _answer_by(helper: str, method: str) -> Callable[..., Any]:
    def answered(self: Tracked, *arguments: Any) -> Any:
        return getattr(self, helper)(method, *arguments)

    return answered


for _name in ("strip", "lstrip", "rstrip"):
    setattr(StandIn, _name, _answer_by("_changed_by", _name))
for _name in ("replace", "upper", "lower", "title", "capitalize", "removeprefix", "removesuffix"):
    setattr(Tracked, _name, _answer_by("_changed_by", _name))
for _name in ("split", "rsplit", "splitlines"):
    setattr(Tracked, _name, _answer_by("_parts_of", _name))
