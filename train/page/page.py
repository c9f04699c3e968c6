"""A run in, one HTML file out that needs nothing beside it and may load nothing."""

import hashlib
import re
from base64 import b64encode
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from schemas.files import write_text_whole
from train.history import RUNNING
from train.page import sections
from train.page.view import RunView

PLACE = re.compile(r"<!-- certificate of (?P<fingerprint>\w*) -->.*?<!-- end -->", re.DOTALL)


def run_page(view: RunView) -> str:
    """The page as HTML. Styles and the script are allowed by their hashes, and nothing else is."""
    shards = view.manifest.fingerprint
    style, script = _asset("page.css"), _asset("page.js")
    cautions = "".join(f"<li>{escape(each)}</li>" for each in sections.cautions(view))
    bodies = [
        ("curves", "How it went", sections.curves(view)),
        ("sources", "Held-out loss by source", sections.by_source(view)),
        ("samples", "Answers before and after", sections.samples(view)),
        ("certificate", "Certificate", _marked(sections.certificate(view.certificate, shards), shards)),
        ("kept", "What it left", sections.kept(view)),
        ("data", "Data", sections.data(view)),
        ("settings", "Settings and machine", sections.settings(view)),
        ("history", "History", sections.history(view)),
    ]
    shown = [(name, title, body) for name, title, body in bodies if body]
    allowed = f"style-src {_hash(style)}; script-src {_hash(script)}"
    last = view.segments[-1]
    return Template(_asset("page.html")).substitute(
        policy=f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        name=escape(view.name),
        verdict=escape(sections.verdict(view)),
        state="running" if last.outcome == RUNNING else last.outcome.split()[0].rstrip(":"),
        made=escape(
            f"{last.seen.replace('T', ' ').removesuffix('+00:00')} UTC · sftpack {last.versions.get('sftpack', '')}"
        ),
        what=sections.what(view),
        headline=sections.headline(view),
        cautions=f'<ul class="cautions">{cautions}</ul>' if cautions else "",
        nav="".join(f'<a href="#{name}">{title}</a>' for name, title, _ in shown),
        body="".join(f'<section id="{name}"><h2>{title}</h2>{body}</section>' for name, title, body in shown),
    )


def show_certificate(page: Path, certificate: dict[str, Any]) -> None:
    """Put a certificate that came later into the page of a run, where there is one."""
    if page.is_file() and (found := PLACE.search(text := page.read_text(encoding="utf-8"))):
        body = sections.certificate(certificate, found["fingerprint"])
        write_text_whole(page, text[: found.start()] + _marked(body, found["fingerprint"]) + text[found.end() :])


def _marked(body: str, fingerprint: str) -> str:
    """Where a certificate stands, and the shards that it should be of."""
    return f"<!-- certificate of {fingerprint} -->{body}<!-- end -->"


def _asset(name: str) -> str:
    return (files("train.page") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
