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
    kind: str
    tip: str


def sankey(figures: Figures) -> str:
    """Draw the flow of a cache that holds at least one row."""
    columns, links = _graph(figures)
    height = _place(columns)
    titles = ["rows", "sources", "what became of them", "tokens", "what they are"]
    if len(columns[1]) == 0:
        columns, titles = [columns[0], *columns[2:]], [titles[0], *titles[2:]]
    columns = [column for column in columns if column]
    step = (_WIDTH - _MARGIN - _NODE) / max(1, len(columns) - 1)
    at = {id(node): number * step for number, column in enumerate(columns) for node in column}
    rows = figures.rows
    label = f"Flow of {rows.rows:,} rows: {rows.ready:,} ready" + (
        f"; of {figures.tokens.tokens:,} tokens {figures.tokens.targets:,} are targets" if figures.tokens else ""
    )
    parts = [
        f'<svg class="sankey" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">',
        *(
            f'<text class="axis" x="{number * step:.1f}" y="12">{titles[number]}</text>'
            for number in range(len(columns))
        ),
        *(_ribbon(link, at[id(link.start)] + _NODE, at[id(link.end)]) for link in links),
        *(_drawn(node, at[id(node)]) for column in columns for node in column),
    ]
    return "".join(parts) + "</svg>"


def _graph(figures: Figures) -> tuple[list[list[_Node]], list[_Link]]:
    """Nodes by column, and links; a link's size is in rows."""
    rows, tokens = figures.rows, figures.tokens
    total = rows.rows + rows.branched
    top = _Node(
        column=0, name="rows and branches" if rows.branched else "rows", kind="neutral", value=total, size=total
    )
    table = _outcomes(figures)
    outcomes = sum(table.values(), Counter())
    outcomes[READY] = rows.ready
    names = [READY, *(name for name, _ in outcomes.most_common() if name != READY)]
    ends = {name: _Node(column=2, name=name, kind="lost", value=outcomes[name], size=outcomes[name]) for name in names}
    ready = ends[READY]
    ready.kind = "good"
    ready.name = READY if tokens else "kept"
    columns: list[list[_Node]] = [[top], [], list(ends.values()), [], []]
    links = []
    for name, counts in table.items():
        size = counts.total()
        start = top
        if len(table) > 1:
            start = _Node(column=1, name=name, kind="neutral", value=size, size=size)
            columns[1].append(start)
            links.append(_link(top, start, size, "neutral", size, total))
        for outcome, end in ends.items():
            if count := counts[outcome]:
                links.append(_link(start, end, count, end.kind, count, size))
    if rows.joined:
        joined = _Node(column=1, name="joined to others", kind="neutral", value=rows.joined, size=rows.joined)
        columns[1].append(joined)
        links.append(_link(top, joined, rows.joined, "neutral", rows.joined, total))
    if tokens is not None:
        whole = tokens.tokens + tokens.repeated
        title = "with copies" if tokens.repeated else "tokens"
        middle = _Node(column=3, name=title, kind="good", value=whole, size=rows.ready)
        columns[3].append(middle)
        links.append(_Link(start=ready, end=middle, size=rows.ready, kind="good", tip=f"{rows.ready:,} conversations"))
        shares = {"targets": tokens.targets, "context": tokens.context}
        kinds = {"targets": "target", "context": "neutral"}
        for name, count in (shares | tokens.cut).items():
            tall = rows.ready * count / max(1, whole)
            node = _Node(column=4, name=name, kind=kinds.get(name, "lost"), value=count, size=tall)
            columns[4].append(node)
            links.append(_link(middle, node, tall, node.kind, count, whole))
    return columns, links


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


def _link(start: _Node, end: _Node, size: float, kind: str, value: int, whole: int) -> _Link:
    return _Link(start=start, end=end, size=size, kind=kind, tip=f"{value:,} ({percent(value, whole)})")


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
    return f'<path class="ribbon {link.kind}" d="{path}"><title>{tip}</title></path>'


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
