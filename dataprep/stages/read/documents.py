"""Bytes of a .txt file in, documents out.

A file of up to 1 MiB is one document. A larger one is divided at blank lines into documents of about that size, and
at a line's end where 16 MiB hold no blank line. Blank lines around a document are left out, and lines end in a newline.
"""

import re
from collections.abc import Iterator

from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read.raw import RawRow, Segment

DOCUMENT_BYTES = 1 << 20
LONGEST_DOCUMENTS = 16  # times DOCUMENT_BYTES

_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")
_BOM = b"\xef\xbb\xbf"


def documents(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield (bytes, the line that they begin on) for each document; together they are the whole file."""
    held, line = b"", 1
    for chunk in chunks:
        held += chunk
        while len(held) > DOCUMENT_BYTES and (end := _end(held)):
            yield held[:end], line
            line += held.count(b"\n", 0, end)
            held = held[end:]
    if held:
        yield held, line


def document_rows(segment: Segment) -> Iterator[RawRow]:
    """Yield a document as the one row {"text"}; none where it is blank."""
    assert segment.data is not None
    data = segment.data.removeprefix(_BOM) if segment.first_row == 1 else segment.data
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} at position {error.start + 1}"
        yield segment.first_row, TurnedAway("bad-encoding", f"{found} is not UTF-8"), data
        return
    lines = text.split("\n")
    first = next((index for index, line in enumerate(lines) if line.strip()), None)
    if first is not None:
        while not lines[-1].strip():
            lines.pop()
        yield segment.first_row + first, {"text": "\n".join(lines[first:])}, None


def _end(held: bytes) -> int:
    """Find where the first document of `held` ends; 0 where more must be read to know."""
    end = 0
    for found in _BLANK_LINE.finditer(held):
        if end and found.end() > DOCUMENT_BYTES:
            break
        end = found.end()
    if not end and len(held) > LONGEST_DOCUMENTS * DOCUMENT_BYTES:
        end = held.rfind(b"\n") + 1 or len(held)
    return end
