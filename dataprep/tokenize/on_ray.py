"""Making the chunks of examples that aren't in the cache, on a Ray cluster.

A task is a run of consecutive chunks, and writes them itself; nothing but counts comes back.
"""

import importlib.util
import socket
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from dataprep.core.chunk_files import chunk_files
from dataprep.core.chunks import Chunk
from dataprep.core.progress import progress_bar
from dataprep.core.ray_tasks import connected, run_on_ray
from dataprep.core.workers import num_cores
from dataprep.tokenize.fill import Filled, TokenWork, fill_cache, load, make_chunks, most_workers, num_rows, tasks_of
from schemas.errors import CacheError, SftpackError
from schemas.files import sha256_file

_UNSEEN_S = 90.0  # how long a network file system may hide what other machines have written
_DECIDING = ("sftpack", "transformers", "tokenizers", "fastokens", "jinja2")  # programs that ids and masks hang on


def fill_on_ray(work: TokenWork, chunks: Sequence[Chunk], workers: int | None = None) -> Filled:
    """Make these chunks on a Ray cluster; few are made here.

    Raises CacheError where what the cluster made isn't to be seen here.
    """
    if most_workers(chunks) == 1:
        return fill_cache(work, chunks, workers)
    work.folder.mkdir(parents=True, exist_ok=True)
    tasks = list(tasks_of(chunks, min(workers or num_cores(), most_workers(chunks))))
    begin = work.absolute(), sha256_file(work.conversations / "manifest.json"), _programs()
    with (
        connected(workers or num_cores()) as cluster,
        progress_bar(num_rows(chunks), " conversations", "tokenize") as bar,
    ):
        for _, done in run_on_ray(make_chunks, tasks, workers, _load_elsewhere, begin):
            bar.update(done)
        text = cluster.text()
    _await_chunks(work.folder, chunks)
    return Filled(tokenized=num_rows(chunks), cluster=text)


def _await_chunks(folder: Path, chunks: Sequence[Chunk]) -> None:
    """Wait until they are to be seen here: network file systems keep listings for up to a minute."""
    until = time.monotonic() + _UNSEEN_S
    while unseen := {chunk.key for chunk in chunks} - chunk_files(folder).keys():
        if time.monotonic() > until:
            raise CacheError(
                f"{folder}: {len(unseen)} chunks that the cluster wrote aren't to be seen here; CACHE must lie in "
                "a folder that all nodes share, under the same path"
            )
        time.sleep(1)


def _load_elsewhere(work: TokenWork, conversations_sha256: str, programs: dict[str, str]) -> None:
    """Load in a worker of a cluster, once it is shown to see the same cache, and to have the same programs."""
    node, path = socket.gethostname(), work.conversations / "manifest.json"
    if not path.is_file() or sha256_file(path) != conversations_sha256:
        raise CacheError(
            f"{path}: node {node} doesn't find it, or another file; CACHE must lie in a folder that all nodes share, "
            "under the same path"
        )
    for name, here in _programs().items():
        if programs.get(name) != here:
            raise SftpackError(
                f"node {node} has {name} {here}, not {programs.get(name)}; install the same on every node"
            )
    load(work)


def _programs() -> dict[str, str]:
    """Versions of what decides ids and masks."""
    return {name: version(name) for name in _DECIDING if name == "sftpack" or importlib.util.find_spec(name)}
