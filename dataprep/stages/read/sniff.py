"""The first bytes of a file in; what kind of file it is, whatever its ending says, out."""

import re
from collections.abc import Iterator
from pathlib import Path

import orjson

from dataprep.stages.read.encodings import as_utf8, encoding_of
from dataprep.stages.read.json_files import first_value, starts_array_of_rows
from dataprep.stages.read.unpack import unpacked_head

HEAD_BYTES = 1 << 20

_BOM = b"\xef\xbb\xbf"
_MAGIC = {
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
    b"\xff\xff\xff\xff": ".arrow",
    b"PK\x03\x04": ".zip",
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"BZh": ".bz2",
    b"\xfd7zXZ\0": ".xz",
}
_TAR = (257, b"ustar")
# the second line of JSON spread over lines, behind a first one of a bracket alone
_GOES_ON = {b"[": re.compile(rb"[\[{\]]"), b"{": re.compile(rb'"(?:[^"\\]|\\.)*"\s*:|\}')}
_NO_TEXT = re.compile(rb"[\0-\x08]")
_BEGINS = re.compile(rb'[\[{]\s*(?:[\[{"\]}]|$)')


def ending_of(path: Path) -> tuple[str, str]:
    """Give the ending and packing that a file's content speaks for; empty where it speaks for none."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    kind = _kind(head)
    if kind not in (".gz", ".zst", ".bz2", ".xz"):
        return kind, ""
    inner = _kind(unpacked_head(head, kind, HEAD_BYTES))
    return inner if inner in (".json", ".jsonl", ".tar") else "", kind


def disguised(head: bytes) -> str:
    """Give the ending that should stand where text was expected and `head` is none; empty where it is text."""
    for magic, ending in _MAGIC.items():
        if head.startswith(magic) and _NO_TEXT.search(head):
            return ending
    return ".tar" if head[_TAR[0] :].startswith(_TAR[1]) and b"\0" in head else ""


def holds_json(head: bytes, ending: str) -> bool:
    """Tell whether a file that begins with `head` holds JSON values as such and not one a line.

    It holds lines where its first line is a whole value and more follows, or the second is and the first begins an
    object. Where the ending says lines, it must begin an array of rows or an object that is spread over lines.
    """
    lines = _first_lines(head)
    if len(lines) == 2 and (_is_value(lines[0]) or (_begins_broken(lines[0]) and _is_value(lines[1]))):
        return False
    if ending == ".json":
        return True
    if not lines or not lines[0].startswith((b"[", b"{")):
        return False
    if len(lines) == 2 and lines[0] in _GOES_ON:
        return bool(_GOES_ON[lines[0]].match(lines[1]))
    if lines[0].startswith(b"["):
        return not (len(lines) == 2 and _is_value(lines[1])) and starts_array_of_rows(head)
    return len(lines) == 2 and _is_value(first_value(head))


def _begins_broken(line: bytes) -> bool:
    """Tell whether a line that is no value would be one row of many: not where only a comma follows it."""
    return line.startswith(b"{") and not _is_value(line.removesuffix(b","))


def _kind(head: bytes) -> str:
    for magic, ending in _MAGIC.items():
        if head.startswith(magic):
            return ending
    if head[_TAR[0] :].startswith(_TAR[1]):
        return ".tar"
    encoding = encoding_of(head)
    text = b"".join(as_utf8(iter([head]), encoding)) if encoding else head.removeprefix(_BOM)
    lines = _first_lines(text)
    if any(_is_value(line) for line in lines):
        return ".jsonl"
    return ".json" if lines and _BEGINS.match(text.lstrip()) else ""


def _first_lines(head: bytes) -> list[bytes]:
    """Give the first two lines that are not blank."""
    return list(_lines(head.removeprefix(_BOM)))


def _lines(head: bytes) -> Iterator[bytes]:
    begin = found = 0
    while begin < len(head) and found < 2:
        end = head.find(b"\n", begin)
        end = len(head) if end < 0 else end
        if line := head[begin:end].strip():
            found += 1
            yield line
        begin = end + 1


def _is_value(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict | list)
    except ValueError:
        return False
