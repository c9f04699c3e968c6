"""Figures in, the report's sections out, as HTML. Whatever comes from data is escaped here."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode

from dataprep.report.charts import bin_names, histogram, lines, percent, short
from dataprep.report.figures import Distribution, Figures, SplitFigures, TextFigures, TokenFigures
from dataprep.report.flow import sankey

SOURCES_SHOWN = 1_000
_BARS = 12
_NUMERIC = re.compile(r"[<>]?[\d,.]+%?( / [\d.]+%)?|–|")
_LANGUAGES = {
    "": "too short to tell",
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "en": "English", "es": "Spanish", "fi": "Finnish",
    "fr": "French", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "sv": "Swedish",
    "la": "Latin (language)", "tr": "Turkish", "vi": "Vietnamese", "wuu": "Wu Chinese", "yue": "Cantonese",
    "zh": "Chinese", "zxx": "no language",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ToSamples:
    """A cell that leads to the samples of a source or reason."""

    text: str
    show: str  # conversations | turned_away
    by: str  # source | reason
    name: str


Cell = str | int | ToSamples


def verdict(figures: Figures) -> str:
    """The cache in one sentence."""
    rows, tokens = figures.rows, figures.tokens
    came = f"{rows.ready:,} conversations from {rows.rows:,} rows"
    if not (rows.branched or rows.joined):
        came = f"{rows.ready:,} of {rows.rows:,} rows"
    if rows.kept == 0:
        return f"Nothing was kept of {counted(rows.rows, 'row')}; the reasons are below."
    if tokens is None:
        became = came if "conversations" in came else f"{came} became conversations"
        if figures.stale:
            return f"{became}; the shards there were made of other conversations: run `dataprep tokenize` again."
        return f"{became}; they are not tokenised yet."
    packed = tokens.targets + tokens.context
    packs = sum(split.packs for split in figures.splits)
    fill = percent(packed, packs * figures.options.seq_len) if figures.options else "–"
    return (
        f"{came} are ready to train on: {short(packed)} tokens, {percent(tokens.targets, packed)} of them targets, "
        f"packs {fill} full."
    )


def counted(number: int, noun: str) -> str:
    """1 row, 2,000 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def headline(figures: Figures) -> str:
    """The few numbers to know first."""
    rows, tokens = figures.rows, figures.tokens
    items = [
        ("rows in", short(rows.rows), ""),
        ("ready" if tokens else "conversations kept", short(rows.ready), ""),
        ("turned away", short(sum(rows.reasons().values())), ""),
        ("sources", f"{len(figures.sources):,}", ""),
    ]
    if tokens:
        packed = tokens.targets + tokens.context
        items += [
            ("tokens packed", short(packed), ""),
            ("targets", f"{short(tokens.targets)}", "target"),
            *((f"{split.name} packs", f"{split.packs:,}", "") for split in figures.splits),
        ]
    if figures.text:
        items.append(("characters", short(figures.text.characters.total), ""))
    return "".join(f'<div><dt>{name}</dt><dd class="{kind}">{value}</dd></div>' for name, value, kind in items)


def ledger(figures: Figures) -> str:
    """Where rows and tokens went: the flow and two tables."""
    rows, tokens = figures.rows, figures.tokens
    entries: list[Sequence[Cell]] = [("rows", rows.rows, "")]
    entries += [("+ conversations beyond one a row", rows.branched, "")] if rows.branched else []
    entries += [("− rows joined to others", rows.joined, "")] if rows.joined else []
    whole = rows.rows + rows.branched - rows.joined
    entries.append(("ready" if tokens else "kept", rows.ready, percent(rows.ready, whole)))
    for reason, count in rows.reasons().items():
        stage = "tokenize" if reason not in rows.turned_away else "normalize"
        if reason in rows.refused and reason in rows.turned_away:
            stage = "normalize, tokenize"
        text = f"turned away: {reason} ({stage})"
        away = ToSamples(text=text, show="turned_away", by="reason", name=reason)
        entries.append((away, count, percent(count, whole)))
    tables = [table("Rows", ("", "rows", "share"), entries)]
    if tokens:
        total = tokens.tokens + tokens.repeated
        counted: list[Sequence[Cell]] = [("tokens of all that was tokenised", tokens.tokens, "")]
        counted += [("+ tokens of further copies", tokens.repeated, "")] if tokens.repeated else []
        counted += [
            ("targets", tokens.targets, percent(tokens.targets, total)),
            ("context", tokens.context, percent(tokens.context, total)),
            *((f"cut: {reason}", count, percent(count, total)) for reason, count in tokens.cut.items()),
        ]
        tables.append(table("Tokens", ("", "tokens", "share"), counted))
    drawn = f'<div class="scroll flow" tabindex="0" role="group" aria-label="flow diagram">{sankey(figures)}</div>'
    note = ""
    if tokens:
        note = "<p class=note>Heights stand for rows up to “ready”, for tokens from there on.</p>"
    return drawn + note + f'<div class="columns halves">{"".join(tables)}</div>'


