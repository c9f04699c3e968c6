"""A finished run in, summary.json and summary.html out: one page that needs no network, light or dark."""

import json
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from schemas.files import write_text_whole
from train.config import RunConfig
from train.load import Shards
from train.log import EvalRecord, RunLog, StepRecord
from train.proof import ExportProof


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a run came to. Losses are means over targets, in nats."""

    model: str
    num_parameters: int
    shards: str
    sources: list[str]
    packs: int
    tokens: int  # of the training split
    targets: int
    held_out_packs: int
    steps: int
    first_loss: float  # mean over the targets of the first tenth of the steps, at least one
    last_loss: float  # of the last
    first_eval_loss: float | None
    last_eval_loss: float | None
    tokens_trained: int
    tokens_per_s: float
    seconds: float
    export: dict[str, Any]  # what was seen of the folder that was written
    config: dict[str, Any]

    @classmethod
    def of(
        cls,
        config: RunConfig,
        shards: Shards,
        log: RunLog,
        *,
        num_parameters: int,
        seconds: float,
        export: ExportProof,
    ) -> "RunSummary":
        """Sum up what was logged."""
        window = max(1, len(log.steps) // 10)
        trained = sum(record.tokens for record in log.steps)
        in_steps = sum(record.tokens / record.tokens_per_s for record in log.steps)
        return cls(
            model=config.model,
            num_parameters=num_parameters,
            shards=str(shards.folder),
            sources=shards.manifest.sources,
            packs=len(shards.train),
            tokens=int(shards.train.num_tokens.sum()),
            targets=int(shards.train.num_targets.sum()),
            held_out_packs=0 if shards.val is None else len(shards.val),
            steps=len(log.steps),
            first_loss=_mean_loss(log.steps[:window]),
            last_loss=_mean_loss(log.steps[-window:]),
            first_eval_loss=log.evals[0].eval_loss if log.evals else None,
            last_eval_loss=log.evals[-1].eval_loss if log.evals else None,
            tokens_trained=trained,
            tokens_per_s=trained / in_steps if in_steps else 0.0,
            seconds=seconds,
            export=asdict(export),
            config={name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()},
        )

    def line(self) -> str:
        """The run in one line."""
        held_out = "no packs were held out"
        if self.first_eval_loss is not None and self.last_eval_loss is not None:
            held_out = f"held-out {self.first_eval_loss:.4f} -> {self.last_eval_loss:.4f}"
        speed = f"{self.tokens_per_s:,.0f} tokens/s"
        return f"done       loss {self.first_loss:.4f} -> {self.last_loss:.4f}, {held_out}, {self.steps} steps, {speed}"


def write_summary(folder: Path, summary: RunSummary, log: RunLog) -> None:
    """Write summary.json and summary.html into the run's folder."""
    write_text_whole(folder / "summary.json", json.dumps(asdict(summary), indent=2, ensure_ascii=False) + "\n")
    write_text_whole(folder / "summary.html", summary_page(summary, log.steps, log.evals))


