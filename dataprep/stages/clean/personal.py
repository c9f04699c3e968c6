"""Personal data in contents, reasoning, tool outputs and string arguments: counted, replaced, or the row turned away.

A look at a conversation's JSON tells which kinds may stand in it; only where there are some is a message looked at.
`redact` puts marks such as [EMAIL]; `drop` names kinds and messages, never what was found, but the row stands in the
quarantine file as it came. Where a datum is a JSON number in a tool call's arguments, or a name there, `redact` leaves
it, since a mark would change what the call means, and counts it as seen.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from stringzilla import count, find, translate

from dataprep.stages.clean.cleaned import Clean, Cleaned
from dataprep.stages.clean.personal_kinds import KEY_MARKS, MARKS, Found, find_personal
from dataprep.stages.normalize.message import Message, ToolCall, rich_message
from dataprep.stages.normalize.reasons import TurnedAway
from schemas.errors import InputError

__all__ = ["MODES", "STEPS", "Found", "find_personal", "make_personal", "suspected_kinds"]

_NONE: frozenset[str] = frozenset()
MODES = ("off", "count", "redact", "drop")
STEPS = {kind: f"pii-{kind}" for kind in MARKS}

_NAMES = {
    "key": "a key or token",
    "email": "an e-mail address",
    "id": "an ID number",
    "card": "a card number",
    "phone": "a phone number",
    "ip": "an IP address",
}


def _classes() -> bytes:
    classes = bytearray(b"x" * 256)
    for char in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        classes[char] = classes[char + 32] = ord("a")
    for char in b"nrt":  # in JSON also the ends of \n, \r, \t, after which digits are common
        classes[char] = ord("x")
    for char in b"0123456789":
        classes[char] = ord("0")
    for char in b" -()":
        classes[char] = ord("-")
    for char in b".:@+":
        classes[char] = char
    return bytes(classes)


_CLASSES = _classes()
_RUNS = (b"0000000", b"0-0000", b"+0", b"000.000.0000")  # one is in each phone, ID and card number
_OCTETS = (b".0.0", b".00.0", b".000.0")  # one is in each IPv4 address
_KEY_BYTES = tuple(mark.encode() for mark in (*KEY_MARKS, "PRIVATE KEY", "earer"))

_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?', re.DOTALL)  # with what follows a name
_PIECE = re.compile(r"\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|\\u\w{4}|\\.|.", re.DOTALL)  # what stands for a character


def make_personal(mode: str) -> Clean | None:
    """Make the step for a mode of MODES; None for `off`. InputError where the libraries that it needs are missing."""
    assert mode in MODES
    if mode == "off":
        return None
    if not (find_spec("phonenumbers") and find_spec("stdnum")):
        raise InputError(f"--pii {mode} needs phonenumbers and python-stdnum: pip install 'sftpack[pii]'")

    def clean(messages: list[Message], canonical: bytes) -> Cleaned | None:
        kinds = suspected_kinds(canonical)
        if not kinds:
            return None
        looked = [_look(message, kinds) for message in messages]
        marked = _steps(kind for look in looked for kind in look.marked)
        left = _steps(kind for look in looked for kind in look.left)
        if not marked and not left:
            return None
        if mode == "drop":
            raise TurnedAway("personal-data", _detail(looked))
        if mode == "count":
            return Cleaned(messages=messages, seen=_steps(kind for look in looked for kind in look.marked | look.left))
        return Cleaned(messages=[look.message for look in looked] if marked else messages, changed=marked, seen=left)

    return clean


def suspected_kinds(canonical: bytes) -> frozenset[str]:
    """The kinds that may stand in a conversation, by a look at its JSON, each byte brought down to its class."""
    classes = translate(canonical, _CLASSES)
    kinds = []
    if find(classes, b"@") >= 0:
        kinds.append("email")
    digits = count(classes, b"0")
    long = digits >= 7 and _any(classes, _RUNS)
    if long:
        kinds += ["id", "card", "phone"]
    if digits >= 4 and (_may_hold_ipv4(classes) or _may_hold_ipv6(classes)):
        kinds.append("ip")
    # Keys have digits within or after letters, all but Hugging Face's.
    mixed = long or (digits >= 2 and find(classes, b"a0") >= 0)
    if (mixed and _any(canonical, _KEY_BYTES)) or find(canonical, b"hf_") >= 0:
        kinds.append("key")
    return frozenset(kinds) if kinds else _NONE


def _may_hold_ipv4(classes: bytes) -> bool:
    return count(classes, b"0.0") >= 2 and _any(classes, _OCTETS)


def _may_hold_ipv6(classes: bytes) -> bool:
    return count(classes, b":") >= 2 and (find(classes, b"::") >= 0 or count(classes, b"0:") >= 3)


def _any(data: bytes, needles: tuple[bytes, ...]) -> bool:
    for needle in needles:  # noqa: SIM110 - a generator would cost more than the searches
        if find(data, needle) >= 0:
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Look:
    """A message with marks, the kinds that were marked, and the kinds in it that no mark can replace."""

    message: Message
    marked: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()


def _look(message: Message, kinds: frozenset[str]) -> _Look:
    role, content, reasoning, tool_calls, *rest = message + (None,) * (7 - len(message))
    marked: set[str] = set()
    left: set[str] = set()
    content = _mark(content, kinds, marked)
    reasoning = _mark(reasoning, kinds, marked) if reasoning else reasoning
    calls: list[ToolCall] = []
    for call_id, name, arguments in tool_calls or ():
        left.update(found.kind for found in find_personal(_STRING.sub(_without_value, arguments), kinds))
        calls.append((call_id, name, _STRING.sub(lambda match: _mark_string(match, kinds, marked), arguments)))
    if not marked:
        return _Look(message, left=frozenset(left))
    name, tool_call_id, train = rest
    message = rich_message(
        role,
        content,
        reasoning=reasoning,
        tool_calls=tuple(calls) if tool_calls else tool_calls,
        name=name,
        tool_call_id=tool_call_id,
        train=train,
    )
    return _Look(message, frozenset(marked), frozenset(left))


def _mark(text: str, kinds: frozenset[str], marked: set[str]) -> str:
    found = find_personal(text, kinds)
    marked.update(one.kind for one in found)
    return _with_marks(text, found)


def _with_marks(pieces: str | list[str], found: list[Found]) -> str:
    parts: list[str] = []
    start = 0
    for one in found:
        parts += [*pieces[start : one.start], MARKS[one.kind]]
        start = one.stop
    return "".join([*parts, *pieces[start:]]) if found else "".join(pieces)


def _mark_string(match: re.Match[str], kinds: frozenset[str], marked: set[str]) -> str:
    """A string of some JSON with marks, unless it is a name; what isn't marked stays as it was written."""
    if match[2] is not None:
        return match[0]
    pieces = _PIECE.findall(match[1])
    text = "".join(piece if len(piece) == 1 else json.loads(f'"{piece}"') for piece in pieces)
    found = find_personal(text, kinds)
    marked.update(one.kind for one in found)
    return f'"{_with_marks(pieces, found)}"' if found else match[0]


def _without_value(match: re.Match[str]) -> str:
    return '""' if match[2] is None else match[0]


def _steps(kinds: Iterable[str]) -> tuple[str, ...]:
    some = set(kinds)
    return tuple(step for kind, step in STEPS.items() if kind in some)


def _detail(looked: list[_Look]) -> str:
    parts = []
    for number, look in enumerate(looked, 1):
        names = [name for kind, name in _NAMES.items() if kind in look.marked | look.left]
        if names:
            parts.append(f"message {number} has {', '.join(names)}")
    more = f" and {len(parts) - 3} more messages" if len(parts) > 4 else ""
    return "; ".join(parts[:3] if more else parts) + more
