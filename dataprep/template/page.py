"""The Markdown page of `dataprep template --table`: counts, a cell for each template and probe, and the reasons."""

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path

from dataprep.core.tokenizer import locate
from dataprep.template.probes import PROBES
from dataprep.template.proof import FAILED, LEFT_OUT, PROVEN, TURNED_AWAY, UNSUPPORTED, WRONG, Outcome
from dataprep.template.table import Row, find_templates, try_templates
from schemas.files import write_text_whole

_SIGNS = {TURNED_AWAY: "away", LEFT_OUT: "left out", UNSUPPORTED: "–", WRONG: "**wrong**", FAILED: "**failed**"}
_KINDS = (PROVEN, TURNED_AWAY, LEFT_OUT, UNSUPPORTED, WRONG, FAILED)
_PACKAGES = ("transformers", "tokenizers", "jinja2")

_HEAD = """\
# What is proven on which chat template

Made by `dataprep template --table` on {day}: {count} templates on {probes} probes, with {versions}.
{tokens}

For each cell the build's own example of a short conversation was held against transformers, on real ids:

1. its ids are those of `apply_chat_template`;
2. before the targets of each answer stands what inference gives the model,
   `apply_chat_template(messages[:k], add_generation_prompt=True)`, or the difference is named;
3. the targets decode to that message's texts (reasoning, content, calls) and an end token, and to no text of another;
4. where a template has `{{% generation %}}` marks, transformers' mask is compared, and each difference listed.

| sign | meaning |
|---|---|
| ✓ | proven |
| ✓* | proven, with a difference that is named below |
| left out | the template itself leaves out or moves a text or tool calls: such rows are turned away with a reason |
| away | such rows can't be proven: they are turned away with a reason, never trained on with a guessed mask |
| – | unsupported: the template itself refuses such a conversation |
| **wrong** | a check failed |
| **failed** | it could not be tried |
"""


def write_page(places: Iterable[Path], tokenizer: str | None, out: Path | None) -> list[Row]:
    """Try every template in `places` and write the page, or print it. Raises InputError and ModelError."""
    rows = find_templates(places)
    base = locate(tokenizer) if tokenizer is not None else None
    try_templates(rows, base)
    tokens = "Control tokens are those that stand in each template, " + (
        f"added to the tokenizer of {tokenizer}." if tokenizer else "added to a tiny byte-level tokenizer."
    )
    if any(row.own_tokenizer for row in rows):
        tokens += " Models' folders are tried with their own tokenizers."
    text = page_text(rows, tokens)
    if out is None:
        print(text, end="")
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(out, text)
    return rows


def page_text(rows: list[Row], tokens: str) -> str:
    """The page; `tokens` says whose tokens were used."""
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    head = _HEAD.format(
        day=date.today().isoformat(), count=len(rows), probes=len(PROBES), versions=versions, tokens=tokens
    )
    lists = [
        ("Wrong", _of_kind(WRONG)),
        ("Failed", _of_kind(FAILED)),
        ("Turned away", _of_kind(TURNED_AWAY)),
        ("Left out by the template", _of_kind(LEFT_OUT)),
        ("Unsupported: what the template says", _of_kind(UNSUPPORTED)),
        ("Named differences", lambda outcome: outcome.notes),
        (
            "transformers' mask by `{% generation %}`, against ours",
            lambda outcome: [outcome.marks] * bool(outcome.marks),
        ),
    ]
    lines = [head, *_counts(rows), "", "## Each template", "", *_cells(rows)]
    return "\n".join([*lines, *(line for title, texts in lists for line in _listed(rows, title, texts))]) + "\n"


def _of_kind(kind: str) -> Callable[[Outcome], list[str]]:
    return lambda outcome: [outcome.detail] if outcome.kind == kind else []


def counts_line(rows: list[Row]) -> str:
    """One line: how many cells are of each kind."""
    kinds = [outcome.kind for row in rows for outcome in row.outcomes.values()]
    shown = ", ".join(f"{kinds.count(kind):,} {kind}" for kind in _KINDS)
    return f"{len(rows)} templates, {len(kinds):,} cells: {shown}"


def _counts(rows: list[Row]) -> Iterator[str]:
    yield "## Counts"
    yield ""
    yield counts_line(rows) + "."
    yield ""
    names = ("probe", "proven", "of those taken", "with a named difference", *_KINDS[1:4], "wrong, failed")
    yield f"| {' | '.join(names)} |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for probe in PROBES:
        outcomes = [row.outcomes[probe.name] for row in rows]
        kinds = [outcome.kind for outcome in outcomes]
        proven, left_out = kinds.count(PROVEN), kinds.count(LEFT_OUT)
        taken = len(rows) - left_out - kinds.count(UNSUPPORTED)
        noted = sum(outcome.kind == PROVEN and bool(outcome.notes) for outcome in outcomes)
        share = f"{proven / taken:.0%}" if taken else ""
        yield (
            f"| {probe.name} | {proven} | {share} | {noted} | {kinds.count(TURNED_AWAY)} | {left_out} "
            f"| {kinds.count(UNSUPPORTED)} | {kinds.count(WRONG) + kinds.count(FAILED)} |"
        )


def _cells(rows: list[Row]) -> Iterator[str]:
    yield "| template | " + " | ".join(probe.name for probe in PROBES) + " | transformers' mask |"
    yield "|---|" + "---|" * (len(PROBES) + 1)
    for row in rows:
        cells = [_cell(row.outcomes[probe.name]) for probe in PROBES]
        marks = {outcome.marks for outcome in row.outcomes.values() if outcome.marks}
        mask = "" if not marks else "equal" if marks == {"equal"} else "differs"
        yield f"| {row.name} | " + " | ".join(cells) + f" | {mask} |"


def _cell(outcome: Outcome) -> str:
    if outcome.kind == PROVEN:
        return "✓*" if outcome.notes else "✓"
    return _SIGNS[outcome.kind]


def _listed(rows: list[Row], title: str, texts: Callable[[Outcome], list[str]]) -> Iterator[str]:
    """What is said of cells, each text once with the templates and probes it is said of, the most frequent first."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for name, outcome in row.outcomes.items():
            for text in texts(outcome):
                found.setdefault(text, {}).setdefault(row.name, []).append(name)
    if not found:
        return
    yield from ("", f"## {title}", "")
    for text, templates in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        yield f"- {_escaped(text)}"
        by_probes: dict[str, list[str]] = {}
        for template, probes in templates.items():
            by_probes.setdefault("all probes" if len(probes) == len(PROBES) else ", ".join(probes), []).append(template)
        for names, which in by_probes.items():
            yield f"  - {names}: {', '.join(which)}"


def _escaped(text: str) -> str:
    return "``" + text.replace("\n", "\\n").replace("``", "′′") + "``"