def summary_page(summary: RunSummary, steps: list[StepRecord], evals: list[EvalRecord]) -> str:
    """The page as HTML."""
    held_out = "none held out"
    if summary.first_eval_loss is not None and summary.last_eval_loss is not None:
        held_out = f"{summary.first_eval_loss:.4f} → {summary.last_eval_loss:.4f}"
    figures = {
        "training loss": f"{summary.first_loss:.4f} → {summary.last_loss:.4f}",
        "held-out loss": held_out,
        "tokens/s": f"{summary.tokens_per_s:,.0f}",
        "time": _duration(summary.seconds),
    }
    data = {
        "shards": summary.shards,
        "sources": ", ".join(summary.sources),
        "packs": f"{summary.packs:,} to train on, {summary.held_out_packs:,} held out",
        "tokens": f"{summary.tokens:,}, of which {summary.targets:,} targets",
        "checked": ExportProof(**summary.export).line(),
        "trained on": f"{summary.tokens_trained:,} tokens in {summary.steps:,} steps",
    }
    files = {
        "model": "model/",
        "measures": "metrics.jsonl",
        "TensorBoard": "tensorboard/",
        "this, as JSON": "summary.json",
    }
    config = {name: value for name, value in summary.config.items() if value is not None}
    body = [
        f"<h1>{escape(_short(summary.model))}</h1>",
        '<div class="figures">' + "".join(_figure(name, value) for name, value in figures.items()) + "</div>",
        _chart(steps, evals),
        *(
            f"<h2>{title}</h2>" + _table(rows)
            for title, rows in (("Data", data), ("Settings", config), ("Files, beside this page", files))
        ),
    ]
    return PAGE.replace("TITLE", escape(_short(summary.model))).replace("BODY", "\n".join(body))


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE: training run</title>
<style>
:root { color-scheme: light dark; --ink: #1c1e21; --dim: #6b7280; --line: #e3e5e8; --page: #fff;
  --a: #2563eb; --b: #d9480f }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e9; --dim: #9aa1ab; --line: #33373d; --page: #16181b; --a: #6ea8fe; --b: #ff9f5a }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1rem; margin: 2rem 0 .3rem }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1rem 0 1.5rem }
.figures b { display: block; font-size: 1.25rem; font-weight: 600 }
.figures span, text { color: var(--dim); fill: var(--dim) }
table { border-collapse: collapse; width: 100% } td { border-top: 1px solid var(--line); padding: .25rem .5rem .25rem 0;
  vertical-align: top; overflow-wrap: anywhere } td:first-child { color: var(--dim); width: 14rem }
svg { width: 100%; height: auto } text { font-size: 12px } .grid { stroke: var(--line) }
.train { fill: none; stroke: var(--a); stroke-width: 1.5 } .eval { fill: none; stroke: var(--b); stroke-width: 1.5 }
.dot { fill: var(--b) } .key-train { fill: var(--a) } .key-eval { fill: var(--b) }
</style>
BODY
</html>
"""

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 900, 320, 56, 24, 28
MAX_POINTS = 600


def _chart(steps: list[StepRecord], evals: list[EvalRecord]) -> str:
    """Loss over steps as inline SVG: a line for training, a line with dots for the held-out packs."""
    stride = -(-len(steps) // MAX_POINTS)
    groups = [steps[start : start + stride] for start in range(0, len(steps), stride)]
    train = [(group[-1].step, _mean_loss(group)) for group in groups]
    held_out = [(record.step, record.eval_loss) for record in evals]
    losses = [loss for _, loss in (*train, *held_out)]
    low, high = min(losses), max(losses)
    margin = 0.05 * (high - low) or 0.1
    low, high, last = low - margin, high + margin, max(1, steps[-1].step)

    def place(point: tuple[int, float]) -> tuple[float, float]:
        x = LEFT + point[0] / last * (WIDTH - LEFT - 12)
        return x, TOP + (high - point[1]) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def line(points: list[tuple[int, float]], name: str) -> str:
        return f'<polyline class="{name}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, points))}"/>'

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss over steps">']
    for tick in range(5):
        loss = low + (high - low) * tick / 4
        y = place((0, loss))[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{loss:.3g}</text>')
    for step in sorted({0, last // 2, last}):
        parts.append(f'<text x="{place((step, low))[0]:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{step}</text>')
    parts.append(line(train, "train"))
    if held_out:
        parts.append(line(held_out, "eval"))
    for (x, y), record in zip(map(place, held_out), evals, strict=True):
        tip = f"step {record.step}: {record.eval_loss:.4f}, perplexity {record.eval_perplexity:.2f}"
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{tip}</title></circle>')
    parts.append(f'<text x="{LEFT}" y="14"><tspan class="key-train">■</tspan> training loss')
    parts.append(
        '<tspan class="key-eval" dx="14">■</tspan> held-out loss</text></svg>' if held_out else "</text></svg>"
    )
    return "".join(parts)


def _figure(name: str, value: str) -> str:
    return f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>"


def _short(model: str) -> str:
    """A hub id as it is, of a path the last part."""
    return Path(model).name if Path(model).exists() else model


def _table(rows: dict[str, Any]) -> str:
    cells = (f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return "<table>" + "".join(cells) + "</table>"


def _mean_loss(steps: list[StepRecord]) -> float:
    targets = sum(record.targets for record in steps)
    return sum(record.loss * record.targets for record in steps) / max(1, targets)


def _duration(seconds: float) -> str:
    """90 -> 1 min 30 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
