"""Which kernels a run uses: chosen once at its start, each tried on two short examples, and said in one line.

What can't be used here is left as transformers has it; the numbers are the same but for rounding, the speed is not.
"""

from dataclasses import dataclass
from typing import Any

import torch

from schemas.errors import TrainError
from train.attention import Kernel, flash_attention, register_packed_attention, runs_flash, torch_kernel
from train.batch import Batch
from train.config import RunConfig
from train.flash4 import flash4_kernel
from train.loss import Measure, fuse_head, go_back, losses_and_gradients, probed_logits, summed_loss
from train.model import ModelShape, decoder_layers

PROBE_LENGTHS = (51, 86)
PROBE_TOKENS = 137
PROBE_TARGETS = 24  # of each of the two examples
AS_THEY_ARE = "as transformers has them"
APART = "apart from the loss"
FLASH4 = "pip install 'sftpack[gpu]'"


class CompileFailed(Exception):
    """ZeRO-3's engine is left with half a pass, and of no use any more; the reason is the text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernels:
    """What was chosen, in words."""

    attention: str
    layers: str
    head: str


def choose_attention(device: torch.device, dtype: torch.dtype, shape: ModelShape) -> str:
    """Register the fastest attention that works here, and say which."""
    kernel = torch_kernel()
    if not runs_flash(device, dtype, shape.head_dim) or kernel is None:
        register_packed_attention()
        return "scaled_dot_product_attention, example by example"
    refused = _why_not_flash4(device, dtype, shape)
    if refused is None:
        register_packed_attention(flash4_kernel())
        return "FlashAttention-4"
    register_packed_attention(kernel)
    return f"PyTorch's variable-length flash kernel ({refused})"


def choose_kernels(
    model: Any,
    attention: str,
    vocab_size: int,
    device: torch.device,
    num_tokens: int = PROBE_TOKENS,
    not_compiled: str | None = None,
) -> Kernels:
    """Compile the layers and fuse the head of a model on `device`, each where it works.

    `model` is a whole one, or the engine around one that ZeRO-3 has cut up. `not_compiled` is a reason not to try.
    Raises CompileFailed, of an engine only.
    """
    if device.type != "cuda":
        return Kernels(attention=attention, layers=AS_THEY_ARE, head=APART)
    batch, dtype = probe(vocab_size, device, num_tokens), getattr(model, "module", model).dtype
    layers, measure = "compiled", None
    if (failed := not_compiled or compile_layers(model, batch)) is None:
        measure = _loss_kernel(device, dtype)
    else:
        layers = f"{AS_THEY_ARE} ({failed})"
    head = "in the loss, a chunk of targets at a time"
    if dtype == torch.float16:
        head = f"{APART} (its gradients would overflow in fp16)"
    elif not fuse_head(model, batch, measure):
        head = f"{APART} (the model does more than multiply there)"
    return Kernels(attention=attention, layers=layers, head=head)


def check_isolation(model: Any, vocab_size: int, device: torch.device, num_tokens: int = PROBE_TOKENS) -> None:
    """Raise TrainError unless the second of two examples in a pack comes out bit by bit the same whatever the first."""
    outputs = [probed_logits(model, probe(vocab_size, device, num_tokens, shift)) for shift in (0, 1)]
    (one, two), (other, same) = (output.split(PROBE_TARGETS) for output in outputs)
    if torch.equal(one, other) or not torch.equal(two, same):
        raise TrainError("the examples of a pack mix with one another in this model; choose one with plain attention")


def probe(vocab_size: int, device: torch.device, num_tokens: int = PROBE_TOKENS, shift: int = 0) -> Batch:
    """Two examples in a row, the last tokens of each targets; `shift` changes the first."""
    first = num_tokens * 3 // 8
    ids = torch.arange(num_tokens) * 7919 % vocab_size
    ids[:first] = (ids[:first] + shift) % vocab_size
    ends = torch.arange(PROBE_TARGETS, 0, -1)
    places = torch.cat([first - ends, num_tokens - ends])
    return Batch(
        input_ids=ids[None],
        position_ids=torch.cat([torch.arange(first), torch.arange(num_tokens - first)])[None],
        cu_seqlens=torch.tensor([0, first, num_tokens], dtype=torch.int32),
        predicting=places - 1,
        labels=ids[places],
        seq_lengths=(first, num_tokens - first),
        num_targets=len(places),
    ).to(device)


def probe_tokens(config: RunConfig, device: torch.device) -> int:
    """How long the probe of a run is: on a GPU a micro-batch, since torch.compile makes one program for short and
    another for long ones. One token less, for it takes equal sizes for the same: 4,095 is no size of a model.
    """
    return max(PROBE_TOKENS, config.micro_packs * config.seq_len - 1) if device.type == "cuda" else PROBE_TOKENS


def compile_layers(model: Any, batch: Batch) -> str | None:
    """Compile each decoder layer; all share one program. Gives the reason where that fails, and leaves them as is.

    Only what a layer computes: DeepSpeed's hooks, which join its weights' pieces before, stay outside. Raises
    CompileFailed where it can't be left as is.
    """
    layers = decoder_layers(getattr(model, "module", model))
    if hasattr(model, "module"):
        from deepspeed.utils import z3_leaf_module

        if not all(map(z3_leaf_module, layers)):
            return "whole layers are frozen, at ZeRO-3"
    for layer in layers:
        _show_plain_weights(layer)
        layer.forward = torch.compile(layer.forward, dynamic=True)
    try:
        go_back(model, summed_loss(model, batch))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of any library below torch.compile; training goes on without it
        reason = f"torch.compile failed: {' '.join(str(error).split())[:120] or type(error).__name__}"
        if hasattr(model, "module"):
            raise CompileFailed(reason) from error
        for layer in layers:
            del layer.forward
        return reason
    return None


def _show_plain_weights(layer: torch.nn.Module) -> None:
    """Take away the dict in which ZeRO-3 looks for weights that a layer borrows of another: no compiler follows it."""
    for module in layer.modules():
        module._parameters = getattr(module, "_original_parameters", module._parameters)


def _loss_kernel(device: torch.device, dtype: torch.dtype) -> Measure:
    """The loss of a chunk of logits: by a kernel of our own where that works here, else compiled."""
    compiled: Measure = torch.compile(losses_and_gradients, dynamic=True)
    generator = torch.Generator(device).manual_seed(1)
    logits = torch.randn(5, 40007, generator=generator, device=device).to(dtype)
    labels = torch.tensor([0, 40006, 7, -100, 20000], device=device)
    try:
        from train.loss_kernel import losses_and_gradients_in_place

        expected = losses_and_gradients(logits, labels)
        found = losses_and_gradients_in_place(logits, labels)
    except Exception:  # no Triton, or one that does not know this GPU
        return compiled
    same = all(torch.allclose(one, other, rtol=1e-2, atol=1e-6) for one, other in zip(found, expected, strict=True))
    return losses_and_gradients_in_place if same else compiled


def _why_not_flash4(device: torch.device, dtype: torch.dtype, shape: ModelShape) -> str | None:
    """None where FlashAttention-4 gives what PyTorch's kernel gives, else the reason not to use it."""
    if torch.cuda.get_device_capability(device)[0] not in (9, 10):
        return "FlashAttention-4 needs a Hopper or Blackwell GPU"
    other = torch_kernel()
    assert other is not None
    try:
        ours, theirs = (_try_attention(each, device, dtype, shape) for each in (flash4_kernel(), other))
    except ModuleNotFoundError as error:
        return f"no module {error.name}: {FLASH4}"
    except Exception as error:  # of a beta that compiles its kernels on the spot
        return f"flash-attn-4 failed: {' '.join(str(error).split())[:120] or type(error).__name__}"
    far = max(float((one - two).norm() / two.norm()) for one, two in zip(ours, theirs, strict=True))
    return None if far < 2e-2 else f"flash-attn-4 is {far:.0%} off"


def _try_attention(kernel: Kernel, device: torch.device, dtype: torch.dtype, shape: ModelShape) -> list[torch.Tensor]:
    """Output and gradients on two short examples, with as many query heads to each of two key heads as in the model."""
    generator = torch.Generator(device).manual_seed(1)
    total = sum(PROBE_LENGTHS)
    rows = [
        torch.randn(total, heads, shape.head_dim, generator=generator, device=device).to(dtype).requires_grad_()
        for heads in (2 * (shape.query_width // shape.key_width), 2, 2)
    ]
    ends = torch.tensor([0, PROBE_LENGTHS[0], total], dtype=torch.int32, device=device)
    query, key, value = (row.transpose(0, 1)[None] for row in rows)
    output = flash_attention(kernel, query, key, value, ends, max(PROBE_LENGTHS), None, 0.0, None)
    output.float().square().sum().backward()
    return [each.float() for each in (output.detach(), *(row.grad for row in rows if row.grad is not None))]
