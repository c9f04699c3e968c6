"""`--backend trl`: SFTTrainer takes the same packs in the same steps, with the same losses as the DeepSpeed loop."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from train.cli import _parser, main
from train.config import RunConfig, settle
from train.load import open_shards
from train.trl_backend import EMPTY, held_out_order, laid_out, run_order

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FLAGS = ["--steps", "3", "--batch-packs", "3", "--learning-rate", "1e-3", "--warmup-steps", "1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    home = tmp_path_factory.mktemp("trl")
    model = tiny_model_dir(home / "base", tiny_tokenizer_dir)
    examples = chat_examples(tiny_tokenizer_dir, 14)
    write_shards(home / "cache", tiny_tokenizer_dir, str(model), packed(examples[:11], 96), packed(examples[11:], 96))
    return home


def settled(home: Path, *flags: str, num_ranks: int) -> RunConfig:
    options = _parser().parse_args(["run", "--shards", str(home / "cache"), *flags])
    return settle(options, {}, model="m", seq_len=128, num_ranks=num_ranks, has_bf16_gpu=False)


def measures(out: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line[name] for line in lines if line.get(name) is not None and line["step"] > 0]


def test_each_step_is_filled_up_so_that_ranks_take_equally_many(home: Path) -> None:
    packs = open_shards(home / "cache").train
    assert len(packs) == 9
    order = run_order(packs, settled(home, "--batch-packs", "5", "--epochs", "2", num_ranks=2))
    first, second, third, fourth = (order[start : start + 6] for start in (0, 6, 12, 18))
    assert (first[5:], second[4:]) == ([EMPTY], [EMPTY, EMPTY])
    assert sorted(first[:5] + second[:4]) == sorted(third[:5] + fourth[:4]) == list(range(9))
    assert first != third
    val = open_shards(home / "cache").val
    assert val is not None
    assert held_out_order(val, settled(home, "--micro-packs", "2", num_ranks=2))[: len(val)] == list(range(len(val)))


def test_labels_stand_at_their_own_places_and_an_empty_pack_has_none(home: Path) -> None:
    packs = open_shards(home / "cache").train
    given = laid_out({"train": packs}, [{"train": 0}, {"train": EMPTY}], on_gpu=True)
    expected = [token if target else -100 for token, target in zip(packs[0].input_ids, packs[0].is_target, strict=True)]
    assert given["labels"][0].tolist() == expected
    assert "seq_lengths" not in given
    assert (laid_out({"train": packs}, [{"train": EMPTY}], on_gpu=False)["labels"] == -100).all()


@pytest.mark.parametrize(
    "flags",
    [
        ["--zero", "1"],
        pytest.param(["--procs", "2", "--zero", "2"], marks=pytest.mark.long),
        pytest.param(["--procs", "2", "--zero", "3"], marks=pytest.mark.long),
    ],
)
def test_losses_and_held_out_losses_are_those_of_the_deepspeed_loop(
    home: Path, tmp_path: Path, flags: list[str]
) -> None:
    def losses(name: str, *flags: str) -> tuple[list[float], list[float]]:
        command = [
            sys.executable,
            "-m",
            "train.cli",
            "run",
            "--shards",
            str(home / "cache"),
            "--out",
            str(tmp_path / name),
        ]
        done = subprocess.run([*command, *FLAGS, *flags], capture_output=True, encoding="utf-8", env=os.environ)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name / "model" / "model.safetensors").is_file()
        return measures(tmp_path / name, "loss"), measures(tmp_path / name, "eval_loss")

    ours = losses("ours", "--save-every", "0")
    assert len(ours[0]) == 3
    theirs = losses("theirs", "--backend", "trl", *flags)
    assert theirs[0] == pytest.approx(ours[0], rel=1e-4)
    assert theirs[1] == pytest.approx(ours[1], rel=1e-4)


@pytest.mark.parametrize(
    ("flags", "launcher", "message"),
    [
        (["--lora"], "", "--lora is not done by --backend trl; leave one of the two out"),
        (["--patience", "2"], "", "--patience is not done by --backend trl"),
        (["--save-every", "9"], "", "--save-every is not done by --backend trl"),
        (["--zero", "3"], "ACCELERATE_USE_FSDP", "--zero: accelerate launch has settled FSDP; leave it out here"),
        (["--deepspeed", "x"], "ACCELERATE_USE_DEEPSPEED", "--deepspeed: accelerate launch has settled DeepSpeed"),
        (["--out", "base"], "", "model: is there already; choose another --out"),
    ],
)
def test_what_it_does_not_do_is_refused(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    launcher: str,
    message: str,
) -> None:
    monkeypatch.chdir(home)
    (home / "base" / "model").mkdir(exist_ok=True)
    if launcher:
        monkeypatch.setenv(launcher, "true")
    assert main(["run", "--shards", "cache", "--backend", "trl", *flags]) == 1
    assert message in capsys.readouterr().err
