"""The ledger as a Sankey diagram: rows by source to what became of them, and on to tokens, as inline SVG.

Heights are rows on the left and tokens on the right; the tokens are as tall as the rows that they come from. Each
label has a slot of its own in its column, so that none overlaps another.
"""

from collections import Counter
from dataclasses import dataclass
from html import escape
from unicodedata import east_asian_width

from dataprep.report.charts import percent
from dataprep.report.figures import Figures
from schemas.manifest import TokenLedger

_WIDTH, _NODE, _SLOT, _GAP, _TOP, _MARGIN = 1_080, 10, 19, 5, 26, 178
_SOURCES, _REASONS = 9, 8
_LABEL_WIDTH = 27  # in columns of a terminal
READY = "ready"


@dataclass(slots=True, kw_only=True)
class _Node:
    column: int
    name: str
    kind: str  # class of its colour
    value: int
    size: float  # rows, or what is drawn as such
    y: float = 0.0
    height: float = 0.0
    middle: float = 0.0  # of its slot
    taken_in: float = 0.0
    taken_out: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    start: _Node
    end: _Node
    size: float
    tip: str


def sankey(figures: Figures) -> str:
    """Draw the flow of a cache that holds at least one row."""
    columns, links = _graph(figures)
    height = _place(columns)
    titles = ["rows", "sources", "what became of them", "tokens", "what they are"]
    titles = [title for title, column in zip(titles, columns, strict=False) if column]
    columns = [column for column in columns if column]
    step = (_WIDTH - _MARGIN - _NODE) / max(1, len(columns) - 1)
    at = {id(node): number * step for number, column in enumerate(columns) for node in column}
    rows = figures.rows
    label = f"Flow of {rows.rows:,} rows: {rows.ready:,} ready" + (
        f"; of {figures.tokens.tokens:,} tokens {figures.tokens.targets:,} are targets" if figures.tokens else ""
    )
    parts = [
        f'<svg class="sankey" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">',
        *(f'<text class="axis" x="{number * step:.1f}" y="12">{title}</text>' for number, title in enumerate(titles)),
        *(_ribbon(link, at[id(link.start)] + _NODE, at[id(link.end)]) for link in links),
        *(_drawn(node, at[id(node)]) for column in columns for node in column),
    ]
    return "".join(parts) + "</svg>"


def _graph(figures: Figures) -> tuple[list[list[_Node]], list[_Link]]:
    """Nodes by column, and links; a link's size is in rows."""
    rows = figures.rows
    total = rows.rows + rows.branched
    top = _node(0, "rows and branches" if rows.branched else "rows", "neutral", total)
    table = _outcomes(figures)
    outcomes = sum(table.values(), Counter())
    ends = {READY: _node(2, READY if figures.tokens else "kept", "good", rows.ready)}
    ends |= {name: _node(2, name, "lost", count) for name, count in outcomes.most_common() if name != READY}
    sources: list[_Node] = []
    links = []
    for name, counts in table.items():
        size = counts.total()
        start = top
        if len(table) > 1:
            start = _node(1, name, "neutral", size)
            sources.append(start)
            links.append(_link(top, start, size, total))
        links += [_link(start, end, counts[name], size) for name, end in ends.items() if counts[name]]
    if rows.joined:
        sources.append(_node(1, "joined to others", "neutral", rows.joined))
        links.append(_link(top, sources[-1], rows.joined, total))
    columns = [[top], sources, list(ends.values())]
    if figures.tokens is not None:
        columns += _token_columns(figures.tokens, ends[READY], links)
    return columns, links


def _token_columns(tokens: TokenLedger, ready: _Node, links: list[_Link]) -> list[list[_Node]]:
    """The tokens and what they are, as tall as the rows that are ready; adds their links."""
    whole = tokens.tokens + tokens.repeated
    middle = _node(3, "with copies" if tokens.repeated else "tokens", "good", whole, ready.size)
    links.append(_Link(start=ready, end=middle, size=ready.size, tip=f"{ready.value:,} conversations"))
    shares = {"targets": tokens.targets, "context": tokens.context}
    kinds = {"targets": "target", "context": "neutral"}
    last = [
        _node(4, name, kinds.get(name, "lost"), count, ready.size * count / max(1, whole))
        for name, count in (shares | tokens.cut).items()
    ]
    links += [_link(middle, node, node.value, whole) for node in last]
    return [[middle], last]


