"""A chat template rendered over stand-ins (core/trace.py): its joins and filters keep track of the marks in texts."""

import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from jinja2 import Environment, nodes

from dataprep.core.trace import Trace, Tracked, UntraceableError
from dataprep.core.trace_values import ValueStandIn, json_slot

# Around the slot of a whole value inside a string of JSON; both go together with the string's quotes.
_OPEN, _CLOSE = "\U000ffffe", "\U000fffff"
_WHOLE_VALUE = re.compile(f'"{_OPEN}(.){_CLOSE}"')

# Filters that only call methods of the string they are given, which answers for itself.
_SAFE_FILTERS = {"trim", "string", "default", "d", "upper", "lower", "tojson", "count", "length"}


class TracedTemplate:
    """A chat template compiled in a copy of its official environment whose joins and filters keep track of marks."""

    def __init__(self, official: Environment, source: str) -> None:
        self._trace = Trace({})
        environment = official.overlay()
        environment.concat = self._concat  # type: ignore[method-assign]
        environment.filters = {name: self._guarded(name, call) for name, call in official.filters.items()}
        environment.filters["tojson"] = self._tracked_tojson(official.filters["tojson"])
        environment.filters["replace"] = self._replaced
        environment.globals = {**official.globals, "_join": lambda *parts: self._concat(map(str, parts))}
        tree = environment.parse(source)
        _replace_tildes(tree)
        self._template = environment.from_string(tree)

    def render(self, trace: Trace, arguments: dict[str, Any]) -> str:
        """Render with the stand-ins of `trace`. Raises UntraceableError, or what the template itself raises."""
        self._trace = trace
        return str(self._template.render(arguments))

    def _concat(self, parts: Iterable[str]) -> str:
        return self._trace.tracked("".join(parts))

    def _guarded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def guarded(*arguments: Any, **keywords: Any) -> Any:
            if name not in _SAFE_FILTERS and any(isinstance(argument, Tracked) for argument in arguments):
                raise UntraceableError(f"filter {name} of a text")
            result = call(*arguments, **keywords)
            return self._trace.tracked(result) if type(result) is str else result

        return guarded

    def _replaced(self, text: Any, old: Any, new: Any, count: int | None = None) -> str:
        """Jinja's `replace`, by the text's own method."""
        text = text if isinstance(text, str) else str(text)
        if isinstance(old, Tracked) and not isinstance(text, Tracked):
            raise UntraceableError("replacement of a text")
        result = text.replace(old, new, -1 if count is None else count)
        return self._trace.tracked(result) if type(result) is str else result

    def _tracked_tojson(self, official: Callable[..., str]) -> Callable[..., str]:
        """The official filter, but texts inside come out as slots whose value is their JSON escape."""

        def tojson(value: Any, ensure_ascii: bool = False, *arguments: Any, **keywords: Any) -> str:
            if isinstance(value, ValueStandIn):
                return json_slot(value, ensure_ascii, *arguments, **keywords)
            held = list(_held(value))
            if ensure_ascii and held:
                raise UntraceableError("ASCII JSON of a text")
            if (arguments or keywords) and any(isinstance(each, ValueStandIn) for each in held):
                raise UntraceableError("formatted JSON around a tool's values")
            text = official(_escaped(value), ensure_ascii, *arguments, **keywords)
            return self._trace.tracked(_WHOLE_VALUE.sub(r"\1", text) if held else text)

        return tojson


def _replace_tildes(tree: nodes.Node) -> None:
    """`a ~ b` joins inside Jinja's runtime, out of sight; make it a call that keeps track."""
    for parent in [tree, *tree.find_all(nodes.Node)]:
        for name, value in parent.iter_fields():
            if isinstance(value, nodes.Concat):
                setattr(parent, name, _join_call(value))
            elif isinstance(value, list):
                value[:] = [_join_call(item) if isinstance(item, nodes.Concat) else item for item in value]


def _join_call(concat: nodes.Concat) -> nodes.Call:
    name = nodes.Name("_join", "load", lineno=concat.lineno)
    call = nodes.Call(name, concat.nodes, [], None, None, lineno=concat.lineno)
    call.environment = concat.environment
    return call


def _held(value: Any) -> Iterable[Tracked | ValueStandIn]:
    """The stand-ins in a value."""
    if isinstance(value, Tracked | ValueStandIn):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _held(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _held(item)


def _escaped(value: Any) -> Any:
    if isinstance(value, Tracked):
        return str(value._derived(("json", (), None)))
    if isinstance(value, ValueStandIn):
        return f"{_OPEN}{json_slot(value)!s}{_CLOSE}"
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value
