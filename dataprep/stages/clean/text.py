"""Text steps: each takes a text and gives it mended; where nothing is found, it gives an equal text back.

None of them touches code inside fences, except for characters that belong nowhere.
"""

import re
from collections.abc import Sequence

from dataprep.stages.clean.prose import outside_code

# A terminal's colour goes as a whole; vertical tabs and page feeds end a line.
_CONTROL_CHARS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
_CONTROL_CHAR = re.compile(_CONTROL_CHARS)
_CONTROL = re.compile(rf"\x1b\[[0-9;]*[A-Za-z]|{_CONTROL_CHARS}")
# UTF-8 that was read as Latin-1, and that it was, which only a control character shows
_MISREAD = re.compile("[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_SURELY_MISREAD = re.compile("[\xc2-\xf4][\x80-\x9f]|[\xe0-\xf4][\x80-\xbf]{1,2}[\x80-\x9f]")

_CHINESE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = "，。！？；：、“”‘’（）《》…—"
_GAP = re.compile(rf" (?<=[{_CHINESE}] ) *(?=[{_CHINESE}])")
_TOUCHING = re.compile(rf"[{_CHINESE}](?=[{_CHINESE}])")
_ANY_GAP = re.compile(rf" (?<=[{_CHINESE}{_MARKS}] ) *(?=[{_CHINESE}{_MARKS}])")
MIN_GAPS, MIN_GAP_SHARE = 6, 0.5

_ODD = re.compile("[\u00a0\u2000-\u200b\u2028\u2029\u202f\u205f\u2060\ufeff]")
_BLANK_LINES = re.compile("\n{4,}")
_INVISIBLE, _LINE_BREAKS = "\u200b\u2060\ufeff", "\u2028\u2029"

_ROLE = r"(?:system|user|assistant|tool|model|human)?"
_TOKEN = re.compile(
    rf"<\|start_header_id\|>{_ROLE}<\|end_header_id\|>\n*"
    rf"|<\|im_start\|>{_ROLE}\n?|<start_of_turn>{_ROLE}\n?"
    r"|<\|[A-Za-z0-9_]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|<(?:reserved_|unused|extra_id_)[0-9]{1,4}>"
    r"|<</?SYS>>|\[/?INST\]|\[gMASK\]|<(?:eot|eoh|eoa|eom|bos|eos|sop|eop|pad|end_of_turn)>"
)
_SENTENCE_MARK = re.compile("</?s>")

_KIND = "NAME|EMAIL|PHONE|PHONE_NUMBER|EMAIL_ADDRESS|FIRST_NAME|LAST_NAME|FULL_NAME|USERNAME|FIRSTNAME|LASTNAME"
_PLACEHOLDER = re.compile(
    rf"\{{\{{ ?[A-Za-z_\u4e00-\u9fff][\w\u4e00-\u9fff]{{0,30}} ?\}}\}}|<(?:{_KIND})(?:_[0-9]+)?>"
    rf"|\[(?:{_KIND})(?:_[0-9]+)?\]|NAME_(?<![A-Za-z_]NAME_)[0-9]+\b"
)


def without_replacement_chars(text: str) -> str:
    """Take U+FFFD out."""
    return text.replace("\ufffd", "")


def without_control_chars(text: str) -> str:
    """Take control characters out, or write what they stood for.

    Vertical tabs and page feeds end a line. U+0080 to U+009F are what is left of text read as Latin-1: of UTF-8
    (`Ã` and U+0089 for `É`), which is read anew, or of Windows-1252 (U+0092 for `’`).
    """
    if not _CONTROL_CHAR.search(text):
        return text
    if _SURELY_MISREAD.search(text):
        text = _MISREAD.sub(_read_anew, text)
    return _CONTROL.sub(_instead, text)


def _read_anew(match: re.Match[str]) -> str:
    try:
        return match[0].encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return match[0]


def _instead(match: re.Match[str]) -> str:
    character = match[0]
    if character in "\x0b\x0c":
        return "\n"
    return character.encode("latin-1").decode("cp1252", "ignore") if character >= "\x80" else ""


def without_control_tokens(text: str) -> str:
    """Take the control tokens of chat templates out of prose, with the role that follows one."""
    return outside_code(_without_tokens, text) if "s>" in text or _TOKEN.search(text) else text


def without_placeholders(text: str) -> str:
    """Take placeholders out of prose."""
    return outside_code(lambda prose: _PLACEHOLDER.sub("", prose), text) if _PLACEHOLDER.search(text) else text


def is_spaced_chinese(texts: Sequence[str]) -> bool:
    """Tell whether the Chinese in some texts stands with spaces between: at most of the places where two could touch.

    Twelve words in a list don't make it so: it takes more gaps than touching characters, and MIN_GAPS of them.
    """
    gaps = sum(len(_GAP.findall(text)) for text in texts)
    if gaps < MIN_GAPS:
        return False
    touching = sum(len(_TOUCHING.findall(text)) for text in texts)
    return gaps > MIN_GAP_SHARE * (gaps + touching)


def joined_chinese(text: str) -> str:
    """Close the gaps between Chinese characters, and between those and their punctuation."""
    return outside_code(lambda prose: _ANY_GAP.sub("", prose), text)


def tidy_spaces(text: str) -> str:
    """Make odd spaces plain, take invisible ones out, and spaces at the ends of lines and around the message.

    U+200C and U+200D stay, which emoji and many scripts need; U+3000 stays but at the end of a line, as Chinese
    paragraphs begin with it; two spaces before a line end stay, as Markdown breaks the line there.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _ends_in_space(text) or "\n\n\n\n" in text or _has_odd_space(text):
        text = outside_code(_tidy, text)
    return text.lstrip(" \t\n").rstrip(" \t\n\u3000")


def _ends_in_space(text: str) -> bool:
    """Tell whether any line but the last ends so."""
    return " \n" in text or "\t\n" in text or "\u3000\n" in text


def _has_odd_space(text: str) -> bool:
    return not text.isascii() and _ODD.search(text) is not None


def _tidy(prose: str) -> str:
    if _has_odd_space(prose):
        prose = _ODD.sub(_plain_space, prose)
    if _ends_in_space(prose):
        *lines, last = prose.split("\n")
        prose = "\n".join([*map(_without_trailing, lines), last])
    return _BLANK_LINES.sub("\n\n", prose) if "\n\n\n\n" in prose else prose


def _plain_space(match: re.Match[str]) -> str:
    if match[0] in _INVISIBLE:
        return ""
    return "\n" if match[0] in _LINE_BREAKS else " "


def _without_trailing(line: str) -> str:
    text = line.rstrip(" \t\u3000")
    return line if text and line == text + "  " else text


def _without_tokens(prose: str) -> str:
    prose = _TOKEN.sub("", prose)
    if "s>" in prose and not _is_struck_through(prose):
        prose = _SENTENCE_MARK.sub("", prose)
    return prose


def _is_struck_through(prose: str) -> bool:
    """Tell HTML's <s>some words</s> from the marks around a whole text."""
    whole = prose.startswith("<s>") and prose.rstrip().endswith("</s>")
    return prose.count("<s>") == prose.count("</s>") and not whole
