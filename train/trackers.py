"""Other places to look at a run: W&B, SwanLab, MLflow and Trackio, each through its own package and fed by a thread.

One that can't begin is told before the model loads. One that fails or hangs later costs one warning, never the run.
Their ids are kept in OUT/tracking, so that a run that goes on is one run there too.
"""

import contextlib
import contextvars
import io
import json
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schemas.errors import TrainError
from schemas.files import write_text_whole

NAMES = "wandb", "swanlab", "mlflow", "trackio"
FOLDER, RUNS = "tracking", "runs.json"
PROJECT = "sftpack"
FINISH_S = 60.0  # for a tracker to send the rest, after the run

Measures = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What a tracker begins with."""

    folder: Path  # for its files
    name: str
    config: dict[str, Any]
    continued: str | None  # what `Begun.continued` was when the run began


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """A tracker that takes measures; all of it may raise anything."""

    continued: str  # by which the package finds the run again
    where: str  # for the user: an address, or what to type
    log: Callable[[list[tuple[int, Measures]]], None]
    finish: Callable[[bool], None]  # told whether the run went well
    finish_on_main: bool = False  # whether only the main thread may call it


def tracker_names(text: str | None) -> tuple[str, ...]:
    """`wandb,swanlab` -> ("wandb", "swanlab"). Raises TrainError for a name that is none."""
    names = tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    for name in names:
        if name not in NAMES:
            raise TrainError(
                f"--log-to {name}: no such tracker; choose of {', '.join(NAMES)} (TensorBoard is always on)"
            )
    return names


def check_installed(names: Sequence[str]) -> None:
    """Raise TrainError for a tracker whose package is missing."""
    for name in names:
        if find_spec(name) is None:
            raise TrainError(f"--log-to {name}: its package is not installed; run: pip install 'sftpack[{name}]'")


class Trackers:
    """Those of a run, on rank 0; measures go in, and nothing they do holds the run up."""

    def __init__(self, begun: dict[str, Begun], say: Callable[[str], None] = print) -> None:
        self._feeds, self.say = [_Feed(name, each) for name, each in begun.items()], say

    def log(self, step: int, group: str, measures: Measures) -> None:
        """Hand over the measures of a step, as group/name."""
        finite = {f"{group}/{name}": float(value) for name, value in measures.items() if math.isfinite(value)}
        for feed in self._feeds:
            if feed.complaint is None:
                feed.items.put((step, finite))
        self._warn()

    def finish(self, *, went_well: bool) -> None:
        """Have them send the rest, all at once, for a minute at most."""
        deadline = time.monotonic() + FINISH_S
        for feed in self._feeds:
            feed.items.put(went_well)
        with _out_of_sight():
            for feed in self._feeds:
                feed.wait(deadline - time.monotonic(), went_well)
        self._warn()

    def _warn(self) -> None:
        """Tell each complaint once, from the thread that prints."""
        for feed in self._feeds:
            if feed.complaint and not feed.told:
                feed.told = True
                self.say(f"note       {feed.complaint}; metrics.jsonl and TensorBoard have everything")


def begin_trackers(names: Sequence[str], out: Path, config: dict[str, Any]) -> Trackers:
    """Begin a run in each tracker, or go on with the one that OUT/tracking names; rank 0 calls this.

    Raises TrainError for one that can't begin.
    """
    if not names:
        return Trackers({})
    path = out / FOLDER / RUNS
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    begun = {}
    for name in names:
        folder = out.resolve() / FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        start = Start(folder=folder, name=out.resolve().name, config=_plain(config), continued=known.get(name))
        try:
            with _out_of_sight():
                begun[name] = contextvars.copy_context().run(_BEGIN[name], start)  # its globals end with the run
        except Exception as error:  # of a stranger's package
            raise TrainError(f"--log-to {name}: it can't begin: {_reason(error)}; {_REMEDIES[name]}") from error
        print(f"tracking   {name}: {begun[name].where}", flush=True)
        if not any(folder.iterdir()):
            folder.rmdir()  # it keeps its files elsewhere
    write_text_whole(path, json.dumps(known | {name: each.continued for name, each in begun.items()}) + "\n")
    return Trackers(begun)


class _Feed:
    """A tracker and the thread that alone talks to it."""

    def __init__(self, name: str, begun: Begun) -> None:
        self._name, self._begun = name, begun
        self.items: queue.SimpleQueue[tuple[int, Measures] | bool] = queue.SimpleQueue()
        self.complaint: str | None = None
        self.told = False
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def wait(self, seconds: float, went_well: bool) -> None:
        """Wait for its end."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self.complaint = f"{self._name} did not take the last measures in {FINISH_S:.0f} s"
        elif self._begun.finish_on_main and self.complaint is None:
            with self._complaining():
                self._begun.finish(went_well)

    def _run(self) -> None:
        """Hand over what waits, together, until a bool ends it."""
        with self._complaining():
            while True:
                items = [self.items.get()]
                while not self.items.empty():
                    items.append(self.items.get())
                if rows := [item for item in items if not isinstance(item, bool)]:
                    self._begun.log(rows)
                if isinstance(items[-1], bool):
                    break
            if not self._begun.finish_on_main:
                self._begun.finish(items[-1])

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a stranger's package
            self.complaint = f"{self._name} failed, and gets nothing more: {_reason(error)}"


