"""Figures and samples in, one HTML file out that needs nothing beside it and may load nothing."""

import hashlib
from base64 import b64encode
from dataclasses import replace
from html import escape
from importlib.resources import files
from string import Template

import orjson

from dataprep.report import sections
from dataprep.report.figures import Figures, Samples


def report_page(figures: Figures, samples: Samples) -> str:
    """The page as HTML. Styles and the script are allowed by their hashes, and nothing else is."""
    style, script = _asset("page.css"), _asset("page.js")
    allowed = f"style-src {_hash(style)}; script-src {_hash(script)}"
    options = figures.options
    bodies = [
        ("ledger", "Where rows and tokens went" if figures.tokens else "Where rows went", sections.ledger(figures)),
        ("contents", "What is in it", sections.contents(figures)),
        ("cleaning", "Cleaning, duplicates, readings", sections.cleaning(figures)),
        ("lengths", "Lengths", sections.lengths(figures)),
        (
            "truncation",
            "What truncation would cost",
            sections.truncation(figures.lengths, options.seq_len) if figures.lengths and options else "",
        ),
        ("packing", "Packing", sections.packing(figures.splits, options.seq_len) if options else ""),
        ("sources", "Sources", sections.sources(figures)),
    ]
    shown = [(name, title, body) for name, title, body in bodies if body]
    nav = [(name, title) for name, title, _ in shown] + [("samples", "Samples")]
    return Template(_asset("page.html")).substitute(
        policy=f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        name=escape(figures.name),
        verdict=escape(sections.verdict(figures)),
        made=_made(figures),
        headline=sections.headline(figures),
        nav="".join(f'<a href="#{name}">{title}</a>' for name, title in nav),
        body="".join(f'<section id="{name}"><h2>{title}</h2>{body}</section>' for name, title, body in shown),
        about=_about(figures),
        data=embedded(figures, samples),
    )


def embedded(figures: Figures, samples: Samples) -> str:
    """Both as JSON that can't end the script element it stands in."""
    shown = replace(figures, sources=figures.sources[: sections.SOURCES_SHOWN])
    text = orjson.dumps({"figures": shown, "samples": samples}).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _made(figures: Figures) -> str:
    parts = [figures.date, f"sftpack {figures.version}"]
    parts += [f"model {figures.model}"] if figures.model else []
    parts += [f"seq_len {figures.options.seq_len:,}"] if figures.options else []
    return " · ".join(escape(part) for part in parts)


def _about(figures: Figures) -> str:
    options = figures.options
    rows = {
        "cache": figures.cache,
        "inputs": f"{figures.num_inputs:,} files, {figures.input_bytes:,} bytes",
        **figures.settings,
        "model": figures.model,
        "vocabulary": figures.vocab_size and f"{figures.vocab_size:,}",
        "ids by": figures.encoder,
        "overflow": options and options.overflow,
        "held out": options and ", ".join([f"{options.val_fraction:g} of the conversations", *options.val_sources]),
        "recipe": "; ".join(f"{name}: {mix}" for name, mix in figures.mixture.items()),
        "seed": options and str(options.seed),
        "fingerprint": figures.fingerprint,
    }
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in rows.items() if value
    )


def _asset(name: str) -> str:
    return (files("dataprep.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
