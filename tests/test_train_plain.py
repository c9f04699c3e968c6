"""The engine of one process, the head in the loss, the choice of kernels and the memory it takes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_model import tiny_model_dir

from schemas.errors import TrainError
from train import kernels
from train.attention import register_packed_attention
from train.config import RunConfig
from train.engine import runs_plain
from train.kernels import check_isolation, choose_kernels, probe
from train.loss import LinearCrossEntropy, fuse_head, head_of, losses_and_gradients, summed_loss
from train.memory import fitted, predicted_bytes
from train.model import ModelShape
from train.plain import PlainEngine

CPU = torch.device("cpu")
GIB = 2**30

QWEN3_4B = ModelShape(
    architecture="Qwen3ForCausalLM",
    num_layers=36,
    head_dim=128,
    vocab_size=151936,
    num_parameters=4_022_468_096,
    hidden=2560,
    intermediate=9728,
    query_width=4096,
    key_width=1024,
    dtype=torch.bfloat16,
)


def run_config(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "shards": Path("cache"),
        "model": "m",
        "seq_len": 4096,
        "num_ranks": 1,
        "learning_rate": 1e-3,
        "epochs": 1,
        "steps": None,
        "batch_packs": 16,
        "micro_packs": 1,
        "fits_memory": False,
        "schedule": "constant",
        "warmup_ratio": 0.0,
        "warmup_steps": None,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "precision": "bf16",
        "zero": 1,
        "offload_optimizer": False,
        "gradient_checkpointing": False,
        "eval_every": None,
        "save_every": 0,
        "seed": 0,
        "adam_betas": (0.9, 0.95),
        "adam_eps": 1e-8,
    }
    return RunConfig(**(values | changes))  # type: ignore[arg-type]


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


def test_the_plain_engine_takes_the_steps_of_adamw_on_float32_weights(model_dir: Path) -> None:
    config = run_config(batch_packs=2)
    engine = PlainEngine(tiny(model_dir, torch.bfloat16), config, on_gpu=False)
    reference = tiny(model_dir, torch.bfloat16).float()
    groups = [
        {"params": [p for p in reference.parameters() if p.dim() > 1 and p.shape[0] != reference.vocab_size]},
        {"params": [p for p in reference.parameters() if p.dim() == 1 or p.shape[0] == reference.vocab_size]},
    ]
    groups[0]["weight_decay"], groups[1]["weight_decay"] = 0.1, 0.0
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    for _ in range(3):
        for shift in (0, 1):
            engine.backward(summed_loss(engine, probe(300, CPU, shift=shift)) / 200)
            engine.step()
            (summed_loss(reference, probe(300, CPU, shift=shift)) / 200).backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        assert engine.get_global_grad_norm().item() == pytest.approx(norm.item(), rel=0.03)
        optimizer.step()
        optimizer.zero_grad()
    moved = torch.cat([p.detach().flatten() for p in reference.parameters()])
    ours = torch.cat([p.detach().float().flatten() for p in engine.module.parameters()])
    assert (ours - moved).abs().mean() < 2e-3
    assert all(p.grad is None for p in engine.module.parameters())


def test_micro_batches_add_up_without_the_rounding_of_bfloat16(model_dir: Path) -> None:
    engine = PlainEngine(tiny(model_dir, torch.bfloat16), run_config(batch_packs=100), on_gpu=False)
    parameter = next(engine.module.parameters())
    total = torch.zeros_like(parameter, dtype=torch.float32)
    for step in range(50):
        gradient = torch.full_like(parameter, 1 + step / 128)
        (parameter * gradient).sum().backward()
        total += gradient.float()
    assert torch.equal(engine.optimizer.param_groups[-1]["params"][0].grad, total)


def test_deepspeed_is_left_out_only_where_it_has_nothing_to_do() -> None:
    assert runs_plain(run_config(), {})
    assert not runs_plain(run_config(), {"zero_optimization": {"stage": 2}})
    for change in ({"num_ranks": 2}, {"precision": "fp16"}, {"zero": 3}, {"offload_optimizer": True}):
        assert not runs_plain(run_config(**change), {})


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
    reason = kernels._compile_layers(model, probe(300, CPU))
    assert reason == "no compiler here"
    assert summed_loss(model, probe(300, CPU)).isfinite()


def test_nothing_is_compiled_on_a_cpu(model_dir: Path) -> None:
    chosen = choose_kernels(tiny(model_dir), "sdpa", 300, CPU)
    assert (chosen.layers, chosen.head, chosen.compiled) == ("as transformers has them", "apart from the loss", False)


# peaks in GiB, measured on an H200 with torch 2.11: micro-batches of 8k, 12k, 16k tokens
@pytest.mark.parametrize(("micro_packs", "plain", "peak"), [(2, True, 102.07), (3, True, 117.26), (4, True, 132.45)])
def test_the_predicted_peak_is_the_measured_one(micro_packs: int, plain: bool, peak: float) -> None:
    config = run_config(micro_packs=micro_packs)
    assert predicted_bytes(config, QWEN3_4B, plain=plain) / GIB == pytest.approx(peak, rel=0.02)


def test_micro_batches_are_as_long_as_the_gpu_holds() -> None:
    def choice(gib: float, **changes: object) -> tuple[int, bool]:
        config = fitted(run_config(**changes), QWEN3_4B, int(gib * GIB), plain=True)
        return config.micro_packs, config.gradient_checkpointing

    assert choice(139.8) == (4, False)
    assert choice(139.8, batch_packs=6) == (3, False)
    assert choice(110.0) == (2, False)
    assert choice(79.1)[1]  # not one pack fits without
    assert choice(24.0) == (1, True)
    assert choice(139.8, gradient_checkpointing=True) == (8, True)
