"""Bytes of a text file in, the same text as UTF-8 out; the encoding is found out from the file's beginning.

UTF-16 is known by its byte order mark. A beginning of which no line with non-ASCII characters is UTF-8 is judged by
charset-normalizer to be GB18030, Big5 or Shift-JIS (as Windows extends both: cp950, cp932), EUC-JP or EUC-KR, if there
is enough of it to judge.
"""

from collections.abc import Iterator
from itertools import chain

SAMPLE_BYTES = 64 << 10

_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_LEGACY = ["gb18030", "cp950", "cp932", "euc_jp", "euc_kr"]
_LEAST_BYTES = 32  # outside ASCII; the fewer, the likelier is a wrong guess, which would train on nonsense
_LEAST_DECODED = 0.8  # of the lines with bytes outside ASCII


def encoding_of(head: bytes) -> str | None:
    """Name the encoding that a file beginning with `head` is to be read in; None for UTF-8, and where none is found."""
    if head[:2] in _UTF_16:
        return _UTF_16[head[:2]]
    sample = head[:SAMPLE_BYTES]
    if len(head) >= SAMPLE_BYTES:
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    lines = [line for line in sample.split(b"\n") if not line.isascii()]
    if any(_is_utf8(line) for line in lines) or sum(byte > 0x7F for byte in b"".join(lines)) < _LEAST_BYTES:
        return None
    return _judged(lines)


def as_utf8(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the text of `chunks` as UTF-8; what can't be decoded stays no UTF-8, so that it costs its own row only."""
    if encoding in _UTF_16.values():
        yield from _from_utf16(chunks, encoding)
        return
    rest = b""
    for chunk in chain(chunks, [b""]):
        held = rest + chunk
        end = held.rfind(b"\n") + 1 if chunk else len(held)
        whole, rest = held[:end], held[end:]
        try:
            yield whole.decode(encoding).encode("utf-8")
        except UnicodeDecodeError:
            yield b"\n".join(_line_as_utf8(line, encoding) for line in whole.split(b"\n"))


def _judged(lines: list[bytes]) -> str | None:
    """Judge each encoding by the lines that it can decode, if those are nearly all: the rest may be broken."""
    from charset_normalizer import from_bytes

    matches = []
    for encoding in _LEGACY:
        whole = [line for line in lines if _decodes(line, encoding)]
        if len(whole) >= _LEAST_DECODED * len(lines):
            best = from_bytes(b"\n".join(whole), cp_isolation=[encoding]).best()
            if best is not None and best.encoding == encoding:
                matches.append((best.chaos, -best.coherence, encoding))
    return min(matches)[2] if matches else None


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _from_utf16(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    held = next(chunks, b"")[2:]
    for chunk in chain(chunks, [b""]):
        end = len(held) & ~1
        if end >= 2 and chunk and held[end - 1 if encoding == "utf-16-le" else end - 2] & 0xFC == 0xD8:
            end -= 2  # the first half of a pair waits for the second
        yield held[:end].decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
        held = held[end:] + chunk
    if held:
        yield b"\xff"


def _line_as_utf8(line: bytes, encoding: str) -> bytes:
    try:
        return line.decode(encoding).encode("utf-8")
    except UnicodeDecodeError:
        return line if not _is_utf8(line) else line + b"\xff"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True
