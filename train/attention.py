"""Attention that never crosses examples: one function that transformers calls in every layer of any model.

It gets each example's bounds as keyword arguments of the model's forward and needs no mask. On CUDA in half precision
it runs a variable-length flash kernel, FlashAttention-4 where it is installed and PyTorch's own elsewhere; without one,
scaled_dot_product_attention, example by example.
"""

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F

from schemas.errors import TrainError
from train.batch import Batch

NAME = "sftpack"

# arguments of a few models' attention that change the scores in a way the kernels here don't know
UNSUPPORTED = {"softcap": "soft-capped scores", "s_aux": "attention sinks", "position_bias": "a position bias"}


Kernel = tuple[Callable[..., Any], frozenset[str]]  # called as PyTorch's varlen_attn, and the names of its arguments


def register_packed_attention(kernel: Kernel | None = None) -> str:
    """Make the function known to transformers, with a flash kernel; gives the name for `attn_implementation`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, partial(packed_attention, kernel=kernel or torch_kernel()))
    AttentionMaskInterface.register(NAME, _no_mask)
    return NAME


def bounds(batch: Batch) -> dict[str, Any]:
    """What the model's forward is given, in transformers' own names, so that attention knows each example's bounds."""
    longest = max(batch.seq_lengths)
    kernel_bounds = {
        "cu_seq_lens_q": batch.cu_seqlens,
        "cu_seq_lens_k": batch.cu_seqlens,
        "max_length_q": longest,
        "max_length_k": longest,
    }
    if batch.input_ids.is_cuda:  # no lengths: torch.compile would compile anew for each
        return kernel_bounds
    return kernel_bounds | {"seq_lengths": batch.seq_lengths}


def check_every_layer_attends(model: Any, device: torch.device, num_layers: int) -> None:
    """Run one token through `model` and see that each layer's attention is the one here.

    Raises TrainError otherwise: a layer that mixes tokens in another way (Mamba, linear attention) would carry state
    from one example of a pack into the next.
    """
    token = torch.zeros((1, 1), dtype=torch.int64, device=device)
    ends = torch.tensor([0, 1], dtype=torch.int32, device=device)
    batch = Batch(
        input_ids=token,
        position_ids=token,
        cu_seqlens=ends,
        predicting=token[0],
        labels=token[0],
        seq_lengths=(1,),
        num_targets=0,
    )
    seen: set[int] = set()
    with torch.no_grad():
        # a call, not the set: FSDP2 hands layers a copy of it
        model(input_ids=token, position_ids=token, use_cache=False, saw_layer=seen.add, **bounds(batch))
    if len(seen) != num_layers:
        raise TrainError(
            f"only {len(seen)} of the model's {num_layers} layers use the attention that keeps examples apart, so the "
            "examples of a pack would mix in the others; choose a model with plain attention"
        )


def runs_flash(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether a flash kernel takes such tensors."""
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16) and head_dim <= 256 and head_dim % 8 == 0


@cache
def torch_kernel() -> Kernel | None:
    """PyTorch's kernel and the names of its arguments, which changed between 2.10 and 2.13; None before 2.10."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    call: Callable[..., Any] = varlen_attn
    return call, frozenset(inspect.signature(varlen_attn).parameters)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    kernel: Kernel | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each example. Query (1, heads, tokens, head_dim) -> (1, tokens, heads, head_dim).

    Raises TrainError where the model does not hand the bounds on, or wants scores that the kernels can't give.
    """
    ends, lengths = kwargs.get("cu_seq_lens_q"), kwargs.get("seq_lengths")
    if ends is None and lengths is None:
        raise TrainError(
            f"{type(module).__name__} does not tell its attention where examples end, so packs would run together; "
            "choose a model that transformers gives an attention interface"
        )
    if (saw_layer := kwargs.get("saw_layer")) is not None:
        saw_layer(id(module))
    for name, what in UNSUPPORTED.items():
        if kwargs.get(name) is not None:
            raise TrainError(f"{type(module).__name__} uses {what}, which attention on packs does not support yet")
    same_width = query.shape[-1] == value.shape[-1]  # not in DeepSeek's latent attention
    if kernel is not None and same_width and runs_flash(query.device, query.dtype, query.shape[-1]):
        assert ends is not None
        longest = kwargs["max_length_q"]
        output = flash_attention(kernel, query, key, value, ends, longest, scaling, dropout, sliding_window)
    else:
        if lengths is None:
            assert ends is not None
            lengths = tuple(ends.diff().tolist())
        output = _one_by_one(query, key, value, lengths, scaling, dropout, sliding_window)
    return output, None


def flash_attention(
    kernel: Kernel,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    longest: int,
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
) -> torch.Tensor:
    """What `packed_attention` gives, by a flash kernel; `cu_seqlens` are the examples' bounds."""
    call, names = kernel
    if dropout:
        raise TrainError(
            "the flash kernel has no attention dropout; set attention_dropout to 0 in the model's config.json"
        )
    windowed = sliding_window is not None and sliding_window < longest
    arguments: dict[str, Any] = {}
    if "window_size" in names:
        arguments["window_size"] = (sliding_window - 1, 0) if windowed and sliding_window else (-1, 0)
    elif windowed:
        raise TrainError(
            f"a sliding window of {sliding_window} needs PyTorch 2.11; upgrade torch, or use shorter packs"
        )
    else:
        arguments["is_causal"] = True
    if scaling is not None and "scale" in names:
        arguments["scale"] = scaling
    elif scaling is not None:
        query = query * (scaling * query.shape[-1] ** 0.5)
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and "enable_gqa" in names:
        arguments["enable_gqa"] = True
    elif groups > 1 and "window_size" not in names:  # 2.10; 2.11 takes fewer key heads and has no name for it
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]  # (tokens, heads, head_dim)
    return call(*rows, cu_seqlens, cu_seqlens, longest, longest, **arguments)[None]


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


def _one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: tuple[int, ...],
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
) -> torch.Tensor:
    outputs = []
    for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True):
        mask = _window_mask(q.shape[2], sliding_window, q.device)
        outputs.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=dropout, scale=scaling, enable_gqa=True
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _window_mask(length: int, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """Which keys each query sees, None where it is all before it: length 3, window 2 -> [[1,0,0],[1,1,0],[0,1,1]]."""
    if sliding_window is None or sliding_window >= length:
        return None
    places = torch.arange(length, device=device)
    distance = places[:, None] - places[None, :]
    return (distance >= 0) & (distance < sliding_window)
