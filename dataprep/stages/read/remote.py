"""A URL in, the files there out; read as streams, whose end is checked: http by Python itself, all else by fsspec.

Nothing is kept: every run reads them again. Passwords and servers are set where each protocol's package looks for them.
"""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from dataprep.core.errors import first_line
from dataprep.core.file_systems import file_system
from schemas.errors import InputError

_WEB = ("http", "https")
_TIMEOUT_S = 60.0
_VERSION_FIELDS = ("Last-Modified", "LastModified", "last_modified", "mtime", "updated", "etag", "ETag")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file that isn't on this machine."""

    url: str
    bytes: int
    version: str  # what the server tells of its content, beside its length

    @property
    def name(self) -> str:
        """The file's own name."""
        return PurePosixPath(unquote(_path(self.url))).name

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open it from its beginning. Raises InputError where it has changed, or ends before its length."""
        with _told(self.url):
            stream, now = _opened(self.url)
        with stream:
            if now != self:
                raise InputError(f"{self.url}: was changed while it was read; run it again when nothing writes to it")
            yield _Counted(stream, self)  # type: ignore[misc]


class _Counted:
    """A stream that fails where it ends early."""

    def __init__(self, stream: Any, file: Remote) -> None:
        self._stream, self._file, self._taken = stream, file, 0

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; none at the end."""
        with _told(self._file.url):
            data: bytes = self._stream.read(size)
        self._taken += len(data)
        if not data and size and self._taken != self._file.bytes:
            raise InputError(
                f"{self._file.url}: ended after {self._taken:,} of {self._file.bytes:,} bytes; run the command again, "
                "or download it first"
            )
        return data


def remote_files(given: str) -> list[Remote]:
    """Name the files that a URL stands for: one, or those of a folder or a glob, sorted. Raises InputError."""
    with _told(given):
        if urlsplit(given).scheme.lower() in _WEB:
            stream, file = _opened(given)
            stream.close()
            return [file]
        system, path = file_system(given)
        if glob.has_magic(path):
            paths = [found for found in system.glob(path) if not system.isdir(found)]
        else:
            paths = system.find(path)  # of a file: itself
        if not paths:
            raise InputError(f"{given}: no such file or folder there; check the name")
        return [_described(system, path) for path in sorted(paths)]


def _opened(url: str) -> tuple[Any, Remote]:
    """A stream of the file's bytes, and what it is now."""
    if urlsplit(url).scheme.lower() in _WEB:
        return _opened_on_web(url)
    system, path = file_system(url)
    system.invalidate_cache()
    file = _described(system, path)
    return system.open(path, "rb"), file


def _opened_on_web(url: str) -> tuple[Any, Remote]:
    import urllib.request

    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "sftpack"})
    response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    length = response.headers.get("Content-Length")
    if length is None:
        response.close()
        raise InputError(
            f"{url}: the server doesn't tell its length, so a broken download couldn't be told; download it first"
        )
    return response, Remote(url=url, bytes=int(length), version=_version(response.headers))


def _described(system: Any, path: str) -> Remote:
    info = system.info(path)
    return Remote(url=str(system.unstrip_protocol(path)), bytes=int(info["size"]), version=_version(info))


def _version(info: Any) -> str:
    return next((str(info[name]) for name in _VERSION_FIELDS if info.get(name) is not None), "")


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn what a server, a network or a protocol's package raises into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = first_line(error) or type(error).__name__
        raise InputError(f"{url}: cannot be read: {reason}; check the name, the network and the credentials") from error


def _path(url: str) -> str:
    return urlsplit(url).path if urlsplit(url).scheme.lower() in _WEB else url
