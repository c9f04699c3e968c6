"""The sections of the page: what came of the run first, then how it went, then what it was made from."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from train.chat import Answer
from train.history import FINISHED, KILLED, RUNNING
from train.log import StepRecord, perplexity
from train.page.charts import Chart, Line, figure
from train.page.view import RunView
from train.page.words import count, duration, folded, large, pairs, share, table

SHOWN_SOURCES = 6  # with a curve of their own
NEAR_END = 0.02  # of the loss: less than this above the best is no overfitting


def verdict(view: RunView) -> str:
    """What came of it, in a sentence or two."""
    last = view.segments[-1]
    done = f"step {view.steps[-1].step if view.steps else 0:,} of {view.num_steps:,}"
    if last.outcome == RUNNING:
        start = f"Still running when this was written: {done}. "
    elif last.outcome == FINISHED:
        start = ""
    else:
        start = f"{last.outcome[0].upper()}{last.outcome[1:].rstrip('.')}, at {done}. "
    return start + _losses(view)


def _losses(view: RunView) -> str:
    trained = f" in {count(len(view.steps), 'step')} over {large(sum(each.tokens for each in view.steps))} tokens."
    if len(view.evals) > 1:
        first, last = view.evals[0], view.evals[-1]
        verb = "fell" if last.eval_loss < first.eval_loss else "rose"
        ends = f"(perplexity {first.eval_perplexity:.4g} to {last.eval_perplexity:.4g})"
        return f"The loss on held-out data {verb} from {first.eval_loss:.4f} to {last.eval_loss:.4f} {ends}{trained}"
    if view.steps:
        first_loss, last_loss = ends_of(view.steps)
        held_out = "" if view.manifest.splits.get("val") else " No data was held out, so this says nothing of new data."
        return f"The training loss went from {first_loss:.4f} to {last_loss:.4f}{trained}{held_out}"
    return "No step has been logged yet."


def ends_of(steps: Sequence[StepRecord]) -> tuple[float, float]:
    """The loss of the first and of the last tenth of the steps, as means over their targets."""
    window = max(1, len(steps) // 10)
    return mean_loss(steps[:window]), mean_loss(steps[-window:])


def mean_loss(steps: Sequence[StepRecord]) -> float:
    """The mean over all targets of the steps."""
    return sum(each.loss * each.targets for each in steps) / max(1, sum(each.targets for each in steps))


def headline(view: RunView) -> str:
    """The few numbers on top."""
    steps = view.steps
    figures: dict[str, str] = {}
    if view.evals:
        figures["held-out loss"] = _from_to(view.evals[0].eval_loss, view.evals[-1].eval_loss)
    if steps:
        figures["training loss"] = _from_to(*ends_of(steps))
        seconds = sum(each.tokens / each.tokens_per_s for each in steps)
        figures["tokens/s"] = f"{sum(each.tokens for each in steps) / seconds:,.0f}"
        if (mfu := steps[-1].mfu) is not None:
            figures["MFU"] = f"{mfu:.1%}"
    figures["time"] = duration(view.seconds)
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in figures.items())


def what(view: RunView) -> str:
    """What was trained on what, as a paragraph."""
    manifest, options = view.manifest, view.manifest.options
    records = manifest.splits.get("train", [])
    tokens, targets = sum(each.tokens for each in records), sum(each.targets for each in records)
    examples, packs = sum(each.examples for each in records), sum(each.packs for each in records)
    how = f"trained as {view.trained}" if view.trained else "all of them trained"
    last = view.segments[-1]
    where = last.devices if last.devices != "CPU" else f"the CPU, {count(last.num_ranks, 'rank')}"
    held_out = sum(each.examples for each in manifest.splits.get("val", []))
    return (
        f"<p><b>{escape(view.config.model)}</b>, {large(view.num_parameters)} parameters, {escape(how)}; "
        f"{count(view.num_steps, 'step')} of {count(view.config.batch_packs, 'pack')} each, on {escape(where)}.</p>"
        f"<p>{count(examples, 'example')} from {count(len(manifest.sources), 'source')} in {count(packs, 'pack')} of "
        f"up to {options.seq_len:,} tokens: {large(tokens)} tokens. {share(targets, tokens)} of them are targets, "
        f"which the model learns to write. {count(held_out, 'example')} held out, which it was not trained on.</p>"
    )


def cautions(view: RunView) -> list[str]:
    """What somebody who reads this should look at."""
    found = []
    trained = [each for each in view.evals if each.step > 0]
    if trained and (best := min(trained, key=lambda each: each.eval_loss)).step < trained[-1].step:
        last = trained[-1]
        if last.eval_loss > best.eval_loss * (1 + NEAR_END):
            found.append(
                f"The held-out loss was lowest at step {best.step:,}, {best.eval_loss:.4f}; at step {last.step:,} it "
                f"is {last.eval_loss:.4f}: the model learns its training data by heart. best/ keeps the better one."
            )
    if len(view.steps) >= 10 and (ends := ends_of(view.steps))[1] >= ends[0]:
        found.append("The training loss did not fall. The learning rate may be too high, or far too low.")
    if view.outcome is not None and view.outcome.proof.ends_turn is False:
        found.append("Asked a training prompt, the model did not end its turn: it may talk on without end.")
    waiting = sum(each.waiting for each in view.steps) / max(1, len(view.steps))
    if waiting > 0.05:
        found.append(f"{waiting:.0%} of the time was spent waiting for data: the shards lie on a slow disk.")
    clipped = [each for each in view.steps if (each.grad_norm or 0) > view.config.max_grad_norm]
    if len(view.steps) >= 50 and len(clipped) > 0.9 * len(view.steps):
        found.append(
            f"Gradients were clipped to {view.config.max_grad_norm:g} in {share(len(clipped), len(view.steps))} of the "
            "steps: the real step size is set by that, not by the learning rate."
        )
    return found


def curves(view: RunView) -> str:
    """How it went."""
    steps, last = view.steps, view.num_steps
    marks = [each.first_step for each in view.segments[1:] if each.first_step]

    def of(name: str, scale: float = 1.0) -> list[tuple[int, float]]:
        values = ((each.step, getattr(each, name)) for each in steps)
        return [(step, scale * value) for step, value in values if value is not None]

    def chart(title: str, *lines: Line, unit: str = "", from_zero: bool = True, wide: bool = False) -> str:
        shown = Chart(title=title, lines=lines, last_step=last, marks=marks, unit=unit, from_zero=from_zero, wide=wide)
        return figure(shown)

    held_out = Line(name="held out", kind="b", points=[(each.step, each.eval_loss) for each in view.evals], dots=True)
    names = list(dict.fromkeys(name for each in view.evals for name in each.by_source))
    by_source = [
        Line(
            name=name,
            kind=f"s{at}",
            points=[(each.step, each.by_source[name]) for each in view.evals if name in each.by_source],
            dots=True,
        )
        for at, name in enumerate(_largest(names, view)[:SHOWN_SOURCES])
    ]
    communication = of("communication", 100)
    shares = [Line(name="waiting for data", kind="b", points=of("waiting", 100))]
    if any(value for _, value in communication):
        shares.append(Line(name="communication", kind="a", points=communication))
    charts = [
        chart("Loss", Line(name="training", kind="a", points=of("loss")), held_out, from_zero=False, wide=True),
        chart("Held-out loss by source", *by_source, from_zero=False, wide=True),
        chart("Learning rate", Line(name="learning rate", kind="a", points=of("learning_rate"))),
        chart("Gradient norm", Line(name="norm", kind="a", points=of("grad_norm"))),
        chart("Tokens/s, all ranks", Line(name="tokens/s", kind="a", points=of("tokens_per_s"))),
        chart("MFU", Line(name="MFU", kind="a", points=of("mfu", 100)), unit="%"),
        chart("Most GPU memory so far, rank 0", Line(name="memory", kind="a", points=of("memory_gib")), unit=" GiB"),
        chart("Share of the time not spent computing", *shares, unit="%"),
    ]
    note = (
        '<p class="note">Horizontal: optimizer steps. Where lines stand for several steps each, the band behind them '
    )
    note += f"shows the lowest and the highest.{' Dashed: taken up again.' if marks else ''}</p>"
    return note + f'<div class="charts">{"".join(charts)}</div>' if steps else ""


def _largest(names: Sequence[str], view: RunView) -> list[str]:
    held_out = view.manifest.by_source.get("val", {})
    return sorted(names, key=lambda name: -(held_out[name].tokens if name in held_out else 0))


def by_source(view: RunView) -> str:
    """Held-out loss before and after, of each source."""
    told = [each for each in view.evals if each.by_source]
    if not told:
        return ""
    first, last = told[0], told[-1]
    rows = []
    for name in _largest(list(last.by_source), view):
        before, after = first.by_source.get(name, math.nan), last.by_source[name]
        ends = f"{perplexity(before):.4g} → {perplexity(after):.4g}"
        rows.append((name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}", ends))
    head = ("source", f"step {first.step:,}", f"step {last.step:,}", "change", "perplexity")
    return table(head, rows)


def samples(view: RunView) -> str:
    """The base model's answers beside the trained one's."""
    if view.outcome is None:
        return ""
    taken = view.outcome.samples
    parts = [f'<p class="note">{escape(taken.note)}</p>']
    for each in taken.samples:
        columns = (("in the data", each.expected), ("before", each.before), ("after", each.after))
        answers = "".join(
            f'<div class="answer {name.split()[0]}"><h3>{name}</h3>{_answer(said)}</div>' for name, said in columns
        )
        parts.append(
            f'<article class="sample"><p class="note">{escape(each.source)}</p>'
            f'<div class="prompt">{_spoken(each.prompt)}</div><div class="answers">{answers}</div></article>'
        )
    return "".join(parts)


def _answer(said: Answer) -> str:
    thought = folded("thinking", f"<pre>{_spoken(said.thinking)}</pre>") if said.thinking else ""
    text = _spoken(said.text) if said.text else '<span class="dim">(nothing)</span>'
    return f'{thought}<div class="text">{text}</div>'


def _spoken(text: str) -> str:
    """Text of a model; an untrained one says control characters too, which HTML can't hold."""
    return escape("".join(char if char >= " " or char in "\n\t" else "\ufffd" for char in text))


