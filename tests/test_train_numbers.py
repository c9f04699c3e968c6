"""Numerical proof against plain transformers: a pack of examples is trained on as each of them alone would be."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import Example, chat_examples, packed, tiny_model_dir, write_shards

from schemas.errors import ModelError, TrainError
from train.attention import check_every_layer_attends, register_packed_attention
from train.batch import collate
from train.hub import ModelFiles
from train.load import Packs, open_shards
from train.loss import SummedCrossEntropy, summed_loss
from train.model import read_shape

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def load(folder: Path, attention: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32)


def alone(model: Any, examples: list[Example]) -> tuple[list[float], list[torch.Tensor]]:
    """The reference: each example by itself through plain transformers; its summed loss, and all gradients."""
    model.zero_grad()
    losses = []
    for example in examples:
        labels = [[token if target else -100 for token, target in zip(example.ids, example.targets, strict=True)]]
        mean = model(input_ids=torch.tensor([example.ids]), labels=torch.tensor(labels), use_cache=False).loss
        loss = mean * sum(example.targets)
        loss.backward()
        losses.append(loss.item())
    return losses, [parameter.grad.clone() for parameter in model.parameters()]


def together(model: Any, packs: Packs, indices: list[int]) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss = summed_loss(model, collate(packs, indices))
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]


def furthest(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest difference between two sets of gradients, relative to the largest entry of its tensor."""
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("model"), tiny_tokenizer_dir)


@pytest.fixture(scope="module")
def examples(tiny_tokenizer_dir: Path) -> list[Example]:
    return chat_examples(tiny_tokenizer_dir, 9)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path, examples: list[Example]) -> Packs:
    cache = tmp_path_factory.mktemp("cache")
    write_shards(cache, tiny_tokenizer_dir, "none", packed(examples, 256), seq_len=256)
    return open_shards(cache).train


@pytest.mark.parametrize("reference", ["sdpa", "eager"])
def test_a_packed_batch_has_the_loss_and_gradients_of_each_example_alone(
    model_dir: Path, packs: Packs, examples: list[Example], reference: str
) -> None:
    losses, gradients = alone(load(model_dir, reference), examples)
    model = load(model_dir, register_packed_attention())
    loss, packed_gradients = together(model, packs, list(range(len(packs))))
    assert loss == pytest.approx(sum(losses), rel=1e-5)
    assert furthest(packed_gradients, gradients) < 1e-4


def test_micro_batches_add_up_to_the_whole_batch(model_dir: Path, packs: Packs) -> None:
    model = load(model_dir, register_packed_attention())
    whole, gradients = together(model, packs, list(range(len(packs))))
    model.zero_grad()
    parts = 0.0
    for index in range(len(packs)):
        loss = summed_loss(model, collate(packs, [index]))
        loss.backward()
        parts += loss.item()
    assert parts == pytest.approx(whole, rel=1e-5)
    assert furthest([parameter.grad for parameter in model.parameters()], gradients) < 1e-4


def test_an_empty_micro_batch_adds_exactly_nothing(model_dir: Path, packs: Packs) -> None:
    model = load(model_dir, register_packed_attention())
    loss, gradients = together(model, packs, [])
    assert loss == 0
    assert all(gradient.abs().max() == 0 for gradient in gradients)


def test_changing_one_example_moves_no_other_examples_loss(
    tmp_path: Path, tiny_tokenizer_dir: Path, model_dir: Path, examples: list[Example]
) -> None:
    def losses_of_each(pack: list[Example], name: str) -> list[float]:
        model = load(model_dir, register_packed_attention())
        losses = []
        for counted in range(len(pack)):  # the same pack, targets in one example only
            masked = [
                Example(ids=each.ids, targets=each.targets if index == counted else [False] * len(each.ids))
                for index, each in enumerate(pack)
            ]
            cache = write_shards(tmp_path / f"{name}-{counted}", tiny_tokenizer_dir, "none", [masked], seq_len=256)
            with torch.no_grad():
                losses.append(summed_loss(model, collate(open_shards(cache).train, [0])).item())
        return losses

    pack = packed(examples, 256)[0]
    middle = len(pack) // 2
    shifted = Example(ids=[(token + 11) % 256 + 3 for token in pack[middle].ids], targets=pack[middle].targets)
    before = losses_of_each(pack, "before")
    after = losses_of_each([*pack[:middle], shifted, *pack[middle + 1 :]], "after")
    assert len(pack) >= 3
    for index, (one, other) in enumerate(zip(before, after, strict=True)):
        assert (one == other) == (index != middle)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.bfloat16, 4e-3)])
def test_the_summed_cross_entropy_is_that_of_pytorch(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(1)
    logits = (5 * torch.randn(700, 50)).to(dtype).requires_grad_()
    labels = torch.randint(50, (700,)).where(torch.rand(700) > 0.1, -100)
    loss = SummedCrossEntropy.apply(logits, labels)
    reference = logits.detach().float().requires_grad_()
    expected = torch.nn.functional.cross_entropy(reference, labels, reduction="sum")
    (0.25 * loss).backward()
    (0.25 * expected).backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert logits.grad is not None and reference.grad is not None
    assert (logits.grad.float() - reference.grad).abs().max() < tolerance * reference.grad.abs().max()


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Llama", {}),
        ("Mistral", {"sliding_window": 7}),
        ("Gemma3Text", {"sliding_window": 7, "head_dim": 16}),
        ("Olmo3", {"sliding_window": 7}),
        ("Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
        ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    ],
)
def test_other_families_and_sliding_windows_hold_inside_each_example(
    packs: Packs, examples: list[Example], family: str, options: dict[str, Any]
) -> None:
    import transformers

    torch.manual_seed(3)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    wanted = options if family == "GPT2" else shape | {"num_hidden_layers": 2, "pad_token_id": 0} | options
    config = getattr(transformers, f"{family}Config")(vocab_size=512, initializer_range=0.2, **wanted)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    losses, gradients = alone(model, examples)
    model.set_attn_implementation(register_packed_attention())
    check_every_layer_attends(model, torch.device("cpu"), config.num_hidden_layers)
    loss, packed_gradients = together(model, packs, list(range(len(packs))))
    assert loss == pytest.approx(sum(losses), rel=1e-5)
    assert furthest(packed_gradients, gradients) < 1e-4


def test_a_model_whose_layers_carry_state_is_refused(tmp_path: Path, model_dir: Path) -> None:
    from transformers import Qwen3NextConfig

    Qwen3NextConfig(num_hidden_layers=2, layer_types=["linear_attention", "full_attention"]).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="its linear_attention layers carry state from one example"):
        read_shape(ModelFiles(name="hybrid", folder=tmp_path, gguf=None))
    with pytest.raises(TrainError, match="only 2 of the model's 3 layers use the attention that keeps"):
        check_every_layer_attends(load(model_dir, register_packed_attention()), torch.device("cpu"), 3)


def test_layers_are_seen_through_a_wrapper_that_copies_what_they_are_called_with(model_dir: Path) -> None:
    def copied(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:  # as FSDP2 does on a GPU
        return arguments, {name: set(each) if isinstance(each, set) else each for name, each in named.items()}

    model = load(model_dir, register_packed_attention())
    model.register_forward_pre_hook(copied, with_kwargs=True)
    check_every_layer_attends(model, torch.device("cpu"), 2)


def test_a_model_that_keeps_the_bounds_from_its_attention_is_refused(model_dir: Path) -> None:
    model = load(model_dir, register_packed_attention())
    with pytest.raises(TrainError, match="does not tell its attention where examples end"):
        model(input_ids=torch.tensor([[1, 2, 3]]))