def _node(column: int, name: str, kind: str, value: int, size: float | None = None) -> _Node:
    return _Node(column=column, name=name, kind=kind, value=value, size=value if size is None else size)


def _outcomes(figures: Figures) -> dict[str, Counter[str]]:
    """Source -> outcome -> conversations; the largest sources and most frequent reasons, the others as one."""
    table = {source.name: Counter(source.turned_away) + Counter({READY: source.ready}) for source in figures.sources}
    sizes = Counter({name: counts.total() for name, counts in table.items() if counts})
    reasons = sum(table.values(), Counter())
    del reasons[READY]
    source_names, reason_names = _grouped(sizes, _SOURCES, "sources"), _grouped(reasons, _REASONS, "reasons")
    shown: dict[str, Counter[str]] = {name: Counter() for name in source_names.values()}
    for source, name in source_names.items():
        for outcome, count in table[source].items():
            shown[name][reason_names.get(outcome, outcome)] += count
    return shown


def _grouped(counts: Counter[str], number: int, what: str) -> dict[str, str]:
    """The name that each is shown by, the largest first: its own, or that of all the small ones together."""
    names = [name for name, _ in counts.most_common()]
    own = len(names) if len(names) <= number + 1 else number
    return {name: name if place < own else f"{len(names) - own:,} more {what}" for place, name in enumerate(names)}


def _link(start: _Node, end: _Node, value: int, whole: int) -> _Link:
    size = end.size * value / end.value if end.column > 2 and end.value else value
    return _Link(start=start, end=end, size=size, tip=f"{value:,} ({percent(value, whole)})")


def _place(columns: list[list[_Node]]) -> float:
    """Give each node its slot; returns the drawing's height."""
    most = max(len(column) for column in columns)
    height = max(300.0, most * (_SLOT + _GAP) + 60.0)
    low, high = 0.0, height / max(1.0, *(node.size for column in columns for node in column))
    for _ in range(40):
        scale = (low + high) / 2
        fits = all(_extent(column, scale) <= height for column in columns)
        low, high = (scale, high) if fits else (low, scale)
    for column in columns:
        y = float(_TOP)
        for node in column:
            node.height = max(1.0, node.size * low)
            slot = max(node.height, _SLOT)
            node.y, node.middle = y + (slot - node.height) / 2, y + slot / 2
            y += slot + _GAP
    return height + _TOP + 4


def _extent(column: list[_Node], scale: float) -> float:
    return sum(max(node.size * scale, _SLOT) for node in column) + _GAP * (len(column) - 1)


def _ribbon(link: _Link, x1: float, x2: float) -> str:
    out, into = _share(link.start, link.size), _share(link.end, link.size)
    y1, y2 = link.start.y + link.start.taken_out, link.end.y + link.end.taken_in
    link.start.taken_out += out
    link.end.taken_in += into
    half = (x1 + x2) / 2
    path = (
        f"M{x1:.1f},{y1:.1f}C{half:.1f},{y1:.1f} {half:.1f},{y2:.1f} {x2:.1f},{y2:.1f}"
        f"V{y2 + into:.1f}C{half:.1f},{y2 + into:.1f} {half:.1f},{y1 + out:.1f} {x1:.1f},{y1 + out:.1f}Z"
    )
    tip = escape(f"{link.start.name} → {link.end.name}: {link.tip}")
    return f'<path class="ribbon {link.end.kind}" d="{path}"><title>{tip}</title></path>'


def _share(node: _Node, size: float) -> float:
    return node.height * size / node.size if node.size else 0.0


def _drawn(node: _Node, x: float) -> str:
    count = f"{node.value:,}"
    name = clipped(node.name, _LABEL_WIDTH - len(count))
    tip = escape(f"{node.name}: {count}")
    return (
        f'<g class="node"><title>{tip}</title>'
        f'<rect class="{node.kind}" x="{x:.1f}" y="{node.y:.1f}" width="{_NODE}" height="{node.height:.1f}"/>'
        f'<text x="{x + _NODE + 6:.1f}" y="{node.middle + 4:.1f}">{escape(name)} '
        f'<tspan class="count">{count}</tspan></text></g>'
    )


def clipped(name: str, width: int) -> str:
    """`name` in at most `width` columns, a wide character taking two."""
    taken = 0
    for number, character in enumerate(name):
        taken += 2 if east_asian_width(character) in "WF" else 1
        if taken > width:
            return name[: max(1, number - 1)] + "…"
    return name