def certificate(found: dict[str, Any] | None, fingerprint: str) -> str:
    """What `train verify` found, as its file says; `fingerprint` is that of the shards trained on."""
    if found is None:
        return '<p class="note">None yet: <code>train verify --shards CACHE --out RUN</code> makes one.</p>'
    rows = []
    for check in found.get("checks", []):
        measured = f"{check['difference']:.1e}, allowed {check['allowed']:.1e}"
        rows.append((check["name"], "holds" if check["holds"] else "DOES NOT HOLD", measured, check["says"]))
    said = "Every check holds" if found.get("holds") else "Not every check holds"
    if found.get("shards") != fingerprint:
        said += ", but on other shards than these"
    about = {name: _flat(value) for name, value in found.items() if name not in ("checks", "holds")}
    text = f"<p><b>{said}.</b> The trainer was compared with plain transformers, one example at a time.</p>"
    return text + table(("check", "", "difference", "what it shows"), rows) + folded("how it was made", pairs(about))


def kept(view: RunView) -> str:
    """Models and checkpoints in the run's folder."""
    rows: dict[str, Any] = {}
    if view.outcome is not None:
        rows[f"{view.outcome.folder.name}/"] = view.outcome.proof.line()
        if view.outcome.best is not None:
            name = f"{view.outcome.best.parent.name}/{view.outcome.best.name}/"
            rows[name] = "its held-out loss is lower than that of the last step"
    checkpoints = sorted(path.name for path in (view.out / "checkpoints").glob("step-*"))
    rows["checkpoints/"] = ", ".join(checkpoints)
    rows["metrics.jsonl, tensorboard/"] = "every measure of every step"
    return pairs(rows)