def contents(figures: Figures) -> str:
    """Sources, formats, languages, roles and what was done to them, as bars."""
    text = figures.text
    if text is None:
        return ""
    blocks = [
        bars("Sources", {source.name: source.kept for source in figures.sources}, "conversations kept"),
        bars("Formats", figures.formats, "conversations kept"),
        bars("Scripts", text.scripts, "conversations, by the script of most of their text"),
    ]
    if text.languages:
        names = {_LANGUAGES.get(code, code): count for code, count in text.languages.items()}
        note = f"of those in Latin script, estimated from {counted(text.language_samples, 'sample')}"
        blocks.append(bars("Languages", names, note))
    blocks += [bars("Roles", text.roles, "messages"), _extras(text)]
    return f'<div class="columns">{"".join(blocks)}</div>'


def _extras(text: TextFigures) -> str:
    total = sum(text.scripts.values())
    said = text.content_characters + text.reasoning_characters
    entries: list[Sequence[Cell]] = [
        ("conversations with reasoning", text.with_reasoning, percent(text.with_reasoning, total)),
        ("characters of reasoning", text.reasoning_characters, percent(text.reasoning_characters, said)),
        ("conversations that define tools", text.with_tools, percent(text.with_tools, total)),
        ("conversations that call one", text.with_calls, percent(text.with_calls, total)),
        ("tool calls", text.calls, ""),
        ("messages of tools", text.tool_messages, percent(text.tool_messages, text.messages)),
    ]
    note = "Shares are of conversations, of what the assistant writes, and of messages."
    return table("Reasoning and tools", ("", "count", "share"), entries, note)


def cleaning(figures: Figures) -> str:
    """What cleaning changed and saw, duplicates, and how doubtful rows were read."""
    steps = list(dict.fromkeys([*figures.cleaned, *figures.seen]))
    blocks = []
    changes: list[Sequence[Cell]] = [(step, figures.cleaned.get(step, 0), figures.seen.get(step, 0)) for step in steps]
    if steps:
        note = "Seen: something was found and left as it was."
        blocks.append(table("Cleaning", ("step", "changed", "seen"), changes, note))
    copies = {name: count for name, count in figures.rows.reasons().items() if "duplicate" in name}
    if copies:
        whole = figures.rows.rows + figures.rows.branched - figures.rows.joined
        share: list[Sequence[Cell]] = [(name, n, percent(n, whole)) for name, n in copies.items()]
        blocks.append(table("Duplicates", ("", "turned away", "share"), share))
    body = f'<div class="columns">{"".join(blocks)}</div>' if blocks else ""
    if figures.readings:
        rows: list[Sequence[Cell]] = [(each.reading, each.rows, each.example) for each in figures.readings]
        note = "Of rows that could be read in two ways."
        body += table("Readings", ("read so", "rows", "such as"), rows, note)
    return body


