"""Signs of life: a rank that stopped is named, and slow ones are let alone."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from train.signs import PATIENT_S, Judge, Seen, Sign, hang_line

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "SFTPACK_STALL_S": "2"}


def seen(rank: int, marks: int, beat: int, *, patient: bool = False) -> Seen:
    place = {"machine": f"node{rank}", "pid": 100 + rank, "step": 4, "phase": "forward pass", "line": ""}
    return Seen(rank=rank, marks=marks, beat=beat, is_patient=patient, **place)


def watched(*looks: dict[int, Seen], every_s: float = 5.0) -> Judge:
    judge = Judge(20, every_s)
    start = time.monotonic()
    for index, look in enumerate(looks):
        judge.take(look, start + index * every_s)
    return judge


def test_a_rank_that_posts_no_more_is_named() -> None:
    looks = [{0: seen(0, 7, beat), 1: seen(1, 5, min(beat, 3))} for beat in range(10)]
    assert watched(*looks).hung(0) == ([1], "not heard of for 30 s")
    assert watched(*looks[:5]).hung(0) is None


def test_a_rank_that_is_alive_but_behind_is_named() -> None:
    looks = [{0: seen(0, 7, beat), 1: seen(1, 5, beat), 2: seen(2, 7, beat)} for beat in range(6)]
    assert watched(*looks).hung(0) == ([1], "no further for 25 s")


def test_ranks_that_go_on_are_let_alone_however_slowly_one_of_them_posts() -> None:
    looks = [{0: seen(0, 7 + beat // 3, beat), 1: seen(1, 5, min(beat, 3))} for beat in range(20)]
    assert watched(*looks).hung(0) is None


def test_steps_that_took_longer_before_may_do_so_again() -> None:
    looks = [{0: seen(0, 7, beat), 1: seen(1, 5, beat)} for beat in range(15)]
    assert watched(*looks).hung(slowest_s=10) is not None
    assert watched(*looks).hung(slowest_s=30) is None


def test_loading_compiling_and_saving_may_take_almost_as_long_as_the_process_group_waits() -> None:
    looks = [{0: seen(0, 7, beat), 1: seen(1, 5, beat, patient=True)} for beat in range(2 + int(PATIENT_S // 5))]
    assert watched(*looks[:-2]).hung(0) is None
    assert watched(*looks).hung(0) == ([1], "no further for 1685 s")


def test_a_job_that_was_suspended_as_a_whole_goes_on() -> None:
    judge = watched(*({0: seen(0, 7, beat), 1: seen(1, 7, beat)} for beat in range(3)))
    later = time.monotonic() + 3600
    judge.take({0: seen(0, 7, 3), 1: seen(1, 7, 2)}, later)
    assert judge.hung(0) is None
    judge.take({0: seen(0, 7, 4), 1: seen(1, 7, 3)}, later + 5)
    assert judge.hung(0) is None


def test_the_line_says_who_where_and_what_next() -> None:
    behind = replace(seen(1, 5, 3), line="torch/storage.py:7 load")
    line = hang_line([1], "no further for 25 s", {0: seen(0, 7, 3), 1: behind}, "Step 3 is saved in runs/first")
    assert line == (
        "train: the run hangs: rank 1 (node1, process 101) at step 4, forward pass in torch/storage.py:7 load: "
        "no further for 25 s; the others wait at step 4, forward pass. Step 3 is saved in runs/first; look at those "
        "machines (dmesg, nvidia-smi, disk, network), then the same command goes on"
    )


def test_only_impatient_phases_count_as_the_slowest() -> None:
    sign = Sign(began=time.monotonic() - 9)
    sign.at("forward pass", 3, patient=False)
    assert sign.slowest_s == 0
    sign.began -= 5
    sign.at("saving")
    assert sign.slowest_s == pytest.approx(5, abs=0.5)
    assert (sign.step, sign.phase, sign.marks) == (3, "saving", 2)


@pytest.mark.long
def test_a_run_with_a_stopped_rank_ends_and_names_it(tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    model = tiny_model_dir(tmp_path / "base", tiny_tokenizer_dir, tied=True)
    packs = packed(chat_examples(tiny_tokenizer_dir, 40), 256)[:6]
    write_shards(tmp_path / "cache", tiny_tokenizer_dir, str(model), packs, seq_len=256)
    options = ["--batch-packs", "6", "--steps", "20000", "--procs", "2", "--save-every", "2"]
    command = [sys.executable, "-m", "train.cli", "run", "--shards", str(tmp_path / "cache"), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*command, "--out", str(tmp_path / "out")], env=ENVIRONMENT, encoding="utf-8", **pipes)
    assert process.stdout is not None
    assert any(line.startswith("step 4/") for line in process.stdout), "the run ended before"
    stopped = rank_of(process.pid, 1)
    os.kill(stopped, signal.SIGSTOP)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert stderr.startswith("train: the run hangs: rank 1 (")
    assert f", process {stopped}) at step " in stderr
    assert f" is saved in {tmp_path / 'out'}; look at those machines" in stderr
    assert not Path(f"/proc/{stopped}").exists()


def rank_of(launcher: int, rank: int) -> int:
    """The process of a rank."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text(encoding="utf-8").split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError("no such rank")
