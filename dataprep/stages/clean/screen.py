"""Which steps may find something in a conversation, by searches in its JSON alone: exact where it says no.

Nearly all conversations leave here with an empty list. Bytes that never stand for themselves in JSON tell much: a
quotation mark inside a text has a backslash before it, so that `,""` is an empty text and ` "` ends one with a space.
The searches are StringZilla's: over ten times as fast as the interpreter's own for more than one byte.
"""

import re

from stringzilla import count, find, find_first_of

from dataprep.stages.clean.text import MIN_GAPS

_MARKS = b"<&{_\x7f\xc2"
_UNUSUAL = _MARKS + bytes(range(0x80, 0x100))
_BRACKETED = (b"[INST]", b"[/INST]", b"[gMASK]")
_TOKENS: tuple[bytes, ...] = (b"<|", b"<\xef\xbd\x9c", b"<s>", b"</s>", b"<<", b"<eo", b"<bos>", b"<sop>", b"<pad>")
_TOKENS += (b"<start_of_turn>", b"<end_of_turn>", b"<reserved_", b"<unused", b"<extra_id_")
_KINDS = (b"NAME", b"EMAIL", b"PHONE")
_NUMBERED = (b"NAME_",)
_ESCAPES = {
    "control-chars": (b"\\u00", b"\\b", b"\\f"),
    "spaces": (b"\\r", b"\\t\\n", b'\\t"'),
}
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
_ODD_SPACE = re.compile(rb"\xe2(?:\x80[\x80-\x8b\xa8\xa9\xaf]|\x81[\x9f\xa0])")
_HAN = bytes(range(0xE3, 0xEA)) + b"\xef\xf0"  # first bytes of Chinese characters as UTF-8
_HAN_GAPS = tuple(bytes((0x20, first)) for first in _HAN)
_USUAL = (b"\xe2\x80\x9c", b"\xe2\x80\x9d", b"\xe2\x80\x99", b"\xe2\x80\xa6", b"\xe2\x80\x94", b"\xe2\x80\x98")


def suspected(canonical: bytes, num_messages: int) -> list[str]:
    """Name the steps that have to look at the messages; `empty-turns` stands for whether a text may be empty."""
    names: list[str] = []
    if find_first_of(canonical, _UNUSUAL) >= 0:
        _suspect_characters(canonical, names)
    # [[["user","…"],["assistant","…"]],null]: more brackets are in a text, or around tool calls
    if count(canonical, b"[") > num_messages + 2:
        _suspect_brackets(canonical, names)
    if find(canonical, b',""') >= 0:
        names.append("empty-turns")
    if find(canonical, b'," ') >= 0:
        names += ("spaces", "empty-turns")
    elif find(canonical, b' "') >= 0:
        names.append("spaces")
    if backslashes := count(canonical, b"\\"):
        _suspect_escapes(canonical, backslashes, names)
    return names


def _suspect_characters(canonical: bytes, names: list[str]) -> None:
    if not canonical.isascii():
        _suspect_unicode(canonical, names)
        if find_first_of(canonical, _MARKS) < 0:
            return
    opens = find(canonical, b"<") >= 0
    if opens or find(canonical, b"&") >= 0:
        names.append("html")
    if opens and _any(canonical, _TOKENS):
        names.append("control-tokens")
    if find(canonical, b"{{") >= 0 or _any(canonical, _KINDS if opens else _NUMBERED):
        names.append("placeholders")
    if find(canonical, b"\x7f") >= 0:
        names.append("control-chars")
    if find(canonical, b"\xc2") >= 0 and _C1.search(canonical):
        names += ("control-chars", "empty-turns")  # U+0085 counts as white space


def _suspect_unicode(canonical: bytes, names: list[str]) -> None:
    if find(canonical, b"\xef\xbf\xbd") >= 0:
        names.append("replacement-chars")
    if find(canonical, b"\xef\xbb\xbf") >= 0:
        names.append("spaces")
    if find(canonical, b"\xe3\x80\x80") >= 0 or _has_odd_space(canonical):
        names += ("spaces", "empty-turns")
    if find_first_of(canonical, _HAN) >= 0 and count(canonical, b" ") >= MIN_GAPS and _has_han_gaps(canonical):
        names.append("spaced-chinese")


def _suspect_brackets(canonical: bytes, names: list[str]) -> None:
    if _any(canonical, _BRACKETED):
        names.append("control-tokens")
    if _any(canonical, _KINDS):
        names.append("placeholders")


def _suspect_escapes(canonical: bytes, backslashes: int, names: list[str]) -> None:
    newlines = count(canonical, b"\\n")
    # where each backslash is of a newline or a quotation mark, there are no other escapes
    if backslashes > newlines and backslashes > newlines + count(canonical, b'\\"'):
        names += (name for name, escapes in _ESCAPES.items() if _any(canonical, escapes))
    if find(canonical, b',"\\') >= 0:  # a text that begins with a newline, or only with a quotation mark
        names += ("spaces", "empty-turns")
    elif newlines and (
        find(canonical, b" \\n") >= 0 or find(canonical, b'\\n"') >= 0 or find(canonical, b"\\n\\n\\n\\n") >= 0
    ):
        names.append("spaces")


def _has_odd_space(canonical: bytes) -> bool:
    if find(canonical, b"\xc2\xa0") >= 0 or find(canonical, b"\xe1\x9a\x80") >= 0:
        return True
    unusual = count(canonical, b"\xe2")
    for usual in _USUAL:  # quotation marks and dashes: mostly they are all there is
        if not unusual:
            return False
        unusual -= count(canonical, usual)
    return unusual > 0 and _ODD_SPACE.search(canonical) is not None


def _has_han_gaps(canonical: bytes) -> bool:
    return sum([count(canonical, gap) for gap in _HAN_GAPS]) >= MIN_GAPS


def _any(canonical: bytes, needles: tuple[bytes, ...]) -> bool:
    for needle in needles:  # noqa: SIM110 - a generator would cost more than the searches
        if find(canonical, needle) >= 0:
            return True
    return False