def lengths(figures: Figures) -> str:
    """Histograms of turns, characters and tokens, and their percentiles."""
    text, tokens = figures.text, figures.lengths
    if text is None:
        return ""
    shown: list[tuple[str, Distribution, str, tuple[float, str] | None]] = [
        ("Turns", text.turns, "messages but system", None),
        ("Characters", text.characters, "characters", None),
    ]
    if tokens:
        seq_len = figures.options.seq_len if figures.options else 0
        shown.append(("Tokens", tokens.lengths, "tokens", (seq_len, f"seq_len {seq_len:,}")))
    charts = [
        figure(
            f"{name} per conversation",
            histogram(values, name, what=what, mark=mark, labels=bin_names(values) if values is text.turns else None),
        )
        for name, values, what, mark in shown
    ]
    entries: list[Sequence[Cell]] = [
        (name, f"{values.mean:,.1f}", values.p50, values.p90, values.p99, values.max, values.total)
        for name, values, _, _ in shown
    ]
    heads = ("per conversation", "mean", "p50", "p90", "p99", "max", "sum")
    note = ""
    if figures.tokens and not tokens:
        note = "<p class=note>Tokens per conversation aren’t known: the cache of examples is gone; tokenize anew.</p>"
    return f'<div class="columns">{"".join(charts)}</div>{table("Percentiles", heads, entries)}{note}'


def truncation(figures: TokenFigures, seq_len: int) -> str:
    """What keeping only the first tokens of each conversation would lose."""
    lost = figures.truncation
    total, conversations = figures.lengths.total, sum(figures.lengths.counts)
    entries: list[Sequence[Cell]] = [
        (
            f"{row.limit:,}",
            row.conversations,
            percent(row.conversations, conversations),
            row.tokens,
            percent(row.tokens, total),
            row.targets,
            percent(row.targets, figures.targets),
        )
        for row in lost
    ]
    heads = ("kept tokens", "longer conversations", "share", "tokens lost", "share", "targets lost", "share")
    series = [
        ("conversations", "neutral", [100 * row.conversations / max(1, conversations) for row in lost]),
        ("tokens", "lost", [100 * row.tokens / max(1, total) for row in lost]),
        ("targets", "target", [100 * row.targets / max(1, figures.targets) for row in lost]),
    ]
    limits = [row.limit for row in lost]
    mark = limits.index(seq_len) if seq_len in limits else None
    key = "".join(f'<span class="key {kind}">{name}</span>' for name, kind, _ in series)
    chart = lines([f"{limit // 1024}k" for limit in limits], series, "Shares lost by truncation", mark=mark)
    note = (
        f"If each of the {conversations:,} tokenised conversations kept only its first tokens. These shards were "
        f"packed at {seq_len:,}; what was cut there stands in the ledger."
    )
    both = figure(key, chart) + table("", heads, entries)
    return f'<p class="note">{note}</p><div class="columns halves">{both}</div>'


def packing(splits: Iterable[SplitFigures], seq_len: int) -> str:
    """How full the packs are, and what is in them."""
    blocks, entries = [], []
    for split in splits:
        charts = [
            ("Fill", split.fill, "% of seq_len, at least", _shares(split.fill)),
            ("Examples per pack", split.examples_per_pack, "examples", bin_names(split.examples_per_pack)),
            ("Attention work, Σ length²", split.attention, "% of seq_len², at least", _shares(split.attention)),
        ]
        blocks += [
            figure(f"{name}, {split.name} packs", histogram(values, name, what=what, labels=labels))
            for name, values, what, labels in charts
        ]
        of_pack: list[Cell] = [
            split.name, split.packs, split.examples, split.tokens, percent(split.tokens, split.packs * seq_len),
            split.targets, percent(split.targets, split.tokens), f"{split.examples_per_pack.mean:.1f}",
            f"{split.attention.p50 / 10:.0f}% / {split.attention.p99 / 10:.0f}%", split.bytes,
        ]  # fmt: skip
        entries.append(of_pack)
    heads = (
        "split", "packs", "examples", "tokens", "fill", "targets", "share", "examples a pack",
        "Σ length² p50 / p99", "bytes",
    )  # fmt: skip
    note = "Σ length² is relative to one example that fills a pack: the work of attention that doesn’t cross examples."
    return f'<div class="columns">{"".join(blocks)}</div>{table("Splits", heads, entries, note)}'


def _shares(values: Distribution) -> list[str]:
    return [f"{low / 10:g}" for low in values.edges[:-1]]


