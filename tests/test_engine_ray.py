"""`--engine ray` on a real cluster of three nodes on this machine, one of which is killed."""

import importlib.util
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from corpus import many_dialogues, write_jsonl

from dataprep.cli import main
from dataprep.core.ray_tasks import connected
from dataprep.normalize.run import normalize_corpus
from dataprep.tokenize.run import tokenize_corpus
from schemas.errors import SftpackError
from schemas.manifest import PackOptions

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

NODE: dict[str, Any] = {"num_gpus": 0, "object_store_memory": 80 << 20}
SOON = {  # a dead node is known at once, not after 15 s
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 400,
    "health_check_timeout_ms": 400,
    "health_check_failure_threshold": 2,
}
HERE = Path(__file__).resolve().parents[1]


def command(cache: Path, model: Path) -> list[str]:
    start = [sys.executable, "-m", "dataprep.cli", "tokenize", str(cache), "--model", str(model)]
    return [*start, "--seq-len", "256", "--engine", "ray"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.arrow"))}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    raw = write_jsonl(tmp_path / "raw.jsonl", many_dialogues(8_000))
    normalize_corpus([str(raw)], tmp_path / "cache", workers=1)
    return tmp_path / "cache"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> "Iterator[Cluster]":
    """A cluster whose head has no cores for tasks."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray: pip install 'sftpack[ray]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": SOON, **NODE}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield cluster
        finally:
            cluster.shutdown()


def test_a_node_killed_midway_costs_its_chunks_only_and_the_bytes_are_those_of_one_machine(
    cache, tmp_path, tiny_tokenizer_dir, cluster
):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "conversations").symlink_to(cache / "conversations")
    options = PackOptions(seq_len=256, overflow="cut", val_fraction=0.0, seed=0)
    tokenize_corpus(tmp_path / "alone", str(tiny_tokenizer_dir), options, workers=1)

    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    process = subprocess.Popen(
        command(cache, tiny_tokenizer_dir),
        env=environment,
        cwd=HERE,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    doomed = cluster.add_node(num_cpus=1, **NODE)
    while process.poll() is None and not list(cache.glob("tokens/*/*.arrow")):
        time.sleep(0.01)
    doomed.kill_raylet()
    at_the_kill = len(list(cache.glob("tokens/*/*.arrow")))
    cluster.add_node(num_cpus=1, **NODE)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert f"8,000 conversations tokenised anew by Ray at {cluster.address}, 2 nodes, 1 CPUs" in out
    assert files_of(cache) == files_of(tmp_path / "alone")
    assert at_the_kill < len(list(cache.glob("tokens/*/*.arrow")))


def test_a_cluster_that_does_not_answer_is_told_in_one_line(monkeypatch):
    pytest.importorskip("ray", reason="needs Ray: pip install 'sftpack[ray]'")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    told = r"RAY_ADDRESS 127\.0\.0\.1:1: no Ray answers there; start it \(ray start --head\), or unset RAY_ADDRESS"
    with pytest.raises(SftpackError, match=told), connected(1):
        pass


def test_without_ray_one_line_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    normalize_corpus([str(write_jsonl(tmp_path / "raw.jsonl", many_dialogues(3)))], tmp_path / "cache", workers=1)
    assert main(["tokenize", str(tmp_path / "cache"), "--model", "./nowhere", "--engine", "ray"]) == 1
    assert capsys.readouterr().err == ("dataprep: --engine ray: Ray isn't installed; run: pip install 'sftpack[ray]'\n")
