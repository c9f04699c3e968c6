"""`--engine ray` on real clusters on this machine: nodes are killed, or don't see the cache."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """A cache that was made without a cluster."""
    folder = tmp_path_factory.mktemp("alone")
    raw = write_jsonl(folder / "raw.jsonl", many_dialogues(8_000))
    normalize_corpus([str(raw)], folder, workers=1)
    options = PackOptions(seq_len=256, overflow="cut", val_fraction=0.0, seed=0)
    tokenize_corpus(folder, str(tiny_tokenizer_dir), options, workers=1)
    return folder


@pytest.fixture
def cache(tmp_path: Path, alone: Path) -> Path:
    shutil.copytree(alone / "conversations", tmp_path / "cache" / "conversations")
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


def start(cache: Path, model: Path, cluster: "Cluster") -> "subprocess.Popen[str]":
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(cache, model), env=environment, cwd=HERE, text=True, **pipes)


def await_chunks(cache: Path, process: "subprocess.Popen[str]") -> int:
    while process.poll() is None and not list(cache.glob("tokens/*/*.arrow")):
        time.sleep(0.01)
    return len(list(cache.glob("tokens/*/*.arrow")))


@contextmanager
def node_that_does_not_see(folder: Path, cluster: "Cluster") -> Iterator[None]:
    """Start a node in a mount namespace of its own, in which the folder is empty."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs mount namespaces (unshare -rm)")
    hidden = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder)]
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--address", cluster.address]
    ray += ["--num-cpus=1", "--num-gpus=0", f"--object-store-memory={80 << 20}"]
    process = subprocess.Popen([*hidden, *ray], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def test_a_node_killed_midway_costs_its_chunks_only_and_the_bytes_are_those_of_one_machine(
    cache, alone, tiny_tokenizer_dir, cluster
):
    process = start(cache, tiny_tokenizer_dir, cluster)
    doomed = cluster.add_node(num_cpus=1, **NODE)
    await_chunks(cache, process)
    doomed.kill_raylet()
    at_the_kill = len(list(cache.glob("tokens/*/*.arrow")))
    cluster.add_node(num_cpus=1, **NODE)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    assert f"8,000 conversations tokenised anew by Ray at {cluster.address}, 2 nodes, 1 CPUs" in out
    assert files_of(cache) == files_of(alone)
    assert at_the_kill < len(list(cache.glob("tokens/*/*.arrow")))


def test_a_node_that_does_not_see_the_cache_is_sent_rows_and_gives_back_the_same_bytes(
    cache, alone, tiny_tokenizer_dir, cluster
):
    with node_that_does_not_see(cache, cluster):
        process = start(cache, tiny_tokenizer_dir, cluster)
        assert await_chunks(cache, process)
        cluster.add_node(num_cpus=1, **NODE)  # which sees it
        out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    assert re.search(rf"; \d,\d{{3}} sent to nodes that don't see {cache}", out)
    assert files_of(cache) == files_of(alone)
    assert not list(cache.rglob(".*.tmp"))


@pytest.mark.long
def test_a_head_that_dies_is_told_in_one_line_and_the_next_run_goes_on(cache, alone, tiny_tokenizer_dir, cluster):
    process = start(cache, tiny_tokenizer_dir, cluster)
    cluster.add_node(num_cpus=1, **NODE)
    assert await_chunks(cache, process)
    cluster.head_node.kill_gcs_server(check_alive=False)
    cluster.head_node.kill_raylet()
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (1, "")
    assert re.fullmatch(
        r"dataprep: Ray('s head node at \S+| on this machine) is gone; start it again, then run the command again: it "
        r"goes on\n",
        err,
    )
    options = PackOptions(seq_len=256, overflow="cut", val_fraction=0.0, seed=0)
    assert tokenize_corpus(cache, str(tiny_tokenizer_dir), options, workers=1).tokenized < 8_000
    assert files_of(cache) == files_of(alone)


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