def sources(figures: Figures) -> str:
    """One line a source; the page's script sorts them."""
    tokenised = figures.tokens is not None
    held_out = any(source.held_out for source in figures.sources)
    heads = [
        "source",
        "ready" if tokenised else "kept",
        "turned away",
        "reasons",
        "turns",
        "characters",
        "most characters",
    ]
    heads += ["tokens", "targets", "most tokens"] if tokenised else []
    heads += ["held out"] if held_out else []
    entries: list[list[Cell]] = []
    for source in figures.sources[:SOURCES_SHOWN]:
        kept = max(1, source.kept)
        show = "conversations" if source.kept else "turned_away"
        cells: list[Cell] = [
            ToSamples(text=source.name, show=show, by="source", name=source.name),
            source.ready,
            sum(source.turned_away.values()),
            ", ".join(f"{reason} {count:,}" for reason, count in source.turned_away.items()),
            f"{source.turns / kept:.1f}",
            f"{source.characters / kept:,.0f}",
            source.longest_characters,
        ]
        if tokenised:
            cells += [source.tokens, percent(source.targets, source.tokens), source.longest_tokens]
        cells += [source.held_out] if held_out else []
        entries.append(cells)
    note = f"{counted(len(figures.sources), 'source')}. "
    if len(entries) < len(figures.sources):
        note += f"These are the {len(entries):,} largest. "
    note += "Turns and characters are means per conversation, “most” is the longest one’s. Click a head to sort."
    return table("", heads, entries, note, sortable=True)


def bars(title: str, counts: Mapping[str, int], what: str) -> str:
    """Counts as bars in a table, the largest first and the rest in one line."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    total, top = sum(counts.values()), max(counts.values(), default=0)
    shown = ordered if len(ordered) <= _BARS + 1 else ordered[:_BARS]
    rows = [
        f'<tr><th scope="row" title="{escape(name)}">{escape(name)}</th><td>'
        f'<svg width="100%" height="10" aria-hidden="true"><rect class="bar" width="{100 * count / max(1, top):.2f}%" '
        f'height="10"/></svg></td><td>{count:,}</td><td class="dim">{percent(count, total)}</td></tr>'
        for name, count in shown
    ]
    if len(shown) < len(ordered):
        rest = sum(count for _, count in ordered[len(shown) :])
        rows.append(
            f'<tr class="dim"><th scope="row">{len(ordered) - len(shown):,} more</th><td></td>'
            f"<td>{rest:,}</td><td>{percent(rest, total)}</td></tr>"
        )
    return (
        f'<section class="block"><h3>{title}</h3><table class="bars"><caption>{what}</caption>'
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


def table(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[Cell]], note: str = "", *, sortable: bool = False
) -> str:
    """A table in a box that scrolls by itself; numbers and shares stand right."""
    kind = "data sortable" if sortable else "data"
    cells = []
    for row in rows:
        first, *rest = row
        cells.append(f'<tr><th scope="row">{_text(first)}</th>{"".join(_cell(value) for value in rest)}</tr>')
    head = "".join(
        f'<th scope="col">{f"<button>{escape(name)}</button>" if sortable else escape(name)}</th>' for name in heads
    )
    label = escape(title or heads[0])
    return (
        f'<section class="block">{f"<h3>{escape(title)}</h3>" if title else ""}'
        f"{f'<p class=note>{escape(note)}</p>' if note else ''}"
        f'<div class="scroll" tabindex="0" role="group" aria-label="{label}"><table class="{kind}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(cells)}</tbody></table></div></section>"
    )


def _text(value: Cell) -> str:
    if isinstance(value, ToSamples):
        return f'<a href="#{escape(urlencode({"show": value.show, value.by: value.name}))}">{escape(value.text)}</a>'
    return escape(str(value))


def _cell(value: Cell) -> str:
    if isinstance(value, int):
        return f"<td>{value:,}</td>"
    if isinstance(value, ToSamples):
        return f"<td>{_text(value)}</td>"
    return f"<td{'' if _NUMERIC.fullmatch(value) else ' class=text'}>{escape(value)}</td>"


def figure(caption: str, chart: str) -> str:
    """A chart with its caption, which is HTML."""
    return f'<figure class="block"><figcaption>{caption}</figcaption>{chart}</figure>'
