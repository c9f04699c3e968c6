"""Charts as inline SVG that takes its colours from the page: histograms and lines. Numbers are written beside them."""

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from math import log

from dataprep.report.figures import Distribution

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 190, 44, 8, 20, 36
_WIDE = 480
_CHARACTER = 7.4  # width of one in a label


def short(number: float) -> str:
    """12 -> 12, 4096 -> 4,096, 53_941_722 -> 53.9 M."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 100 * size else f"{number / size:,.0f}{unit}"
    return f"{number:,.0f}"


def percent(part: float, whole: float) -> str:
    """A share; never rounded to 0% or 100% unless it is that."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<0.1%"
    if 99.9 < share < 100:
        return ">99.9%"
    return f"{share:.0f}%" if share in (0, 100) else f"{share:.1f}%"


def histogram(
    values: Distribution,
    title: str,
    *,
    what: str,
    labels: Sequence[str] | None = None,
    mark: tuple[float, str] | None = None,
) -> str:
    """Bars of equal width, one a bin, labelled at powers of two or, in the middle, with `labels`.

    `mark` draws a line at a value, placed within its bin by its logarithm.
    """
    count, top = len(values.counts), _rounded_up(max(1, *values.counts))
    step = (_WIDTH - _LEFT - _RIGHT) / count
    floor = _HEIGHT - _BOTTOM
    parts = [_head(f"{title}: {_told(values)}", _WIDTH), *_grid(top)]
    for number, size in enumerate(values.counts):
        tall = size / top * (floor - _TOP)
        bin_name = labels[number] if labels else _range(values.edges[number], values.edges[number + 1])
        parts.append(
            f'<rect class="bar" x="{_LEFT + number * step + 0.5:.1f}" y="{floor - tall:.1f}" '
            f'width="{max(1.0, step - 1):.1f}" height="{tall:.1f}">'
            f"<title>{escape(bin_name)} {escape(what)}: {size:,}</title></rect>"
        )
    if labels:
        places = [(_LEFT + (number + 0.5) * step, name) for number, name in enumerate(labels)]
    else:
        edges = list(enumerate(values.edges))
        places = [(_LEFT + n * step, _brief(edge)) for n, edge in edges if edge.bit_count() == 1 and edge > 1]
    parts += _below(places, floor + 14)
    if mark is not None:
        parts.append(_mark(values, mark, step, floor))
    parts.append(f'<text class="axis" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 5}" text-anchor="end">{escape(what)}</text>')
    return "".join(parts) + "</svg>"


def bin_names(values: Distribution) -> list[str]:
    """A name for each bin of whole numbers: 2, or 13–16."""
    return [
        f"{low}" if high == low + 1 else f"{low}–{high - 1}"
        for low, high in zip(values.edges[:-1], values.edges[1:], strict=True)
    ]


def lines(
    names: Sequence[str], series: Sequence[tuple[str, str, Sequence[float]]], title: str, *, mark: int | None
) -> str:
    """Shares in per cent over named points; each series has a name, a class and its values. `mark`: a point."""
    highest = max([1e-9, *(value for _, _, values in series for value in values)])
    top = next(limit for limit in (0.1, 1, 5, 10, 25, 50, 100) if highest <= limit)
    floor = _HEIGHT - _BOTTOM
    step = (_WIDE - _LEFT - _RIGHT - 40) / max(1, len(names) - 1)
    parts = [_head(title, _WIDE)]
    for share in (0, 0.5, 1):
        y = floor - share * (floor - _TOP)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * top:g}%</text>')
    places = [_LEFT + 20 + number * step for number in range(len(names))]
    if mark is not None:
        parts.append(f'<line class="mark" x1="{places[mark]:.1f}" x2="{places[mark]:.1f}" y1="{_TOP}" y2="{floor}"/>')
    for x, name in zip(places, names, strict=True):
        parts.append(f'<text x="{x:.1f}" y="{floor + 14}" text-anchor="middle">{escape(name)}</text>')
    for name, kind, values in series:
        points = [(x, floor - value / top * (floor - _TOP)) for x, value in zip(places, values, strict=True)]
        parts.append(f'<polyline class="line {kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        for (x, y), label, value in zip(points, names, values, strict=True):
            tip = f"{label}: {value:.2f}% of {name}"
            parts.append(f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{tip}</title></circle>')
    return "".join(parts) + "</svg>"


def _head(label: str, width: int) -> str:
    return f'<svg class="chart" viewBox="0 0 {width} {_HEIGHT}" role="img" aria-label="{escape(label)}">'


def _below(places: Sequence[tuple[float, str]], y: int) -> list[str]:
    """The labels, or every second, third, … of them, so that none touches the next."""
    stride = 1
    while any(
        right - left < (len(first) + len(second) + 1) * _CHARACTER / 2
        for (left, first), (right, second) in pairwise(places[::stride])
    ):
        stride += 1
    return [f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(name)}</text>' for x, name in places[::stride]]


def _told(values: Distribution) -> str:
    return f"half are {values.p50:,} or less, 99% {values.p99:,} or less, the most is {values.max:,}"


def _grid(top: int) -> list[str]:
    floor, parts = _HEIGHT - _BOTTOM, []
    for value in (0, top / 2, top) if top % 2 == 0 else (0, top):
        y = floor - value / top * (floor - _TOP)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    return parts


def _rounded_up(number: int) -> int:
    """The next of 1, 2, 4, 6, 8, 10, 12, 16, 20, 30, 40, 60, 80, 100, 120, …"""
    if number <= 2:
        return number
    size = 10 ** (len(str(number)) - 2) if number >= 10 else 1
    steps = (2, 4, 6, 8, 10, 12, 16, 20, 30, 40, 60, 80, 100)
    return next(step * size for step in steps if step * size >= number)


def _mark(values: Distribution, mark: tuple[float, str], step: float, floor: int) -> str:
    value, name = mark
    edges = values.edges
    place = len(edges) - 1.0
    for number in range(len(edges) - 1):
        low, high = max(1, edges[number]), max(2, edges[number + 1])
        if value < high:
            place = number + max(0.0, log(max(value, low) / low) / log(high / low))
            break
    beyond = value > edges[-1]
    x = _LEFT + min(place, len(edges) - 1.0) * step
    anchor, shift = ("end", -4) if x > _WIDTH - 110 else ("start", 4)
    text = name + (" →" if beyond else "")
    return (
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{floor}"/>'
        f'<text class="mark-name" x="{x + shift:.1f}" y="14" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _range(low: int, high: int) -> str:
    return f"{low:,}" if high == low + 1 else f"{low:,} to {high - 1:,}"


def _brief(number: int) -> str:
    """16384 -> 16k, 1024 -> 1k, 512 -> 512."""
    for size, unit in ((1 << 20, "M"), (1 << 10, "k")):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number}"
