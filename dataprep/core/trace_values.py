"""Stand-ins for tool definitions and tool calls, so that conversations that differ in them alone share a trace.

They look like the objects and lists of parsed JSON, and hold nothing. What a template takes out of them are further
stand-ins; what it asks (which names there are, of what kind a value is) is answered for the real value and noted
(core/trace.py). Numbers, booleans and null are handed out as they are, and noted. `tojson` gives one slot for all of a
value. What can't be noted raises UntraceableError.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from dataprep.core.trace import Slot, Trace, Tracked, UntraceableError


class ValueStandIn:
    """Stands for an object or a list of JSON; its own names begin with an underscore: the others are the template's."""

    _trace: Trace
    _slot: Slot

    def _part(self, key: Any) -> Any:
        """What stands at a key, or LookupError."""
        kind = self._ask("kind", key)
        if kind == "missing":
            raise KeyError(key)
        return self._made(kind, key)

    def _made(self, kind: Any, key: Any) -> Any:
        if isinstance(kind, tuple):
            return _SCALARS[kind[0]](kind[1])
        slot = item_slot(self._slot, key)
        return self._trace.stand_in(slot) if kind == "text" else stand_in_for(kind, self._trace, slot)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._trace.ask(self._slot, method, *arguments)

    def __len__(self) -> int:
        return len(self._ask("kinds"))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, dict | list):
            raise UntraceableError("comparison of a tool's values")
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]


class ObjectStandIn(ValueStandIn, dict[str, Any]):
    """An object of JSON."""

    def __getitem__(self, key: Any) -> Any:
        return self._part(key)

    def get(self, key: Any, default: Any = None) -> Any:
        """As of a dict."""
        try:
            return self._part(key)
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        return self._ask("kind", key) != "missing"

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._ask("kinds")])

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))

    def keys(self) -> Any:
        """As of a dict."""
        return list(self)

    def values(self) -> Any:
        """As of a dict."""
        return [value for _, value in self.items()]

    def items(self) -> Any:
        """As of a dict."""
        return [(name, self._made(kind, name)) for name, kind in self._ask("kinds")]


class ListStandIn(ValueStandIn, list[Any]):
    """A list of JSON."""

    def _items(self) -> list[Any]:
        return [self._made(kind, number) for number, kind in enumerate(self._ask("kinds"))]

    def __getitem__(self, key: Any) -> Any:
        return self._items()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items())

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._items())

    def __contains__(self, item: object) -> bool:
        return self._ask("contains", item)


def stand_in_for(kind: str, trace: Trace, slot: Slot) -> Any:
    """The stand-in for an `object` or a `list`."""
    value: Any = ObjectStandIn() if kind == "object" else ListStandIn()
    value._trace, value._slot = trace, slot
    return value


def item_slot(slot: Slot, key: Any) -> Slot:
    """The slot of what stands at a key of the value in a slot."""
    key = key.slot if isinstance(key, Tracked) else key
    return replace(slot, operations=(*slot.operations, ("__getitem__", (key,), None)))


def json_slot(
    value: ValueStandIn,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> Tracked:
    """The JSON of a value as one slot; arguments are those of the filter tojson."""
    arguments = (ensure_ascii, indent, separators and tuple(separators), sort_keys)
    slot = value._slot
    return value._trace.stand_in(replace(slot, operations=(*slot.operations, ("tojson", arguments, None))))


def shows_calls(calls: ValueStandIn, slots: Sequence[Slot]) -> bool:
    """Whether the name of each call in a list's stand-in is written in one of these slots, alone or with more of it."""
    written = set()
    for leaf in (leaf for slot in slots for leaf in slot.leaves()):
        if (leaf.message, leaf.field) == (calls._slot.message, calls._slot.field):
            path = [operation for operation in leaf.operations if operation[0] not in ("tojson", "json", "strip")]
            written.add(tuple(path))
    for number in range(len(calls)):
        name = item_slot(item_slot(item_slot(calls._slot, number), "function"), "name").operations
        if not any(name[:length] in written for length in range(len(name) + 1)):
            return False
    return True


def raw(value: Any) -> Any:
    """What a value stands for, unnoted; itself where it is no stand-in."""
    if isinstance(value, ValueStandIn):
        return value._slot.value(value._trace.texts)
    return value.slot.value(value.trace.texts) if isinstance(value, Tracked) else value


_SCALARS: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: text == "True",
    "int": int,
    "float": float,
    "NoneType": lambda _: None,
}


def _refused(method: str) -> Callable[..., Any]:
    def refused(self: Any, *arguments: Any, **keywords: Any) -> Any:
        raise UntraceableError(f"{method} of a tool's values")

    return refused


for _class, _base in ((ObjectStandIn, dict), (ListStandIn, list)):
    for _name in dir(_base):
        known = any(_name in vars(each) for each in (_class, ValueStandIn))
        if not known and (_name[0] != "_" or _name in ("__str__", "__repr__", "__format__", "__add__", "__mul__",
            "__or__", "__ror__", "__rmul__", "__lt__", "__le__", "__gt__", "__ge__")):  # fmt: skip
            setattr(_class, _name, _refused(_name.strip("_")))
