"""Small pieces of HTML and numbers in words, for the sections of the page."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with a head; columns whose first cell is no number are text, as the first one always is."""
    rows = [tuple(row) for row in rows]
    if not rows:
        return ""
    kinds = ["" if _is_number(value) else ' class="text"' for value in rows[0][1:]]
    body = "".join(
        f"<tr><th>{escape(str(first))}</th>"
        + "".join(f"<td{kind}>{_written(value)}</td>" for kind, value in zip(kinds, rest, strict=True))
        + "</tr>"
        for first, *rest in rows
    )
    names = f"<th>{escape(head[0])}</th>"
    names += "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, head[1:], strict=True))
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


def _written(value: Any) -> str:
    return escape(f"{value:,}" if isinstance(value, int) else str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or str(value).removeprefix("+").removeprefix("-")[:1] in set("0123456789–<")
