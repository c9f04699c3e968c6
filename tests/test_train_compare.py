"""Two models beside each other: held-out loss overall and by source, and their answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from train.attention import register_packed_attention
from train.batch import Plan, collate
from train.cli import main
from train.compare import loss_table, losses_by_source, targets_by_source
from train.cost import pack_cost
from train.hub import find_model
from train.load import Packs, open_shards
from train.loss import summed_loss
from train.model import read_shape

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class TwoSources(Packs):
    """Packs whose examples are of the first and the second source in turn."""

    def source_ids(self, index: int) -> np.ndarray:
        return np.arange(len(self[index].seq_lengths), dtype=np.int32) % 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    home = tmp_path_factory.mktemp("compare")
    model = tiny_model_dir(home / "base", tiny_tokenizer_dir)
    packs = packed(chat_examples(tiny_tokenizer_dir, 30), 256)[:4]
    write_shards(home / "cache", tiny_tokenizer_dir, str(model), packs[:2], packs[2:], seq_len=256)
    return home


def test_each_source_has_the_loss_of_its_own_examples(home: Path) -> None:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        home / "base", attn_implementation=register_packed_attention(), dtype=torch.float32
    )
    val = open_shards(home / "cache").val
    assert val is not None
    val.__class__ = TwoSources
    sums = losses_by_source(model, val, 2, torch.device("cpu"))
    expected, counts = [0.0, 0.0], [0, 0]
    plain: Any = AutoModelForCausalLM.from_pretrained(home / "base", attn_implementation="sdpa", dtype=torch.float32)
    for index in range(len(val)):
        pack, start = val[index], 0
        for place, length in enumerate(pack.seq_lengths.tolist()):
            ids = torch.tensor(pack.input_ids[start : start + length].astype("int64"))[None]
            labels = ids.where(torch.tensor(pack.is_target[start : start + length])[None], -100)
            number = int((labels != -100).sum())
            with torch.no_grad():
                expected[place % 2] += plain(input_ids=ids, labels=labels).loss.item() * number
            counts[place % 2] += number
            start += length
    assert sums.tolist() == pytest.approx(expected, rel=1e-5)
    assert targets_by_source(val, 2).tolist() == counts
    with torch.no_grad():
        whole = sum(summed_loss(model, collate(val, [index])).item() for index in range(len(val)))
    assert sums.sum() == pytest.approx(whole, rel=1e-5)
    one, other = counts
    halves = np.array([1.0 * one, 3.0 * other])
    lines = loss_table(["forum", "books"], val, [halves, halves - np.array([0.5 * one, 0.0])])
    assert [line.split()[:5] for line in lines[1:3]] == [
        ["forum", f"{one:,}", "1.0000", "0.5000", "-0.5000"],
        ["books", f"{other:,}", "3.0000", "3.0000", "+0.0000"],
    ]
    assert lines[1].endswith("2.72, 1.65") and lines[3].startswith("all ")


@pytest.mark.parametrize("micro_packs", [1, 3])
def test_a_runs_held_out_loss_is_told_by_source(home: Path, tmp_path: Path, micro_packs: int) -> None:
    """In micro-batches of one pack and of more than there are, with the head in the loss as on GPUs."""
    import torch.distributed
    from transformers import AutoModelForCausalLM

    from train.evaluate import held_out_loss
    from train.launch import Ranks
    from train.loss import fuse_head

    model: Any = AutoModelForCausalLM.from_pretrained(
        home / "base", attn_implementation=register_packed_attention(), dtype=torch.float32
    )
    val = open_shards(home / "cache").val
    assert val is not None
    val.__class__ = TwoSources
    sums, counts = losses_by_source(model, val, 3, torch.device("cpu")), targets_by_source(val, 3)
    assert fuse_head(model, collate(val, [0]), None)
    cost = pack_cost(read_shape(find_model(str(home / "base"))))
    plan = Plan(num_packs=1, batch_packs=1, micro_packs=micro_packs, num_ranks=1, cost=cost)
    alone = Ranks(rank=0, local_rank=0, num_ranks=1, device=torch.device("cpu"))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        found = held_out_loss(model, val, ["forum", "books", "none"], plan, alone)
    finally:
        torch.distributed.destroy_process_group()
    assert found.loss == pytest.approx(sums.sum() / counts.sum(), rel=1e-6)
    expected = {"forum": sums[0] / counts[0], "books": sums[1] / counts[1]}
    assert found.by_source == pytest.approx(expected, rel=1e-6)


def test_a_table_and_answers_are_printed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, shards = str(home / "base"), str(home / "cache")
    assert main(["compare", base, base, "--shards", shards, "--prompt", "Hello", "--max-tokens", "4"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[:3] == [f"A  {base}", f"B  {base}", ""]
    assert lines[3].split()[:2] == ["source", "targets"]
    assert lines[4].startswith("tiny ") and lines[5].startswith("all ")
    assert lines[4].split()[4] == "+0.0000"
    assert "> Hello" in lines and out.count(f"[{base}]") == 2