def data(view: RunView) -> str:
    """Sources, the ledger, hashes."""
    manifest = view.manifest
    train, val = manifest.by_source.get("train", {}), manifest.by_source.get("val", {})
    total = sum(each.tokens for each in train.values())
    rows = [
        (
            name,
            train[name].conversations if name in train else 0,
            train[name].tokens if name in train else 0,
            share(train[name].tokens if name in train else 0, total),
            val[name].conversations if name in val else 0,
        )
        for name in sorted({*train, *val}, key=lambda name: -(train[name].tokens if name in train else 0))
    ]
    head = ("source", "conversations", "tokens, with repeats", "share", "held-out conversations")
    ledger, tokens = manifest.ledger, manifest.ledger.tokens
    lost = ", ".join(f"{number:,} {reason}" for reason, number in ledger.turned_away.items() if number)
    cut = ", ".join(f"{number:,} {reason}" for reason, number in tokens.cut.items() if number)
    about = {
        "rows": f"{ledger.rows:,} read, {ledger.kept:,} conversations kept"
        + (f"; turned away: {lost}" if lost else ""),
        "tokens": f"{tokens.targets:,} targets, {tokens.context:,} context" + (f"; cut: {cut}" if cut else ""),
        "made for": manifest.model,
        "packed": f"{manifest.options.pack}, overflow {manifest.options.overflow}, seed {manifest.options.seed}",
        "mixture": "; ".join(f"{name}: weight {mix.weight:g}" for name, mix in manifest.mixture.items()),
        "targets": ", ".join(
            f"{name} {_flat(value)}" for name, value in asdict(manifest.token_options).items() if value
        ),
        "shards": str(view.shards),
        "fingerprint": manifest.fingerprint,
        "tokenizer": manifest.tokenizer.sha256,
        "chat template": manifest.tokenizer.template_sha256,
    }
    files = [(each.file, each.packs, each.tokens, each.sha256) for split in manifest.splits.values() for each in split]
    hashes = table(("file", "packs", "tokens", "SHA-256"), files)
    return table(head, rows) + pairs(about) + folded(count(len(files), "shard"), hashes)


