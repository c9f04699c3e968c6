"""Runs that are killed, stopped and moved to other ranks end as if nothing had happened; through real processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from schemas.errors import TrainError
from train.cli import main
from train.watch import waited_enough

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
MEASURED = "loss", "grad_norm", "learning_rate", "tokens", "targets", "epoch", "eval_loss"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """13 packs to train on (5, 5 and 3 a step, so 6 steps in two epochs) and 2 held out."""
    home = tmp_path_factory.mktemp("resume")
    model = tiny_model_dir(home / "base", tiny_tokenizer_dir, tied=True)
    packs = packed(chat_examples(tiny_tokenizer_dir, 60), 256)[:15]
    write_shards(home / "cache", tiny_tokenizer_dir, str(model), packs[:13], packs[13:], seq_len=256)
    return home


def arguments(home: Path, out: Path, *flags: str) -> list[str]:
    shared = ["--shards", str(home / "cache"), "--batch-packs", "5", "--epochs", "2", "--learning-rate", "1e-3"]
    return ["run", *shared, "--weight-decay", "1", "--eval-every", "2", "--save-every", "2", "--out", str(out), *flags]


def start(home: Path, name: str, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "train.cli", *arguments(home, home / name, *flags)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=ENVIRONMENT, encoding="utf-8", **pipes)


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    return stdout if code == 0 else stderr


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    assert any(text in line for line in process.stdout), "the run ended before"


def wait_for_saving(process: subprocess.Popen[str], checkpoints: Path, step: int) -> None:
    """Until DeepSpeed has begun to write the checkpoint of a step."""
    while not (checkpoints / f".step-{step:06d}.0.tmp" / "state").exists():
        assert process.poll() is None, "the run ended before"
        time.sleep(0.0005)


def measures(out: Path) -> list[dict[str, Any]]:
    """What was measured at each step, without what depends on the clock."""
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: line[name] for name in ("step", *MEASURED) if name in line} for line in map(json.loads, lines)]


def board_steps(out: Path, tag: str) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    return [event.step for event in board.Scalars(tag)]


def close_to(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: pytest.approx(value, rel=2e-5) for name, value in each.items()} for each in values]


@pytest.fixture(scope="module")
def alone(home: Path) -> list[dict[str, Any]]:
    """What one rank measures without disturbance; meanwhile another run is killed while it saves step 4.

    That run, killed/, is copied to moved/, and goes on.
    """
    undisturbed, killed = start(home, "alone"), start(home, "killed")
    wait_for_saving(killed, home / "killed" / "checkpoints", 4)
    killed.kill()
    finish(killed, -signal.SIGKILL)
    finish(undisturbed)
    shutil.copytree(home / "killed", home / "moved")
    return measures(home / "alone")


def test_a_run_that_was_killed_while_saving_goes_on_bit_for_bit(home: Path, alone: list[dict[str, Any]]) -> None:
    out = home / "killed"
    said = finish(start(home, "killed"))
    resumed = next(line for line in said.splitlines() if line.startswith("resume"))
    assert resumed.startswith(("resume     from step 2 of 6: ", "resume     from step 4 of 6: "))
    assert measures(out) == alone
    assert board_steps(out, "train/loss") == [1, 2, 3, 4, 5, 6]
    assert board_steps(out, "eval/loss") == [0, 2, 4, 6]
    weights = "model/model.safetensors"
    assert (out / weights).read_bytes() == (home / "alone" / weights).read_bytes()
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-000004", "step-000006"]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] == 6
    assert summary["first_loss"] == alone[1]["loss"]


@pytest.mark.long
def test_one_rank_becomes_two(home: Path, alone: list[dict[str, Any]]) -> None:
    said = finish(start(home, "moved", "--procs", "2"))
    assert "written by 1 rank" in said
    assert measures(home / "moved") == close_to(alone)
    assert not list((home / "moved" / "checkpoints").glob(".*"))


@pytest.mark.long
def test_two_ranks_at_stage_3_stop_for_a_signal_and_go_on_as_two_or_one(home: Path) -> None:
    finish(start(home, "pair", "--zero", "3", "--procs", "2"))
    pair = measures(home / "pair")
    stopped = start(home, "stopped", "--zero", "3", "--procs", "2", "--save-every", "100")
    wait_for_line(stopped, "step 3/6")
    stopped.send_signal(signal.SIGTERM)
    line = finish(stopped, 143).splitlines()[-1]
    assert line.startswith("train: stopped by SIGTERM after step ")
    assert line.endswith(f"which is saved; the same command with --out {home / 'stopped'} goes on from there")
    shutil.copytree(home / "stopped", home / "single")
    finish(start(home, "stopped", "--procs", "2"))
    assert measures(home / "stopped") == pair
    said = finish(start(home, "single", "--zero", "3"))
    assert "written by 2 ranks" in said
    assert measures(home / "single") == close_to(pair)


@pytest.mark.long
@pytest.mark.parametrize("zero", ["0", "1", "2", "3"])
def test_adapters_go_on_from_checkpoints_that_hold_no_frozen_weight(home: Path, zero: str) -> None:
    flags = ["--lora", "4", "--lora-dropout", "0", "--zero", zero, "--save-every", "100"]
    finish(start(home, f"adapters-{zero}", *flags))
    undisturbed = measures(home / f"adapters-{zero}")
    name = f"adapters-{zero}-stopped"
    stopped = start(home, name, *flags)
    wait_for_line(stopped, "step 3/6")
    stopped.send_signal(signal.SIGTERM)
    finish(stopped, 143)
    [folder] = (home / name / "checkpoints").glob("step-*")
    [state] = (folder / "state").glob("*model_states.pt")
    held = torch.load(state, map_location="cpu", weights_only=False)
    assert not held.get("frozen_param_fragments")
    assert all("lora_" in weight for weight in held["module"].keys() - {"lm_head.weight"})  # tied to a frozen one
    exported = home / f"{name}-exported"
    assert main(["export", "--model", str(folder), "--out", str(exported), "--merge"]) == 0
    shutil.copytree(home / name, home / f"{name}-two")
    finish(start(home, name, *flags))
    assert measures(home / name) == undisturbed
    if zero != "0":
        finish(start(home, f"{name}-two", *flags, "--procs", "2"))
        assert measures(home / f"{name}-two") == close_to(undisturbed)


def test_what_a_finished_run_says(home: Path, alone: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    out = home / "alone"
    assert main(arguments(home, out)) == 0
    said = capsys.readouterr().out
    assert said == f"{out}: this run is finished; to train anew, choose another --out or add --fresh\n"


def test_a_checkpoint_is_exported_as_the_run_would_have_at_that_step(
    home: Path, alone: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last one is the model that the run left; a run that left none has its newest exported."""
    checkpoints, weights = home / "alone" / "checkpoints", "model.safetensors"
    assert main(["export", "--model", str(checkpoints / "step-000006"), "--out", str(tmp_path / "last")]) == 0
    assert (tmp_path / "last" / weights).read_bytes() == (home / "alone" / "model" / weights).read_bytes()
    killed = tmp_path / "killed"
    shutil.copytree(checkpoints / "step-000004", killed / "checkpoints" / "step-000004")
    assert main(["export", "--model", str(killed), "--out", str(tmp_path / "newest")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-3] == f"checkpoint {killed / 'checkpoints' / 'step-000004'}"
    assert said[-1] == "checked    24 weights in float32 as in the base, all finite, tied, loads again"
    assert (tmp_path / "newest" / weights).read_bytes() != (tmp_path / "last" / weights).read_bytes()
    assert main(["export", "--model", str(killed), "--merge", "--out", str(tmp_path / "merged")]) == 1
    assert "holds no adapter, so nothing is to be merged; leave --merge out" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "last", "newest"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seed", "3"), "this run was begun with --seed 0, now it is 3; give it what it was begun with, start anew"),
        (("--learning-rate", "0.1"), "this run was begun with --learning-rate 0.001, now it is 0.1; give"),
        (("--epochs", "3"), "this run was begun with --steps 6, now it is 9; give"),
    ],
)
def test_other_options_than_before_are_refused(
    home: Path,
    alone: list[dict[str, Any]],
    flags: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*arguments(home, home / "moved"), *flags]) == 1
    assert f"train: {home / 'moved'}: {message}" in capsys.readouterr().err