def _wandb(start: Start) -> Begun:
    import wandb

    kept = start.continued or _new_id()
    settings = wandb.Settings(console="off", silent=True)
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    run = wandb.init(
        project=project,
        name=start.name,
        id=kept,
        resume="allow",
        dir=start.folder.parent,  # it adds wandb/
        config=start.config,
        settings=settings,
    )

    def log(rows: list[tuple[int, Measures]]) -> None:
        for step, measures in rows:
            run.log(measures, step=step)

    def finish(went_well: bool) -> None:
        run.finish(exit_code=0 if went_well else 1)

    where = f"offline; wandb sync {Path(run.dir).parent}" if run.offline else str(run.url)
    return Begun(continued=kept, where=where, log=log, finish=finish)


def _swanlab(start: Start) -> Begun:
    import swanlab

    project = os.environ.get("SWANLAB_PROJ_NAME", PROJECT)
    kept = start.continued or _new_id()
    run = swanlab.init(
        project=project, name=start.name, id=kept, resume="allow", log_dir=str(start.folder), config=start.config
    )

    def log(rows: list[tuple[int, Measures]]) -> None:
        for step, measures in rows:
            run.log(measures, step=step)

    def finish(went_well: bool) -> None:
        run.finish(state="success" if went_well else "crashed")

    where = str(run.url) if run.mode == "online" else f"{run.mode}; swanlab sync {run.dir}"
    return Begun(continued=kept, where=where, log=log, finish=finish, finish_on_main=True)  # it resets signals


def _mlflow(start: Start) -> Begun:
    import mlflow
    from mlflow.entities import Metric, Param

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    client = mlflow.MlflowClient()  # where MLFLOW_TRACKING_URI says, ./mlflow.db otherwise
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    if start.continued is None:
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found is not None else client.create_experiment(name)
        kept = client.create_run(experiment, run_name=start.name).info.run_id
        params = [Param(key, str(value)[:500]) for key, value in start.config.items()]
        for first in range(0, len(params), 100):  # the most that a server takes at once
            client.log_batch(kept, params=params[first : first + 100])
    else:
        kept = start.continued
        client.update_run(kept, status="RUNNING")

    def log(rows: list[tuple[int, Measures]]) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for step, measures in rows for name, value in measures.items()]
        for first in range(0, len(metrics), 1000):
            client.log_batch(kept, metrics=metrics[first : first + 1000])

    def finish(went_well: bool) -> None:
        client.set_terminated(kept, "FINISHED" if went_well else "FAILED")

    where = f"{mlflow.get_tracking_uri()}, experiment {name}, run {kept}"
    return Begun(continued=kept, where=where, log=log, finish=finish)


def _trackio(start: Start) -> Begun:
    import trackio

    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    kept = start.continued or f"{start.name}-{_new_id()}"  # runs go by their names there
    run = trackio.init(project=project, name=kept, resume="allow", config=start.config, embed=False)

    def log(rows: list[tuple[int, Measures]]) -> None:
        for step, measures in rows:
            run.log(measures, step=step)

    def finish(went_well: bool) -> None:
        run.finish()

    return Begun(continued=kept, where=f"trackio show --project {project}, run {kept}", log=log, finish=finish)


_BEGIN: dict[str, Callable[[Start], Begun]] = {
    "wandb": _wandb,
    "swanlab": _swanlab,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
_REMEDIES = {
    "wandb": "run `wandb login`, or set WANDB_MODE=offline",
    "swanlab": "run `swanlab login`, or set SWANLAB_MODE=offline",
    "mlflow": "set MLFLOW_TRACKING_URI to a server, or to sqlite:///FILE",
    "trackio": "unset TRACKIO_SPACE_ID to log here",
}


@contextlib.contextmanager
def _out_of_sight() -> Iterator[None]:
    """Keep a package's greetings from standard output; questions and errors still show."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _plain(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"method": {"lora": None}, "zero": 1} -> {"method.lora": "None", "zero": 1}: values that every package takes."""
    plain: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            plain |= _plain(value, f"{prefix}{name}.")
        else:
            plain[prefix + name] = value if isinstance(value, bool | int | float | str) else str(value)
    return plain


def _new_id() -> str:
    return os.urandom(4).hex()


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
