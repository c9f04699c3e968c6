"""A few of the disturbances of kills.py, of which the script does a hundred; and interrupts in the midst of imports."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kills import INTERRUPTED, Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Bench:
    made = Bench(home=tmp_path_factory.mktemp("kills"), model=tiny_tokenizer_dir, from_nothing=False)
    made.prepare()
    return made


def test_disturbed_runs_leave_what_is_whole_and_the_next_ends_with_the_same_bytes(bench):
    became = bench.trial(["kill", "full", "interrupt", "kill", "worker", "full", "interrupt"], random.Random(3))
    assert len(became) == 7
    assert any("kill: stopped" in each for each in became)


def test_a_cache_that_is_read_only_stays_as_it_is(bench):
    if bench.trial(["read-only"], random.Random(1)) == ["no mount"]:
        pytest.skip("needs the right to mount a tmpfs")


@pytest.mark.parametrize("module", ["dataprep.cli", "pyarrow", "dataprep.normalize.run"])
def test_an_interrupt_within_an_import_is_one_line(tmp_path, module):
    """A module of the name that the command imports sends the signal from within, twice."""
    code = (
        "import importlib.abc, os, signal, sys\n"
        "class Interrupting(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from dataprep.start import main\n"
        "sys.argv = ['dataprep', 'normalize', 'none.jsonl']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=_here())
    assert (done.returncode, done.stderr) == (130, INTERRUPTED)


def test_an_interrupt_where_nothing_can_catch_it_is_one_line_too(tmp_path):
    code = (
        "import os, signal, sys, dataprep.cli\n"
        "from dataprep.start import main\n"
        "class Last:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "def run():\n"
        "    Last()\n"
        "    return 0\n"
        "dataprep.cli.main = run\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=_here())
    assert (done.returncode, done.stderr) == (130, INTERRUPTED)


def test_a_run_that_was_told_to_ignore_interrupts_does(tmp_path):
    (tmp_path / "raw.jsonl").write_text('{"question": "Is it raining?", "answer": "No."}\n', encoding="utf-8")
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); import sys; from dataprep.start import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "normalize", "raw.jsonl"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=_here(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert done.stderr == ""
    assert (tmp_path / "cache" / "conversations" / "manifest.json").is_file()


def _here() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
