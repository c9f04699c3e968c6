"""Input files before they are read, and whether they are the same after: else the manifest would tell of neither."""

import os
from contextlib import suppress

from dataprep.stages.read.inputs import STDIN, RawFile
from schemas.errors import InputError


class Unchanged:
    """What the file system says of input files before they are read."""

    def __init__(self, files: list[RawFile]) -> None:
        self._files = {file.path: file.name for file in files if not (file.remote or file.name == STDIN)}
        self._before: dict[object, os.stat_result] = {}
        for path in self._files:
            with suppress(OSError):
                self._before[path] = path.stat()

    def check(self) -> None:
        """Raise InputError for a file that was written to meanwhile, save where it only grew: what was there stands."""
        for path, name in self._files.items():
            try:
                now = path.stat()
            except OSError:  # read to its end, and then removed
                continue
            before = self._before.get(path)
            if before is None or (now.st_ino == before.st_ino and now.st_size > before.st_size):
                continue
            if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
                raise InputError(f"{name}: was changed while it was read; run it again when nothing writes to it")