def test_other_shards_and_an_impossible_stage_are_refused(
    home: Path, alone: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(home / "moved", tmp_path / "run"))
    for name in ("summary.json", "summary.html"):
        (out / name).unlink(missing_ok=True)
    assert main([*arguments(home, out), "--zero", "3"]) == 1
    assert "was written at ZeRO stage 1, which DeepSpeed can't load at stage 3; use --zero 1" in capsys.readouterr().err
    cache = shutil.copytree(home / "cache", tmp_path / "cache")
    path = Path(cache) / "shards" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["checksum"]
    manifest["splits"]["val"] = []
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert main([*arguments(home, out), "--shards", str(cache)]) == 1
    assert "this run was begun on other shards; give it what it was begun with" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_passed_over(home: Path, alone: list[dict[str, Any]], tmp_path: Path) -> None:
    from train.checkpoint import newest_checkpoint

    out = Path(shutil.copytree(home / "alone", tmp_path / "run"))
    state = out / "checkpoints" / "step-000006" / "state" / "mp_rank_00_model_states.pt"
    state.write_bytes(state.read_bytes()[:-1])
    found, complaints = newest_checkpoint(out)
    assert found is not None
    assert (found.step, found.epoch, found.packs_consumed) == (4, 1, 5)
    what = "state/mp_rank_00_model_states.pt is missing or cut off, so an older one is taken"
    assert complaints == [f"{out / 'checkpoints' / 'step-000006'}: {what}"]


