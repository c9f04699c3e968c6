"""Bytes of a text file in, the same text as UTF-8 out; the encoding is found out from the file's beginning.

UTF-16 is known by its byte order mark, or by the zeros that are every second byte of ASCII in it. A beginning of which
no line with non-ASCII characters is UTF-8 is judged by charset-normalizer to be GB18030, Big5 or Shift-JIS (as Windows
extends both: cp950, cp932), EUC-JP or EUC-KR, if there is enough of it to judge. ASCII with accented letters here and
there is Windows-1252, of which Latin-1's letters are a part.
"""

import codecs
import re
from collections.abc import Iterator
from itertools import chain

from schemas.errors import InputError

SAMPLE_BYTES = 64 << 10

_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_LEGACY = ["gb18030", "cp950", "cp932", "euc_jp", "euc_kr"]
_LEAST_BYTES = 32  # outside ASCII; the fewer, the likelier is a wrong guess, which would train on nonsense
_LEAST_DECODED = 0.8  # of the lines with bytes outside ASCII
_LEAST_ZEROS = 0.05  # of the pairs of bytes
_LEAST_ACCENTS = 3
_HIGH = re.compile(rb"[\x80-\xff]+")
# One or two letters with accents, beside a plain one; not those of Icelandic: in Turkish encodings they are others.
_ACCENTED = re.compile(
    rb"(?:(?<=[A-Za-z])(?:[\xc0-\xcf\xd1-\xd6\xd8-\xdc\xdf-\xef\xf1-\xf6\xf8-\xfc\xff]{1,2}|\x92(?=[a-z]))"
    rb"|(?<![\x80-\xff])[\xc0-\xcf\xd1-\xd6\xd8-\xdc\xdf-\xef\xf1-\xf6\xf8-\xfc\xff]{1,2}(?=[a-z]))(?![\x80-\xff])"
)
_SIGN = re.compile(rb"[\x80\x85\x91-\x94\x96\x97\xa1\xa3\xa9\xab\xae\xb0\xb7\xbb\xbf]")  # quotes, dashes and such
_LEAST_KNOWN = 0.9  # letters and signs, of the bytes outside ASCII
_MOST_HIGH = 0.25  # of all bytes
_BROKEN = "sftpack-broken"


def checked_encoding(name: str | None) -> str | None:
    """Give the name of a text encoding that Python knows as Python spells it. Raises InputError for any other."""
    if name is None:
        return None
    try:
        found = codecs.lookup(name)
        _decoder(name).decode("a".encode(name), True)  # LookupError where bytes are encoded, ValueError in idna
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(
            f"--encoding {name}: no such encoding; use one that Python knows, such as utf-8, gb18030, big5, shift_jis, "
            "euc_kr, cp1252 or utf-16"
        ) from error
    return found.name


def encoding_of(head: bytes) -> str | None:
    """Name the encoding that a file beginning with `head` is to be read in; None for UTF-8, and where none is found."""
    if head[:2] in _UTF_16:
        return _UTF_16[head[:2]]
    if b"\0" in head[:SAMPLE_BYTES] and (name := _unmarked_utf16(head[: SAMPLE_BYTES & ~1])):
        return name
    if head.isascii():
        return None
    lines = _sample(head)
    if any(_is_utf8(line) for line in lines):
        return None
    found = _judged(lines) if sum(byte > 0x7F for byte in b"".join(lines)) >= _LEAST_BYTES else None
    return found or _western(lines)


def as_utf8(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the text of `chunks` as UTF-8; what can't be decoded stays no UTF-8, so that it costs its own row only."""
    decoder = _decoder(encoding)
    first = True
    for chunk in chain(chunks, [b""]):
        text = decoder.decode(chunk, not chunk)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if text:
            yield text.encode("utf-8", "surrogatepass")


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    codecs.register_error(_BROKEN, _as_broken)
    return codecs.getincrementaldecoder(encoding)(_BROKEN)


def _as_broken(error: UnicodeError) -> tuple[str, int]:
    """Put half of a surrogate pair, which UTF-8 never has, for what can't be decoded, and go on after it."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


def _sample(head: bytes) -> list[bytes]:
    """Give the first lines that are not ASCII."""
    found: list[bytes] = []
    size = 0
    for line in head.split(b"\n"):
        if size and size + len(line) > SAMPLE_BYTES:
            break
        if not line.isascii():
            found.append(line[:SAMPLE_BYTES])
            size += len(line)
    return found


def _unmarked_utf16(head: bytes) -> str | None:
    pairs = len(head) // 2
    first, second = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if max(first, second) < max(3, _LEAST_ZEROS * pairs) or 4 * min(first, second) > max(first, second):
        return None
    name = "utf-16-le" if second > first else "utf-16-be"
    sample = head[: 2 * pairs].decode(name, "replace")
    return name if sample.count("\ufffd") * 20 <= len(sample) else None


def _western(lines: list[bytes]) -> str | None:
    """Tell Windows-1252 by single letters with accents beside plain ones, which are nearly all that is not ASCII."""
    text = b"\n".join(lines)
    high = sum(len(run) for run in _HIGH.findall(text))
    runs = _ACCENTED.findall(text)
    pairs, signs = sum(len(run) == 2 for run in runs), len(_SIGN.findall(text))
    accented = len(runs) + pairs
    if accented < max(_LEAST_ACCENTS, signs) or 2 * pairs > len(runs) or high > _MOST_HIGH * len(text):
        return None
    return "cp1252" if accented + signs >= _LEAST_KNOWN * high else None


def _judged(lines: list[bytes]) -> str | None:
    """Judge each encoding by the lines that it can decode, if those are nearly all: the rest may be broken."""
    from charset_normalizer import from_bytes

    matches = []
    for encoding in _LEGACY:
        whole = [decoded for line in lines if (decoded := _decoded(line, encoding))]
        if len(whole) >= _LEAST_DECODED * len(lines):
            best = from_bytes(b"\n".join(whole), cp_isolation=[encoding]).best()
            if best is not None and best.encoding == encoding:
                matches.append((best.chaos, -best.coherence, encoding))
    return min(matches)[2] if matches else None


def _decoded(line: bytes, encoding: str) -> bytes:
    """Give a line without a character that it ends within; nothing where it can't be decoded."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(line).encode(encoding)
    except UnicodeError:
        return b""


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True
