"""Configs that are refused before a GPU starts, the doctor's lines, and Slurm's script."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from schemas.errors import TrainError
from train.cli import _parser, main
from train.deepspeed_keys import KEYS
from train.deepspeed_lint import lint, refuse_problems
from train.machine import environment, locks

STOCK = {
    "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16},
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": "auto", "warmup_num_steps": "auto"}},
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "none", "pin_memory": True},
        "offload_param": {"device": "none", "pin_memory": True},
        "overlap_comm": True,
        "sub_group_size": 1e9,
        "reduce_bucket_size": "auto",
        "stage3_max_live_parameters": 1e9,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 2000,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}


def test_nothing_is_said_of_a_usual_config() -> None:
    assert lint(STOCK) == lint({}) == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"zero_optimisation": {}}, "zero_optimisation: DeepSpeed knows no such key; write 'zero_optimization'"),
        ({"zero_optimization": {"overlapcomm": True}}, "zero_optimization.overlapcomm: DeepSpeed knows no such key; "),
        ({"zero_optimization": True}, "zero_optimization: is True; write an object"),
        ({"zero_optimization": {"stage": 1, "cpu_offload": True}}, "zero_optimization.cpu_offload: has moved; write "),
        (
            {"optimizer": {"type": "Adam", "params": {"max_grad_norm": 1.0}}},
            "optimizer.params.max_grad_norm: has moved",
        ),
        ({"amp": {"enabled": False}}, "amp: DeepSpeed has it no more; remove it: use bf16"),
        ({"tensor_parallel": {"autotp_size": 4}}, "tensor_parallel: is not done here: "),
        ({"gradient_allreduce_op": "sum"}, "gradient_allreduce_op: the loss counts on "),
        (
            {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
            "zero_optimization.offload_param: weights are only cut up at stage 3, this is stage 2",
        ),
        (
            {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme"}}},
            "zero_optimization.offload_optimizer.device: disks are not used here; write ",
        ),
        ({"bf16": {"enabled": "true"}}, "bf16.enabled: is the text 'true'; write true without quotes"),
        ({"gradient_clipping": "1.0"}, "gradient_clipping: is the text '1.0'; write 1.0 without quotes"),
        (
            {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 4},
            "train_batch_size: is 64, but micro-batch 4 x accumulation 4 x 2 ranks is 32; set one of the three to ",
        ),
        (
            {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 3},
            "train_batch_size: is 64, no multiple of micro-batch 4 x accumulation 3; ",
        ),
    ],
)
def test_a_config_that_cannot_work_is_refused_with_key_reason_and_remedy(content: dict[str, Any], line: str) -> None:
    with pytest.raises(TrainError, match=re.escape(f"ds.json: {line}")):
        refuse_problems(Path("ds.json"), content, 2)


def test_what_has_no_effect_is_told_and_not_refused() -> None:
    content = {
        "activation_checkpointing": {"partition_activations": False},
        "zero_optimization": {"stage": 2, "stage3_max_live_parameters": 1e9},
        "train_batch_size": 64,
        "my_note": "x",
        "_comment": "x",
    }
    found = [each.key for each in refuse_problems(Path("ds.json"), content, 2)]
    expected = ["my_note", "activation_checkpointing", "zero_optimization.stage3_max_live_parameters"]
    assert found == [*expected, "train_batch_size"]


def test_several_problems_are_counted_in_the_line() -> None:
    with pytest.raises(TrainError, match=re.escape("(and 1 more: train doctor --deepspeed ds.json)")):
        refuse_problems(Path("ds.json"), {"amp": {}, "gradient_allreduce_op": "sum"}, 2)


def test_the_keys_are_those_of_the_deepspeed_installed() -> None:
    from train.launch import import_deepspeed

    import_deepspeed(on_gpu=False)
    from deepspeed.runtime import precision_config
    from deepspeed.runtime.zero import config, offload_config

    models = {
        "zero_optimization": config.DeepSpeedZeroConfig,
        "zero_optimization.offload_param": offload_config.DeepSpeedZeroOffloadParamConfig,
        "zero_optimization.offload_optimizer": offload_config.DeepSpeedZeroOffloadOptimizerConfig,
        "bf16": precision_config.DeepSpeedBF16Config,
        "fp16": precision_config.DeepSpeedFP16Config,
    }
    for table, model in models.items():
        assert {field.alias or name for name, field in model.model_fields.items()} <= set(KEYS[table].split()), table


def test_variables_that_a_launcher_left_are_a_problem() -> None:
    found = list(environment({"RANK": "0", "WORLD_SIZE": "2", "NCCL_SOCKET_IFNAME": "ib0"}, {"lo", "eth0"}))
    assert [line.state for line in found] == ["problem", "problem", "ok"]
    assert found[0].says.endswith("unset RANK WORLD_SIZE")
    assert found[1].says == "*_SOCKET_IFNAME is ib0, this machine has eth0, lo; set one of these"
    assert next(iter(environment({"NCCL_SOCKET_IFNAME": "eth"}, {"lo", "eth0"}))).state == "ok"


def test_a_lock_that_a_killed_compilation_left_is_a_problem(tmp_path: Path) -> None:
    lock = tmp_path / "py311_cu128" / "cpu_adam" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert list(locks(tmp_path)) == []  # somebody may be compiling
    os.utime(lock, (time.time() - 3600,) * 2)
    assert next(iter(locks(tmp_path))).says.endswith(f"60 minutes ago by a compilation that was killed; rm {lock}")


def test_the_doctor_looks_over_a_machine_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    config = tmp_path / "ds.json"
    config.write_text(json.dumps({"bf16": {"enabled": True}, "amp": {}}), encoding="utf-8")
    code = main(["doctor", "--out", str(tmp_path), "--deepspeed", str(config)])
    lines = capsys.readouterr().out.splitlines()
    assert code == 1
    assert "PROBLEM  deepspeed     amp: DeepSpeed has it no more; remove it: use bf16" in lines
    for name in ("python", "packages", "GPUs", "attention", "CPU", "/dev/shm", "disk", "limits", "network", "hub"):
        assert any(line.split()[1] == name for line in lines), name


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    home = tmp_path_factory.mktemp("launching")
    model = tiny_model_dir(home / "base", tiny_tokenizer_dir)
    packs = packed(chat_examples(tiny_tokenizer_dir, 9), 128)
    return write_shards(home / "cache", tiny_tokenizer_dir, str(model), packs)


def test_slurm_gets_a_script_that_starts_a_rank_a_gpu(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = ["--nodes", "2", "--gpus-per-node", "8", "--time", "12:00:00", "--sbatch", "partition=gpu", "account=lab"]
    run = ["train", "run", "--shards", str(cache), "--out", "runs/it's mine", "--learning-rate", "2e-5"]
    assert main(["launch", "slurm", *nodes, "--", *run]) == 0
    script = capsys.readouterr().out
    subprocess.run(["bash", "-n"], input=script, encoding="utf-8", check=True)
    assert [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")] == [
        "--job-name=it's-mine",
        "--nodes=2",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--time=12:00:00",
        "--requeue",
        "--signal=TERM@300",
        "--output=%x-%j.log",
        "--open-mode=append",
        "--partition=gpu",
        "--account=lab",
    ]
    assert f"-m train.cli run --shards {cache} --out 'runs/it'\"'\"'s mine' --learning-rate 2e-5" in script


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (["chat", "--model", "m"], "give the run behind two dashes: -- train run OPTIONS"),
        (["run", "--shards", "{cache}"], "name the run's folder with --out"),
        (["run", "--shards", "{cache}", "--out", "o", "--fresh"], "would start anew; leave --fresh out"),
        (["run", "--shards", "{cache}", "--out", "o", "--procs", "2"], "starts the processes; leave --procs out"),
        (["run", "--shards", "nowhere", "--out", "o"], "no shards here yet"),
    ],
)
def test_what_slurm_could_not_run_is_refused(
    cache: Path, run: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [each.format(cache=cache) for each in run]
    assert main(["launch", "slurm", "--gpus-per-node", "8", "--", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["launch", "doctor"])
def test_the_help_fits_a_screen(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert "example" in "\n".join(lines) and len(lines) < 40
