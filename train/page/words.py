"""Small pieces of HTML and numbers in words, for the sections of the page."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with a head; what is no number in a cell but the first is text."""
    body = "".join(
        f"<tr><th>{escape(str(first))}</th>{''.join(_cell(value) for value in rest)}</tr>" for first, *rest in rows
    )
    if not body:
        return ""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="scroll"><table class="data"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def pairs(rows: dict[str, Any]) -> str:
    """Names and what they are; those without a value are left out."""
    shown = {name: value for name, value in rows.items() if value not in (None, "")}
    cells = (f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in shown.items())
    return f'<dl class="about">{"".join(cells)}</dl>' if shown else ""


def folded(title: str, body: str) -> str:
    """A part that opens when it is clicked."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>" if body else ""


def share(part: float, whole: float) -> str:
    """1, 8 -> 12.5%."""
    return f"{part / whole:.1%}" if whole else "–"


def duration(seconds: float) -> str:
    """90 -> 1 min 30 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def count(number: int, noun: str) -> str:
    """1, step -> 1 step; 1200, step -> 1,200 steps."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def large(number: float) -> str:
    """4_022_468_096 -> 4.02 billion, 596_049_920 -> 596 million, 12_345 -> 12,345."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {word}"
    return f"{number:,.0f}"


def _cell(value: Any) -> str:
    kind = "" if _is_number(value) else ' class="text"'
    return f"<td{kind}>{escape(f'{value:,}' if isinstance(value, int) else str(value))}</td>"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and bool(value) and value[0] in "0123456789–+-<")