def test_one_run_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    from train.resume import folder_of_one_run

    leftover = tmp_path / "checkpoints" / ".step-000002.0.tmp"
    leftover.mkdir(parents=True)
    with folder_of_one_run(tmp_path, fresh=False):
        assert not leftover.exists()
        with pytest.raises(TrainError, match="another run is writing here; wait for it, or choose another --out"):
            folder_of_one_run(tmp_path, fresh=False).__enter__()
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "notes.txt").touch()
    with folder_of_one_run(tmp_path, fresh=True):
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_model_that_is_no_longer_made_of_numbers_ends_the_run_before_it_is_saved(home: Path) -> None:
    """A rate of 1e30 makes the second step's gradients overflow; what was saved before stays, with the packs named."""
    flags = "--learning-rate", "1e30", "--max-grad-norm", "1e9", "--save-every", "1"
    line = finish(start(home, "wild", *flags), 1).splitlines()[-1]
    assert line.startswith("train: the gradient norm of step 2 is inf; lower --learning-rate, use --precision fp32, ")
    assert line.endswith(f"; the last good checkpoint is step 1's in {home / 'wild'}")
    assert f": dataprep inspect {home / 'cache'} --pack " in line
    assert [path.name for path in (home / "wild" / "checkpoints").iterdir()] == ["step-000001"]


def test_a_rank_whose_launcher_went_while_it_was_importing_ends() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = "from train.launch import die_with_launcher; die_with_launcher(); print('alive')"
    for launcher, expected in ((gone.pid, -signal.SIGKILL), (os.getppid(), 0)):
        environment = ENVIRONMENT | {"SFTPACK_LAUNCHER": str(launcher)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
        assert done.returncode == expected


def test_patience_counts_held_out_losses_since_the_best() -> None:
    """The first, before training, does not count: 3.0 | 5.0, 4.0, 4.5, 4.2 has waited twice."""
    losses = [(0, 3.0), (1, 5.0), (2, 4.0), (3, 4.5), (4, 4.2)]
    assert waited_enough(2, losses)
    assert not waited_enough(3, losses)
    assert not waited_enough(2, losses[:4])
    assert not waited_enough(1, losses[:1])