def settings(view: RunView) -> str:
    """Configuration, set-up, and the machine."""
    parted = (line.split(maxsplit=1) for line in view.set_up)
    set_up = {name: rest[0] for name, *rest in parted if rest}
    config = {name: _flat(value) for name, value in asdict(view.config).items()}
    last = view.segments[-1]
    machine = {
        "command": last.command,
        "devices": last.devices,
        "machine": last.machine,
        "versions": ", ".join(f"{name} {number}" for name, number in last.versions.items()),
    }
    return pairs(machine) + pairs(set_up) + folded("every setting", pairs(config))


def history(view: RunView) -> str:
    """Each start of the run."""
    rows = [
        (
            each.started.replace("T", " ").removesuffix("+00:00"),
            f"{each.first_step:,} – {each.last_step:,}",
            each.num_ranks,
            each.devices,
            each.outcome if each.outcome != KILLED else "killed, or the machine went",
        )
        for each in view.segments
    ]
    return table(("started (UTC)", "steps", "ranks", "devices", "ended"), rows)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(each)}" for name, each in value.items() if each not in (None, "", ()))
    if isinstance(value, list | tuple):
        return ", ".join(map(_flat, value))
    return "" if value is None else str(value)


def _from_to(first: float, last: float) -> str:
    return f"{first:.4f} → {last:.4f}"
