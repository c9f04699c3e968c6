"""Leftovers of HTML in prose: entities such as &nbsp; and tags such as <br>, as pages leave them when text is cut out.

A conversation that is about markup (it names HTML, XML or CSS, or holds a tag that only a whole page has) is left as
it is, and so is code. Entities count only with their semicolon, tags only as HTML writes them (`a < b` and `<user
name>` are no tags), and tags that come in pairs only where both halves are there.
"""

import html
import re
from collections.abc import Sequence
from functools import partial
from html.entities import html5

from stringzilla import find

from dataprep.stages.clean.prose import outside_code

# Words and tags, in small letters, that tell a talk of markup, or a whole page.
_ABOUT = ["html", "xml", "svg", "css", "php", "jsp", "xss", "jsx", "javascript", "typescript", "markup", "markdown"]
_ABOUT += [
    "webpage",
    "web page",
    "> tag",
    "网页",
    "前端",
    "标签",
    "转义",
    "<head",
    "<body",
    "<script",
    "<style",
    "<table",
]
_ABOUT += ["<form", "<input", "<button", "<select", "<pre", "<code", "<iframe", "<!--", "<!doctype"]
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

_ATTRIBUTES = r"""(?:\s+[A-Za-z][\w:-]*(?:\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=]+)))*\s*"""
_BREAK = re.compile(rf"(?<![ \t])[ \t]*<br{_ATTRIBUTES}/?>[ \t]*\n?", re.IGNORECASE)
_BLOCKS = "p|div|h[1-6]|ul|ol|li|blockquote|center|section|article"
_BLOCK_RUN = re.compile(rf"(?<!\s)\s*(?:</?(?:{_BLOCKS}){_ATTRIBUTES}>\s*)+", re.IGNORECASE)
_INLINES = "a|span|font|strong|em|b|i|u|small|big"
_INLINE = re.compile(rf"</?({_INLINES}){_ATTRIBUTES}>", re.IGNORECASE)
_CLOSING = re.compile(rf"</({_BLOCKS})\s*>", re.IGNORECASE)
_OPENING = re.compile(rf"<({_BLOCKS}){_ATTRIBUTES}>", re.IGNORECASE)


_TAG = re.compile(rf"</?(?:br|{_BLOCKS}|{_INLINES})\b", re.IGNORECASE)


def has_markup(texts: Sequence[str]) -> bool:
    """Tell whether texts of one conversation hold what may be markup, and none speaks of it or is a page of it."""
    if not any(map(_may_hold, texts)):
        return False
    talk = "\n".join(texts).lower()
    return all(find(talk, word) < 0 for word in _ABOUT)


def without_markup(text: str) -> str:
    """Write out a text's entities, turn <br> and paragraphs into line ends, and take other listed tags out."""
    return outside_code(_plain, text) if _may_hold(text) else text


def _may_hold(text: str) -> bool:
    return ("&" in text and _ENTITY.search(text) is not None) or ("<" in text and _TAG.search(text) is not None)


def _plain(text: str) -> str:
    while True:
        mended = _ENTITY.sub(_character, text) if "&" in text else text
        if "<" in mended and _TAG.search(mended):
            mended = _without_tags(mended)
        if mended == text:
            return text
        text = mended


def _character(match: re.Match[str]) -> str:
    entity = match[0]
    if entity == "&nbsp;" or entity == "&#160;" or entity.lower() == "&#xa0;":
        return " "
    if entity[1] != "#" and entity[1:] not in html5:
        return entity
    return html.unescape(entity)


def _without_tags(text: str) -> str:
    text = _BREAK.sub("\n", text)
    if _names(_OPENING, text) & _names(_CLOSING, text):
        text = _BLOCK_RUN.sub(partial(_paragraph, text), text)
    halves = {(match[1].lower(), match[0][1] == "/") for match in _INLINE.finditer(text)}
    paired = {name for name, closes in halves if (name, not closes) in halves}
    return _INLINE.sub(lambda match: "" if match[1].lower() in paired else match[0], text) if paired else text


def _names(tag: re.Pattern[str], text: str) -> set[str]:
    return {match[1].lower() for match in tag.finditer(text)}


def _paragraph(text: str, match: re.Match[str]) -> str:
    if match.start() == 0 or match.end() == len(text):
        return ""
    return "\n" if "<li" in match[0].lower() else "\n\n"
