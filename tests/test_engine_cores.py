import os
import signal
import time
from pathlib import Path

import pytest

from dataprep.core.workers import cgroup_limits, num_cores, run_tasks
from schemas.errors import SftpackError


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_container_quota_limits_the_cores(tmp_path):
    write(tmp_path / "own", "0::/\n")
    write(tmp_path / "cgroup" / "cpu.max", "150000 100000\n")
    assert cgroup_limits(tmp_path / "cgroup", tmp_path / "own") == [2]
    write(tmp_path / "cgroup" / "cpu.max", "max 100000\n")
    assert cgroup_limits(tmp_path / "cgroup", tmp_path / "own") == []


def test_quotas_of_the_groups_around_count_too(tmp_path):
    write(tmp_path / "own", "0::/slurm/job_7/step_0\n")
    write(tmp_path / "cgroup" / "slurm" / "job_7" / "step_0" / "cpu.max", "max 100000\n")
    write(tmp_path / "cgroup" / "slurm" / "job_7" / "cpu.max", "400000 100000\n")
    write(tmp_path / "cgroup" / "slurm" / "cpu.max", "1600000 100000\n")
    assert cgroup_limits(tmp_path / "cgroup", tmp_path / "own") == [4, 16]


def test_quotas_of_the_first_version_of_control_groups_count(tmp_path):
    write(tmp_path / "own", "8:pids:/\n4:cpu,cpuacct:/docker/abc\n0::/\n")
    write(tmp_path / "cgroup" / "cpu" / "cpu.cfs_quota_us", "300000\n")  # a container sees its own group as the root
    write(tmp_path / "cgroup" / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert cgroup_limits(tmp_path / "cgroup", tmp_path / "own") == [3]
    write(tmp_path / "cgroup" / "cpu" / "cpu.cfs_quota_us", "-1\n")
    assert cgroup_limits(tmp_path / "cgroup", tmp_path / "own") == []


def test_what_slurm_gave_limits_the_cores(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "64")
    assert num_cores() == 1
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    assert 1 <= num_cores() <= len(os.sched_getaffinity(0))


def kill_itself_at(number: int, path: Path) -> int:
    if number == 5 and not path.exists():
        path.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory ends
    return number


class At:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, number: int) -> int:
        return kill_itself_at(number, self.path)


def test_a_killed_worker_is_told_in_one_line_and_the_next_run_goes_through(tmp_path):
    work = At(tmp_path / "killed")
    with pytest.raises(SftpackError, match="a worker process was killed, likely for want of memory; run the command"):
        list(run_tasks(work, range(9), workers=2))
    assert list(run_tasks(work, range(9), workers=2)) == [(number, number) for number in range(9)]


def num_threads(_: int) -> tuple[int, str]:
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE({"a": 0}, [])).encode_batch(["a"] * 64)
    time.sleep(0.05)
    return len(list(Path("/proc/self/task").iterdir())), os.environ["RAYON_NUM_THREADS"]


def test_workers_leave_the_other_cores_to_each_other(monkeypatch):
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    [(_, (_, here)), *_] = run_tasks(num_threads, range(4), workers=2)
    assert here == "1"
    assert "RAYON_NUM_THREADS" not in os.environ
