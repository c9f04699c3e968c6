"""`dataprep template --table`: many templates on all probes, each in a process of its own, as one Markdown page.

A stranger's template may raise, loop or fill memory: each runs with a limit of time and memory, and whatever it does
becomes cells.
"""

import multiprocessing
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from dataprep.core.progress import progress_bar
from dataprep.core.workers import num_cores
from dataprep.template.probes import PROBES
from dataprep.template.proof import FAILED, Outcome, prove, words
from dataprep.template.subject import Subject, config_template, load_subject, load_template, read_template
from schemas.errors import InputError

TIMEOUT_S = 90.0
_MEMORY_BYTES = 6 << 30  # beyond what the process has when it starts
_SUFFIXES = (".jinja", ".jinja2")


@dataclass(slots=True, kw_only=True)
class Row:
    """One template's cells."""

    name: str
    path: Path
    own_tokenizer: bool  # else one was made for it
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # by probe

    def fail(self, detail: str) -> None:
        """Fill the cells that have no outcome."""
        for probe in PROBES:
            self.outcomes.setdefault(probe.name, Outcome(kind=FAILED, detail=detail))


def find_templates(places: Iterable[Path]) -> list[Row]:
    """The templates in files and folders: .jinja files, and folders of tokenizers. Raises InputError where none is."""
    rows: dict[Path, Row] = {}
    for place in places:
        found = list(_templates_in(place))
        if not found:
            raise InputError(f"{place}: no chat template; give .jinja files, tokenizers' folders, or folders of them")
        rows |= {row.path: row for row in found}
    _name_apart(list(rows.values()))
    return list(rows.values())


def _templates_in(place: Path) -> Iterator[Row]:
    if place.is_file():
        if place.suffix in _SUFFIXES:
            yield Row(name=place.stem, path=place, own_tokenizer=False)
        elif place.suffix == ".gguf":
            yield Row(name=place.stem, path=place, own_tokenizer=True)
        return
    folders = {config.parent for config in place.rglob("tokenizer_config.json")} if place.is_dir() else set()
    for folder in sorted(folders):
        own = (folder / "tokenizer.json").is_file()
        if own or config_template(folder) is not None:
            yield Row(name=folder.name, path=folder, own_tokenizer=own)
    for path in sorted(path for suffix in _SUFFIXES for path in place.rglob(f"*{suffix}")):
        if path.parent not in folders:
            yield Row(name=path.stem, path=path, own_tokenizer=False)


def _name_apart(rows: list[Row]) -> None:
    """Templates of one name get their folder's before it."""
    names = [row.name for row in rows]
    for row in rows:
        if names.count(row.name) > 1:
            row.name = f"{row.path.parent.name}/{row.name}"


def try_templates(rows: list[Row], base: Path | None, timeout_s: float = TIMEOUT_S) -> None:
    """Fill the rows; a template that takes longer than `timeout_s` keeps the cells it has."""
    import transformers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401 so that each process needn't

    transformers.logging.set_verbosity_error()
    PROBES[0].table()  # loads what a table needs
    method = "fork" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    waiting = deque(rows)
    running: dict[Connection, _Task] = {}
    with progress_bar(len(rows), " templates", "template") as bar:
        while waiting or running:
            while waiting and len(running) < num_cores():
                task = _start(context, waiting.popleft(), base, timeout_s)
                running[task.receiver] = task
            for receiver in [*wait(list(running), timeout=0.2)]:
                assert isinstance(receiver, Connection)
                running[receiver].receive()
            for receiver, task in list(running.items()):
                if task.ended():
                    del running[receiver]
                    bar.update()


@dataclass(slots=True, kw_only=True)
class _Task:
    """A process that tries one template."""

    row: Row
    process: BaseProcess
    receiver: Connection
    deadline: float
    done: bool = False

    def receive(self) -> None:
        try:
            name, outcome = self.receiver.recv()
        except (EOFError, OSError):
            self.done = True
            return
        if name:
            self.row.outcomes[name] = outcome
        else:
            self.row.fail(outcome.detail)

    def ended(self) -> bool:
        late = time.monotonic() > self.deadline
        if not self.done and not late:
            return False
        if late:
            self.process.kill()
        self.process.join()
        self.receiver.close()
        self.row.fail("no answer in time" if late else "its process was killed, likely for want of memory")
        return True


def _start(context: multiprocessing.context.BaseContext, row: Row, base: Path | None, timeout_s: float) -> _Task:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_try_one, args=(row.path, row.own_tokenizer, base, sender), daemon=True)  # type: ignore[attr-defined]
    process.start()
    sender.close()
    return _Task(row=row, process=process, receiver=receiver, deadline=time.monotonic() + timeout_s)


def _try_one(path: Path, own: bool, base: Path | None, sender: Connection) -> None:
    _limit_memory()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            subject = _load(path, own, base, Path(scratch))
        except Exception as error:  # of any kind: it becomes cells
            sender.send(("", Outcome(kind=FAILED, detail=words(error).removeprefix(scratch))))
            return
        for probe in PROBES:
            try:
                outcome = prove(subject, probe)
            except Exception as error:
                outcome = Outcome(kind=FAILED, detail=f"{type(error).__name__}: {words(error)}")
            sender.send((probe.name, outcome))


def _load(path: Path, own: bool, base: Path | None, scratch: Path) -> Subject:
    if own:
        return load_subject(str(path), None, scratch)
    if path.is_file():
        return load_template(read_template(path), base, {}, scratch)
    known = config_template(path)
    assert known is not None
    return load_template(*(known[0], base, known[1]), scratch)


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + _MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
