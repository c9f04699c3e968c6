"""What `train` refuses: each in one line that says what differs and what to do next."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from schemas.errors import TrainError
from train.cli import _parser, main
from train.config import settle
from train.log import StepRecord
from train.loop import check_numbers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """A folder with base/ and cache/."""
    home = tmp_path_factory.mktemp("refusals")
    model = tiny_model_dir(home / "base", tiny_tokenizer_dir)
    write_shards(home / "cache", tiny_tokenizer_dir, str(model), packed(chat_examples(tiny_tokenizer_dir, 9), 128))
    return home


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made / "cache", tmp_path / "cache"))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr."""
    assert main(list(arguments)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.strip()


def change_manifest(cache: Path, **fields: Any) -> None:
    path = cache / "shards" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["checksum"]
    path.write_text(json.dumps(manifest | fields), encoding="utf-8")


def test_no_shards_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = f"train: {tmp_path / 'shards'}: no shards here yet; run: dataprep tokenize --model MODEL"
    assert refusal(capsys, "run", "--shards", str(tmp_path)) == expected


def test_a_damaged_manifest(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "shards" / "manifest.json").write_text("{", encoding="utf-8")
    assert "not a JSON object; the file is damaged" in refusal(capsys, "run", "--shards", str(cache))


def test_an_unknown_version(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_manifest(cache, version=4)
    assert "version is 4, this version reads 3" in refusal(capsys, "run", "--shards", str(cache / "shards"))


def test_a_missing_shard(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "shards" / "train-00000-00000000.arrow").unlink()
    line = refusal(capsys, "run", "--shards", str(cache))
    assert "train-00000-00000000.arrow: named in manifest.json but missing; run `dataprep tokenize` again" in line


def test_a_shard_of_another_size(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (cache / "shards" / "train-00000-00000000.arrow").open("ab") as file:
        file.write(b"more")
    assert "bytes, manifest.json says" in refusal(capsys, "run", "--shards", str(cache))


def test_a_shard_that_is_no_arrow_file(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = cache / "shards" / "train-00000-00000000.arrow"
    path.write_bytes(b"x" * path.stat().st_size)
    assert "not an Arrow file" in refusal(capsys, "run", "--shards", str(cache))


def test_a_missing_tokenizer(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(cache / "shards" / "tokenizer")
    assert "the tokenizer's files are missing" in refusal(capsys, "run", "--shards", str(cache))


def test_no_packs(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_manifest(cache, splits={})
    assert "holds no packs to train on" in refusal(capsys, "run", "--shards", str(cache))


def test_a_model_with_too_small_a_vocabulary(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = Path(shutil.copytree(made / "base", tmp_path / "small"))
    config = json.loads((small / "config.json").read_text(encoding="utf-8"))
    (small / "config.json").write_text(json.dumps(config | {"vocab_size": 200}), encoding="utf-8")
    line = refusal(capsys, "run", "--shards", str(made / "cache"), "--model", str(small))
    assert f"{small}: has 200 tokens, the shards hold id 3" in line
    assert line.endswith(f"or run: dataprep tokenize --model {small}")


def test_a_model_with_another_tokenizer(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copytree(made / "base", tmp_path / "other"))
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(text.replace("tool_response", "tool_reply"), encoding="utf-8")
    line = refusal(capsys, "run", "--shards", str(made / "cache"), "--model", str(other))
    assert "its tokenizer is not the shards' (tokenizer.sha256 " in line
    assert line.endswith(f"run: dataprep tokenize --model {other}")


def test_a_model_with_another_chat_template(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copytree(made / "base", tmp_path / "other"))
    with (other / "chat_template.jinja").open("a", encoding="utf-8") as file:
        file.write("{# mended #}")
    line = refusal(capsys, "run", "--shards", str(made / "cache"), "--model", str(other))
    assert "its chat template is not the shards' (tokenizer.template_sha256 " in line
    assert line.endswith(f"run: dataprep tokenize --model {other}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "/no/such/folder: no such folder; check --model"),
        ("none.gguf", "none.gguf: no such file; check --model"),
        ("Qwen/No-Such-Model", "not a folder here, not in the hub's cache, and https://127.0.0.1:9 can't be reached"),
    ],
)
def test_a_model_that_is_nowhere(
    made: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for arguments in (("run", "--shards", str(made / "cache")), ("chat", "--prompt", "a")):
        assert message in refusal(capsys, *arguments, "--model", name)


def test_a_model_folder_without_its_weights(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = Path(shutil.copytree(made / "base", tmp_path / "base"))
    (empty / "model.safetensors").unlink()
    line = refusal(capsys, "run", "--shards", str(made / "cache"), "--model", str(empty))
    assert "has a config.json but not all of its weights" in line
    (empty / "config.json").unlink()
    assert "holds no config.json" in refusal(capsys, "chat", "--model", str(empty))


def test_a_model_without_checkpoints_in_the_folder(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    line = refusal(capsys, "run", "--shards", str(made / "cache"), "--out", str(tmp_path / "run"))
    assert line.endswith("an earlier run left this; choose another --out, or start anew with --fresh")


def test_patience_without_held_out_packs(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "run", "--shards", str(made / "cache"), "--patience", "2")
    assert line == "train: --patience needs held-out packs; run dataprep tokenize with --val-fraction 0.05"


def test_fp16_without_a_gpu(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "run", "--shards", str(made / "cache"), "--precision", "fp16")
    assert line == "train: --precision fp16 needs a GPU; use bf16 or fp32 on CPU"


@pytest.mark.parametrize(
    ("loss", "norm", "precision", "message"),
    [
        (
            float("nan"),
            1.0,
            "fp16",
            "the loss of step 7 is nan; lower --learning-rate, use --precision fp32, or look at its packs, 4, 9: "
            "dataprep inspect cache --pack 4",
        ),
        (1.0, float("inf"), "bf16", "the gradient norm of step 7 is inf; lower"),
    ],
)
def test_numbers_that_are_none(loss: float, norm: float, precision: str, message: str) -> None:
    flags = _parser().parse_args(["run", "--shards", "cache", "--precision", precision])
    config = settle(flags, {}, model="m", seq_len=128, num_ranks=1, has_bf16_gpu=False)
    speeds = {"tokens": 1, "targets": 1, "tokens_per_s": 1.0, "targets_per_s": 1.0}
    speeds |= {"mfu": None, "memory_gib": None, "waiting": 0.0, "communication": 0.0}
    record = StepRecord(step=7, epoch=1, loss=loss, learning_rate=1.0, grad_norm=norm, **speeds)
    with pytest.raises(TrainError, match=re.escape(message)):
        check_numbers([record], config, [(4, 9)])
    check_numbers([replace(record, loss=1.0)], replace(config, precision="fp16"), [(4, 9)])
    check_numbers([replace(record, loss=1.0, grad_norm=None)], config, [(4, 9)])


def test_help_needs_no_heavy_import() -> None:
    code = "import sys, train.cli; print(sorted({'torch', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["run", "plan", "chat", "compare", "export"])
def test_every_option_is_explained(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert "example" in "\n".join(lines)
    assert len(lines) < 60
