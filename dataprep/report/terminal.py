"""The report in some twenty lines, for the terminal."""

from pathlib import Path

from dataprep.report.charts import percent, short
from dataprep.report.figures import Figures
from dataprep.report.sections import verdict

_SHOWN = 6


def report_text(figures: Figures, page: Path) -> str:
    """Lines of aligned text, without a newline at the end."""
    rows, tokens, text = figures.rows, figures.tokens, figures.text
    counts = [("rows", rows.rows, "")]
    counts += [("  beyond one a row", rows.branched, "conversations")] if rows.branched else []
    counts += [("  joined to others", rows.joined, "")] if rows.joined else []
    counts.append(("  ready" if tokens else "  kept", rows.ready, ""))
    reasons = list(rows.reasons().items())
    shown = len(reasons) if len(reasons) <= _SHOWN + 1 else _SHOWN
    counts += [(f"  {reason}", count, "turned away") for reason, count in reasons[:shown]]
    if shown < len(reasons):
        rest = sum(count for _, count in reasons[shown:])
        counts.append((f"  {len(reasons) - shown} more reasons", rest, "turned away"))
    if tokens:
        packed = tokens.targets + tokens.context
        counts += [("tokens", tokens.tokens, "")]
        counts += [("  of further copies", tokens.repeated, "")] if tokens.repeated else []
        counts += [
            ("  targets", tokens.targets, f"{percent(tokens.targets, packed)} of what is packed"),
            ("  context", tokens.context, ""),
            *((f"  {reason}", count, "cut") for reason, count in tokens.cut.items()),
        ]
    width = max(len(name) for name, _, _ in counts)
    lines = [verdict(figures), ""]
    lines += [f"{name:<{width}}  {count:>13,}  {note}".rstrip() for name, count, note in counts]
    if text:
        lines.append("")
        spread = [("turns", text.turns), ("characters", text.characters)]
        spread += [("tokens", figures.lengths.lengths)] if figures.lengths else []
        lines.append(f"{'':<{width}}  {'p50':>8} {'p90':>8} {'p99':>8} {'max':>8}  a conversation")
        lines += [
            f"{name:<{width}}  {values.p50:>8,} {values.p90:>8,} {values.p99:>8,} {values.max:>8,}"
            for name, values in spread
        ]
    if figures.lengths:
        lines += ["", *_truncation(figures)]
    return "\n".join([*lines, "", f"written to {page} ({short(page.stat().st_size / 1_000)} kB)"])


def _truncation(figures: Figures) -> list[str]:
    assert figures.lengths is not None
    total, targets = figures.lengths.lengths.total, figures.lengths.targets
    return [
        f"keeping the first {row.limit:>6,} tokens of each would lose {percent(row.tokens, total):>6} of tokens, "
        f"{percent(row.targets, targets):>6} of targets"
        for row in figures.lengths.truncation
        if row.conversations
    ]
