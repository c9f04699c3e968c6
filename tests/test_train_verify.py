"""`train verify`: a sound model passes, a leak between examples is found, and large models are cut."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from schemas.errors import TrainError
from train.attention import NAME, register_packed_attention
from train.hub import find_model
from train.launch import Ranks
from train.load import Packs, open_shards
from train.model import load_weights, read_shape
from train.verify.elsewhere import take_elsewhere
from train.verify.model_checks import change_one_example, compare_packed
from train.verify.run import Check, _furthest, _packed_checks
from train.verify.sample import few_packs, layers_that_fit, sample, write_cut
from train.verify.steps import config_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CPU = torch.device("cpu")
ALONE = Ranks(rank=0, local_rank=0, num_ranks=1, device=CPU)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    home = tmp_path_factory.mktemp("verify")
    model = tiny_model_dir(home / "base", tiny_tokenizer_dir, tied=True, layers=3)
    packs = packed(chat_examples(tiny_tokenizer_dir, 60), 256)[:9]
    write_shards(home / "cache", tiny_tokenizer_dir, str(model), packs, seq_len=256)
    return home


@pytest.fixture(scope="module")
def packs(home: Path) -> Packs:
    return few_packs(open_shards(home / "cache").train, 7, 160)


def test_packs_are_cut_to_whole_examples(home: Path, packs: Packs) -> None:
    whole = open_shards(home / "cache").train
    assert len(packs) == 7
    assert int(packs.num_tokens.max()) <= 160
    for index, place in enumerate([0, 1, 2, 4, 5, 6, 8]):
        pack, given = packs[index], whole[place].input_ids.tolist()
        examples = torch.from_numpy(pack.input_ids.copy()).split(pack.seq_lengths.tolist())
        for example in examples:
            text = ",".join(map(str, example.tolist()))
            assert text in ",".join(map(str, given))
        assert pack.is_target.sum() == packs.num_targets[index] > 0


def test_where_no_example_is_short_enough_the_tokens_around_its_first_target_are_taken(home: Path) -> None:
    whole = open_shards(home / "cache").train
    cut = few_packs(whole, 3, 8)
    assert cut.num_tokens.tolist() == [8, 8, 8]
    assert [len(cut[index].seq_lengths) for index in range(3)] == [
        2,
        2,
        2,
    ]  # or nothing would show that they keep apart
    assert cut.num_targets.tolist() == [4, 4, 4]
    assert not any(cut[index].is_target[0] for index in range(3))


def test_a_sound_model_passes_and_a_wrong_number_does_not(home: Path, packs: Packs) -> None:
    config = config_of("base", 256, ALONE)
    found = compare_packed(find_model(str(home / "base")), packs, config, ALONE)
    checks = {check.name: check for check in _packed_checks(found, config.precision)}
    assert [check.holds for check in checks.values()] == [True] * 4
    assert found.num_packs_moved == 7 and found.moved == 0.0 and found.own_moved > 0.01
    assert found.loss < 1e-6 and found.gradients < 1e-5 and found.by_hand < 1e-6


def test_a_leak_between_examples_is_found(home: Path, packs: Packs) -> None:
    """Attention over the whole pack, as a model has it that is not told where examples end."""
    from transformers import AttentionInterface

    def leaking(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> tuple[Any, None]:
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2).contiguous(), None

    register_packed_attention()
    model = load_weights(find_model(str(home / "base")), torch.float32, NAME).eval()
    assert change_one_example(model, packs, 0, CPU)[0] == 0.0
    AttentionInterface.register(NAME, leaking)
    try:
        moved, own = change_one_example(model, packs, 0, CPU)
    finally:
        register_packed_attention()
    assert moved > 1e-3 and own > 1e-3


def test_a_check_that_fails_says_so() -> None:
    check = Check(name="ranks", holds=False, difference=0.02, allowed=1e-5, says="two steps on 2 ranks are those on 1")
    assert check.line() == (
        "ranks                     2.0e-02    1.0e-05  DOES NOT HOLD: two steps on 2 ranks are those on 1"
    )
    assert _furthest([1.0, 2.0], [1.0, 4.0]) == 0.5


def test_the_first_layers_of_a_model_are_a_model(home: Path, tmp_path: Path) -> None:
    base = find_model(str(home / "base"))
    cut = write_cut(base, 2, tmp_path / "cut")
    whole, short = load_weights(base, torch.float32), load_weights(cut, torch.float32)
    assert read_shape(cut).num_layers == 2
    weights = whole.state_dict()
    assert not [name for name in short.state_dict() if ".layers.2." in name]
    assert all(torch.equal(weights[name], weight) for name, weight in short.state_dict().items())


def test_a_model_that_memory_does_not_hold_is_refused(home: Path) -> None:
    from dataclasses import replace

    shape = read_shape(find_model(str(home / "base")))
    assert layers_that_fit(shape, 1000, CPU) == 3
    with pytest.raises(TrainError, match=r"two layers of this model take [0-9]+ GiB of memory to verify"):
        layers_that_fit(replace(shape, vocab_size=10**9, num_parameters=10**12), 1000, CPU)


@pytest.mark.long
def test_beside_a_single_gpu_the_cpu_takes_the_steps_on_two_ranks_and_on_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    shards, files = open_shards(home / "cache"), find_model(str(home / "base"))
    shape = read_shape(files)
    chosen = sample(files, shape, shards.train, CPU, tmp_path / "model")
    arguments = ["verify", "--shards", str(home / "cache")]
    with take_elsewhere(files, shape, shards, chosen, tmp_path, arguments) as elsewhere:
        assert elsewhere.on_another_device
        one, two = elsewhere.wait(1), elsewhere.wait(2)
    assert two.numbers() == pytest.approx(one.numbers(), rel=2e-5)


@pytest.mark.long
def test_the_whole_command_leaves_a_certificate(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train.cli", "verify", "--shards", str(home / "cache"), "--out"]
    refused, done = (
        subprocess.run([*command, str(out)], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        for out in (tmp_path / "none", tmp_path)
    )
    assert refused.returncode == 1
    assert "none: no such folder; --out is where certificate.json is to lie" in refused.stderr
    assert done.returncode == 0
    said = done.stdout
    content = json.loads((tmp_path / "certificate.json").read_text(encoding="utf-8"))
    assert content["holds"] is True and content["layers"] == "3 of 3"
    names = [check["name"] for check in content["checks"]]
    assert names == [
        "packed loss",
        "packed gradients",
        "loss over targets",
        "isolation",
        "accumulation",
        "checkpoint",
        "ranks",
    ]
    assert [said.count(f"\n{name}  ") for name in names] == [1] * 7
    assert said.endswith(f"certificate  {tmp_path / 'certificate.json'}\n")
