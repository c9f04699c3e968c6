"""Measures over steps as inline SVG that takes its colours from the page; a script shows values at the pointer."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 210, 52, 12, 10, 24
WIDE, NARROW = 960, 470
MAX_POINTS = 300
LOG_FROM = 30.0  # from the highest over the median on, a chart with a floor of zero gets a logarithmic scale

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One curve."""

    name: str
    kind: str  # the page's class for its colour
    points: Points  # step and value
    dots: bool = False  # whether each value is marked


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Curves over the same steps."""

    title: str
    lines: Sequence[Line]
    last_step: int
    marks: Sequence[int] = ()  # steps at which the run was taken up again
    unit: str = ""  # behind values: %, GiB
    from_zero: bool = False
    wide: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Band:
    """A curve thinned out to what can be seen: means, and the lowest and highest behind each."""

    means: list[tuple[int, float]]
    lows: list[float]
    highs: list[float]


def figure(chart: Chart) -> str:
    """The chart with its title and key as an HTML figure; nothing where there are no values."""
    lines = [line for line in chart.lines if any(math.isfinite(value) for _, value in line.points)]
    if not lines:
        return ""
    width = WIDE if chart.wide else NARROW
    bands = [_thinned(line.points) for line in lines]
    scale = _scale(chart, bands, width)
    parts = [f'<svg class="chart" viewBox="0 0 {width} {_HEIGHT}" role="img" aria-label="{escape(chart.title)}">']
    parts += _grid(chart, scale, width)
    for line, band in zip(lines, bands, strict=True):
        parts += _curve(line, band, scale)
    parts.append("</svg>")
    named = len(lines) > 1 or chart.wide
    key = "".join(f'<span class="key {line.kind}">{escape(line.name)}</span>' for line in lines) if named else ""
    kind = "block wide" if chart.wide else "block"
    return (
        f'<figure class="{kind}" data-chart="{escape(_told(lines, bands, chart, scale))}">'
        f'<figcaption><b>{escape(chart.title)}</b> {key}<output class="dim"></output></figcaption>'
        f'<div class="plot">{"".join(parts)}</div></figure>'
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    low: float
    high: float
    last: int
    width: int
    logarithmic: bool

    def x(self, step: int) -> float:
        return _LEFT + step / max(1, self.last) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _thinned(points: Points) -> _Band:
    """1,000 points -> 250 means of 4, with the lowest and highest of each four."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    stride = max(1, -(-len(finite) // MAX_POINTS))
    groups = [finite[start : start + stride] for start in range(0, len(finite), stride)]
    means = [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
    lows = [min(value for _, value in group) for group in groups]
    return _Band(means=means, lows=lows, highs=[max(value for _, value in group) for group in groups])


def _scale(chart: Chart, bands: Sequence[_Band], width: int) -> _Scale:
    lows = sorted(value for band in bands for value in band.lows)
    highs = sorted(value for band in bands for value in band.highs)
    low, high = lows[0], highs[-1]
    logarithmic = chart.from_zero and low > 0 and high > LOG_FROM * highs[len(highs) // 2]
    if chart.from_zero and not logarithmic:
        low = min(0.0, low)
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    if not logarithmic:
        low, high = low if chart.from_zero else low - room, high + room
    return _Scale(low=low, high=high, last=chart.last_step, width=width, logarithmic=logarithmic)


def ticks(low: float, high: float) -> list[float]:
    """Some round numbers: 0.12, 1.03 -> 0.2, 0.4, 0.6, 0.8, 1.0."""
    rough = (high - low) / 6
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * each for each in (1, 2, 5, 10) if size * each >= rough * 0.99)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """0.00012 -> 1.2e-4, 0.5 -> 0.5, 19250 -> 19.2k."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{digits.removesuffix('.0')}e{int(power)}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _grid(chart: Chart, scale: _Scale, width: int) -> list[str]:
    parts = []
    if scale.logarithmic:
        first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
        levels = [10.0**power for power in range(first, last + 1) if scale.low <= 10.0**power <= scale.high]
    else:
        levels = ticks(scale.low, scale.high)
    for level in levels:
        y = scale.y(level)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = escape(short(level) + chart.unit)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for step in ticks(0, max(4, chart.last_step)):
        if step <= chart.last_step:
            x = scale.x(int(step))
            parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{step:,.0f}</text>')
    for step in chart.marks:
        x = scale.x(step)
        tip = f"<title>taken up again behind step {step:,}</title>"
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">{tip}</line>')
    return parts


def _curve(line: Line, band: _Band, scale: _Scale) -> list[str]:
    places = [(scale.x(step), scale.y(value)) for step, value in band.means]
    parts = []
    if any(low < high for low, high in zip(band.lows, band.highs, strict=True)):
        steps = [scale.x(step) for step, _ in band.means]
        upper = [f"{x:.1f},{scale.y(high):.1f}" for x, high in zip(steps, band.highs, strict=True)]
        lower = [f"{x:.1f},{scale.y(low):.1f}" for x, low in zip(steps, band.lows, strict=True)]
        parts.append(f'<polygon class="band {line.kind}" points="{" ".join([*upper, *reversed(lower)])}"/>')
    parts.append(f'<polyline class="line {line.kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
    if line.dots or len(places) == 1:
        parts += [f'<circle class="dot {line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    return parts


def _told(lines: Sequence[Line], bands: Sequence[_Band], chart: Chart, scale: _Scale) -> str:
    """What the script shows under the pointer."""
    content = {
        "left": _LEFT / scale.width,
        "right": 1 - _RIGHT / scale.width,
        "last": max(1, scale.last),
        "unit": chart.unit,
        "lines": [
            {"name": line.name, "points": [[step, float(f"{value:.5g}")] for step, value in band.means]}
            for line, band in zip(lines, bands, strict=True)
        ],
    }
    return json.dumps(content, separators=(",", ":"))
