"""What bends training, in numbers: smoothed labels beside PyTorch's, the size of noise, frozen weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_train_runs import PLAIN, _finish, _start
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from schemas.errors import TrainError
from train.attention import register_packed_attention
from train.hub import find_model
from train.kernels import probe
from train.lora import choose_trained
from train.loss import LinearCrossEntropy, SummedCrossEntropy, losses_and_gradients, summed_loss
from train.method import Method
from train.model import shape_as_trained
from train.noise import add_noise, noise_size

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    home = tmp_path_factory.mktemp("methods")
    model = tiny_model_dir(home / "base", tiny_tokenizer_dir)
    packs = packed(chat_examples(tiny_tokenizer_dir, 30), 256)[:6]
    write_shards(home / "cache", tiny_tokenizer_dir, str(model), packs[:5], packs[5:], seq_len=256)
    return home


def tiny(home: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        home / "base", dtype=torch.float32, attn_implementation=register_packed_attention()
    ).train()


@pytest.mark.parametrize("smoothing", [0.1, 0.4])
def test_smoothed_labels_give_the_loss_and_gradients_of_pytorch(smoothing: float) -> None:
    torch.manual_seed(1)
    hidden, weight = torch.randn(700, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    labels = torch.randint(50, (700,)).where(torch.rand(700) > 0.1, -100)
    expected = F.cross_entropy(hidden @ weight.T, labels, reduction="sum", label_smoothing=smoothing)
    wanted = torch.autograd.grad(expected * 0.3, (hidden, weight))
    losses = [
        SummedCrossEntropy.apply(hidden @ weight.T, labels, smoothing),
        LinearCrossEntropy.apply(hidden, weight, labels, None, smoothing),
        LinearCrossEntropy.apply(hidden, weight, labels, losses_and_gradients, smoothing),
    ]
    for loss in losses:
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        for one, other in zip(torch.autograd.grad(loss * 0.3, (hidden, weight)), wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-4)


def test_a_frozen_head_in_the_loss_has_no_gradient() -> None:
    hidden, weight = torch.randn(7, 16, requires_grad=True), torch.randn(50, 16)
    labels = torch.randint(50, (7,))
    LinearCrossEntropy.apply(hidden, weight, labels, None).backward()
    F.cross_entropy((hidden.detach().clone().requires_grad_()) @ weight.T, labels, reduction="sum").backward()
    assert weight.grad is None and hidden.grad is not None


def test_noise_is_as_large_as_each_example_alone_would_have_it() -> None:
    sizes = noise_size(5.0, torch.tensor([1, 4]), num_tokens=5, width=25)
    assert sizes.tolist() == [1.0, 0.5, 0.5, 0.5, 0.5]


def test_noise_disturbs_training_within_its_size_and_nothing_else(home: Path) -> None:
    model = tiny(home)
    batch = probe(300, torch.device("cpu"))  # examples of 51 and 86 tokens, width 64
    embeddings = model.get_input_embeddings()
    plain = embeddings(batch.input_ids).detach()
    seen: list[torch.Tensor] = []
    before = summed_loss(model, batch).item()
    add_noise(model, 5.0)
    embeddings.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    torch.manual_seed(3)
    disturbed = [summed_loss(model, batch).item() for _ in range(2)]
    assert len({before, *disturbed}) == 3
    for output in seen:
        noise = (output - plain)[0].abs()
        for rows, largest in ((noise[:51], 5 / (51 * 64) ** 0.5), (noise[51:], 5 / (86 * 64) ** 0.5)):
            assert 0.98 * largest < rows.max().item() <= largest * 1.0001
            assert rows.mean().item() == pytest.approx(largest / 2, rel=0.05)
    assert summed_loss(model.eval(), batch).item() == before


def test_frozen_weights_come_out_as_they_went_in_bit_by_bit(home: Path) -> None:
    from safetensors.torch import load_file

    patterns = ["model.embed_tokens.*", "model.layers.0.*"]
    flags = ["--freeze", *patterns, "--neftune", "5", "--label-smoothing", "0.1", "--schedule", "wsd", "--zero", "2"]
    run = _finish(*_start(home, PLAIN, "frozen", *flags, "--epochs", "3"))
    before, after = load_file(home / "base" / "model.safetensors"), run.weights()
    frozen = {name for name in before if name.startswith(("model.embed_tokens", "model.layers.0."))}
    assert {name for name in before if torch.equal(before[name], after[name])} == frozen
    whole = sum(weight.numel() for weight in before.values())
    trained = whole - sum(before[name].numel() for name in frozen)
    assert f"trained    {trained:,} of the weights, {trained / whole:.2%}; the others are frozen" in run.stdout
    assert shape_as_trained(find_model(str(home / "base")), Method(freeze=tuple(patterns))).num_trained == trained
    assert run.values("eval_loss")[-1] < run.values("eval_loss")[0]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("embed*", "--freeze 'embed.' matches no weight; their names are such as model.embed_tokens.weight,"),
        ("*", "--freeze leaves nothing to train"),
    ],
)
def test_freezing_nothing_or_everything_is_refused(home: Path, pattern: str, message: str) -> None:
    with pytest.raises(TrainError, match=message):
        choose_trained(tiny(home), Method(freeze=(pattern,)), seed=0)
