"""W&B, SwanLab, MLflow and Trackio: their own files are read back, each where its package is installed."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import train.trackers
from schemas.errors import TrainError
from train.trackers import Begun, Trackers, check_installed, tracker_names

PROGRAM = """
import sys
from pathlib import Path
from train.trackers import begin_trackers
name, first = sys.argv[1], int(sys.argv[2])
trackers = begin_trackers([name], Path("first"), {"zero": 1, "method": {"lora": None}})
for step in (first, first + 1):
    trackers.log(step, "train", {"loss": 1 / step, "grad_norm": float("nan")})
trackers.log(first + 1, "eval", {"loss": 2.5})
trackers.finish(went_well=True)
"""

READ_MLFLOW = """
import json, mlflow, sys
client = mlflow.MlflowClient()
run, losses = client.get_run(sys.argv[1]), client.get_metric_history(sys.argv[1], "train/loss")
print(json.dumps([run.info.status, run.data.params, run.info.run_name, [[each.step, each.value] for each in losses]]))
"""


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed: pip install 'sftpack[{name}]'")


def log_twice(folder: Path, name: str, **environment: str) -> list[str]:
    """Steps 1 and 2 by one process, 3 and 4 by the next, which goes on; gives the id after each."""
    ids = []
    for first in (1, 3):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, name, str(first)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(Path(train.trackers.__file__).parents[1])} | environment,
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"tracking   {name}: "), done.stdout
        assert "note" not in done.stdout, done.stdout
        ids.append(json.loads((folder / "first" / "tracking" / "runs.json").read_text(encoding="utf-8"))[name])
    return ids


@needs("wandb")
def test_wandb_has_one_run_of_both_processes(tmp_path: Path) -> None:
    one, two = log_twice(tmp_path, "wandb", WANDB_MODE="offline")
    assert one == two
    files = sorted((tmp_path / "first" / "tracking" / "wandb").glob(f"offline-run-*/run-{one}.wandb"))
    rows = [row for file in files for row in wandb_history(file.read_bytes())]
    assert len(files) == 2
    last = {"eval/loss": 2.5}
    assert rows == [{"train/loss": 1.0}, {"train/loss": 0.5} | last, {"train/loss": 1 / 3}, {"train/loss": 0.25} | last]


def wandb_history(content: bytes) -> list[dict[str, float]]:
    """The logged rows of a .wandb file smaller than a block: LevelDB's log of protobuf records."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows, at = [], 7  # behind the file's own header
    while at + 7 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 6], "little")  # behind a checksum, before the record's type
        record = Record()
        record.ParseFromString(content[at + 7 : at + 7 + size])
        at += 7 + size
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            rows.append({name: json.loads(value) for name, value in items.items() if not name.startswith("_")})
    return rows


@needs("swanlab")
def test_swanlab_has_one_run_of_both_processes(tmp_path: Path) -> None:
    one, two = log_twice(tmp_path, "swanlab", SWANLAB_MODE="offline")
    assert one == two
    files = sorted((tmp_path / "first" / "tracking" / "swanlab").glob(f"run-*/run-{one}.swanlab"))
    assert len(files) == 2
    for file in files:
        content = file.read_bytes()
        assert b"train/loss" in content and b"eval/loss" in content and b"train/grad_norm" not in content


@needs("mlflow")
@pytest.mark.parametrize(
    "store",
    ["file", pytest.param("sqlite", marks=pytest.mark.long)],  # a new database takes it ten seconds
)
def test_mlflow_has_one_run_of_both_processes(tmp_path: Path, store: str) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}" if store == "sqlite" else f"file://{tmp_path / 'mlruns'}"
    if store == "sqlite":
        pytest.importorskip("sqlalchemy")
        pytest.importorskip("alembic")
    environment = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_ALLOW_FILE_STORE": "true"}
    one, two = log_twice(tmp_path, "mlflow", **environment)
    assert one == two
    done = subprocess.run(
        [sys.executable, "-c", READ_MLFLOW, one], env=os.environ | environment, capture_output=True, encoding="utf-8"
    )
    status, params, name, losses = json.loads(done.stdout)
    assert (status, name) == ("FINISHED", "first")
    assert params == {"zero": "1", "method.lora": "None"}
    assert losses == [[1, 1.0], [2, 0.5], [3, 1 / 3], [4, 0.25]]


@needs("trackio")
def test_trackio_has_one_run_of_both_processes(tmp_path: Path) -> None:
    one, two = log_twice(tmp_path, "trackio", TRACKIO_DIR=str(tmp_path / "kept"))
    assert one == two
    with sqlite3.connect(tmp_path / "kept" / "sftpack.db") as database:
        found = database.execute("select run_name, step, metrics from metrics order by step, id").fetchall()
    database.close()
    assert {name for name, *_ in found} == {one}
    rows = [(step, json.loads(content)) for _, step, content in found]
    losses = [(step, values["train/loss"]) for step, values in rows if "train/loss" in values]
    assert losses == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]


def test_names_are_parted_at_commas_and_unknown_ones_refused() -> None:
    assert tracker_names("wandb, mlflow,wandb") == ("wandb", "mlflow")
    assert tracker_names(None) == ()
    with pytest.raises(TrainError, match=r"--log-to wand: no such tracker; choose of wandb, swanlab, mlflow, trackio"):
        tracker_names("wand")


@pytest.mark.skipif(find_spec("swanlab") is not None, reason="swanlab is installed")
def test_a_missing_package_is_told_with_the_command_that_installs_it() -> None:
    with pytest.raises(TrainError, match=r"--log-to swanlab: .* run: pip install 'sftpack\[swanlab\]'"):
        check_installed(["swanlab"])


def test_a_tracker_that_fails_costs_one_warning_and_the_others_go_on() -> None:
    said: list[str] = []
    taken: list[tuple[int, dict[str, float]]] = []

    def fail(rows: list[tuple[int, dict[str, float]]]) -> None:
        raise OSError(28, "No space left on device")

    trackers = Trackers({"wandb": begun(fail), "mlflow": begun(taken.extend)}, said.append)
    for step in range(1, 4):
        trackers.log(step, "train", {"loss": float(step)})
        time.sleep(0.05)
    trackers.finish(went_well=True)
    assert said == [
        "note       wandb failed, and gets nothing more: [Errno 28] No space left on device; "
        "metrics.jsonl and TensorBoard have everything"
    ]
    assert taken == [(step, {"train/loss": float(step)}) for step in range(1, 4)]


def test_a_tracker_that_hangs_does_not_hold_the_run_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.trackers, "FINISH_S", 0.1)
    said: list[str] = []
    gate = threading.Event()
    trackers = Trackers({"swanlab": begun(lambda rows: bool(gate.wait(5)) and None)}, said.append)
    started = time.perf_counter()
    for step in range(1000):
        trackers.log(step, "train", {"loss": 1.0})
    trackers.finish(went_well=True)
    assert time.perf_counter() - started < 3
    assert len(said) == 1 and said[0].startswith("note       swanlab did not take the last measures in 0 s")
    gate.set()


def begun(log: Any) -> Begun:
    return Begun(continued="1", where="here", log=log, finish=lambda went_well: None)
