"""The head in the loss, the choice of kernels, and layers that are computed twice."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_model import tiny_model_dir

from schemas.errors import TrainError
from train import kernels
from train.attention import register_packed_attention
from train.kernels import check_isolation, choose_kernels, probe
from train.loss import LinearCrossEntropy, fuse_head, head_of, losses_and_gradients, summed_loss
from train.model import checkpoint_layers, decoder_layers

CPU = torch.device("cpu")


def tiny(model_dir: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=dtype, attn_implementation=register_packed_attention()
    ).train()


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("models") / "tied", tiny_tokenizer_dir, tied=True)


def test_the_head_in_the_loss_gives_the_loss_and_gradients_of_pytorch() -> None:
    torch.manual_seed(1)
    hidden, weight = torch.randn(700, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    labels = torch.randint(50, (700,)).where(torch.rand(700) > 0.1, -100)
    expected = F.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    wanted = torch.autograd.grad(expected * 0.3, (hidden, weight))
    for measure in (None, losses_and_gradients):  # chunks of 256 rows, and of 4,096
        loss = LinearCrossEntropy.apply(hidden, weight, labels, measure)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        for one, other in zip(torch.autograd.grad(loss * 0.3, (hidden, weight)), wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-4)


def test_a_fused_head_leaves_loss_and_gradients_as_they_were(model_dir: Path) -> None:
    plain, fused = tiny(model_dir), tiny(model_dir)
    batch = probe(300, CPU)
    assert fuse_head(fused, batch, None)
    losses = [summed_loss(model, batch) for model in (plain, fused)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for loss in losses:
        loss.backward()
    for one, other in zip(plain.parameters(), fused.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-3)
    assert plain.state_dict().keys() == fused.state_dict().keys()


def test_a_head_that_does_more_than_multiply_is_left_alone(model_dir: Path) -> None:
    model = tiny(model_dir)
    forward = model.forward

    def capped(*arguments, logits_to_keep=0, **named):
        output = forward(*arguments, logits_to_keep=logits_to_keep, **named)
        output.logits = torch.tanh(output.logits)
        return output

    model.forward = capped
    assert not fuse_head(model, probe(300, CPU), None)
    assert "forward" not in vars(head_of(model))


def test_a_model_that_mixes_the_examples_of_a_pack_is_refused(model_dir: Path) -> None:
    model = tiny(model_dir)
    check_isolation(model, 300, CPU)
    embeddings = model.get_input_embeddings()
    embeddings.register_forward_hook(lambda module, inputs, output: output + output.mean(1, keepdim=True))
    with pytest.raises(TrainError, match="examples of a pack mix"):
        check_isolation(model, 300, CPU)


def test_the_probe_is_two_examples_whose_last_tokens_are_targets() -> None:
    batch = probe(300, CPU, num_tokens=95)
    assert batch.seq_lengths == (35, 60)
    assert batch.cu_seqlens.tolist() == [0, 35, 95]
    assert batch.predicting.tolist() == [*range(10, 34), *range(70, 94)]
    changed = probe(300, CPU, num_tokens=95, shift=1)
    assert (batch.input_ids != changed.input_ids)[0].nonzero()[:, 0].tolist() == list(range(35))


def test_layers_that_do_not_compile_train_as_they_are(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments, **named):
        raise RuntimeError("no compiler here")

    model = tiny(model_dir)
    monkeypatch.setattr(torch._dynamo, "optimize", broken)
    monkeypatch.setattr(torch, "compile", lambda call, **named: broken)
    reason = kernels.compile_layers(model, probe(300, CPU))
    assert reason == "torch.compile failed: no compiler here"
    assert summed_loss(model, probe(300, CPU)).isfinite()


def test_nothing_is_compiled_on_a_cpu(model_dir: Path) -> None:
    chosen = choose_kernels(tiny(model_dir), "sdpa", 300, CPU)
    assert (chosen.layers, chosen.head) == ("as transformers has them", "apart from the loss")


@pytest.mark.parametrize("count", [1, 2, -1])
def test_layers_computed_twice_leave_loss_and_gradients_as_they_were(model_dir: Path, count: int) -> None:
    kept, twice = tiny(model_dir), tiny(model_dir)
    checkpoint_layers(twice, count)
    runs = [0] * 2
    for index, layer in enumerate(decoder_layers(twice)):
        layer.mlp.register_forward_pre_hook(lambda *_, index=index: runs.__setitem__(index, runs[index] + 1))
    losses = [summed_loss(model, probe(300, CPU)) for model in (kept, twice)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == losses[1].item()
    assert runs == {1: [2, 1], 2: [2, 2], -1: [2, 2]}[count]
    for one, other in zip(kept.parameters(), twice.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_layers_that_zero_3_would_train_wrongly_are_refused(model_dir: Path) -> None:
    """DeepSpeed finds a layer's input among those given by place."""
    from train.engine import _inputs_seen

    model, layer = tiny(model_dir), decoder_layers(tiny(model_dir))[0]
    with _inputs_seen(decoder_layers(model)):
        assert summed_loss(model, probe(300, CPU)).isfinite()
    assert not any(each._forward_pre_hooks for each in decoder_layers(model))
    with _inputs_seen([layer]), pytest.raises(TrainError, match="at ZeRO-3, which misses its input; use --zero 2"):
        layer(hidden_states=torch.zeros(1, 2, 64))
