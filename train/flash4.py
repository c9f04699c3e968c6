"""FlashAttention-4 as one operator to torch.compile; for Hopper and Blackwell, compiled when first called.

The package `flash-attn-4` is plain Python that generates kernels. Its public function can't be traced, so its two
halves are called here. It need not be installed to import this file.
"""

import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from train.attention import Kernel

NAMES = frozenset({"scale", "window_size", "enable_gqa"})


@cache
def flash4_kernel() -> Kernel:
    """The kernel, called as PyTorch's varlen_attn. Raises ImportError where the package is not installed whole."""
    _interface()
    return _flash4, NAMES


def _flash4(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    _: torch.Tensor,
    longest: int,
    __: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, 0),
    enable_gqa: bool = True,
) -> torch.Tensor:
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return _forward(query, key, value, ends, longest, scale, window_size[0])[0]


@torch.library.custom_op("sftpack::flash4", mutates_args=())
def _forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    scale: float,
    left: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    output, normalizers, *_ = _interface()._flash_attn_fwd(
        query, key, value, softmax_scale=scale, return_lse=True, **_bounds(ends, longest), **_window(left)
    )
    return output.contiguous(), normalizers.contiguous()


@torch.library.custom_op("sftpack::flash4_backward", mutates_args=())
def _backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    normalizers: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    scale: float,
    left: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    to_query, to_key, to_value, *_ = _interface()._flash_attn_bwd(
        query,
        key,
        value,
        output,
        gradient.contiguous(),
        normalizers,
        softmax_scale=scale,
        deterministic=True,  # 1.5% of a step's time; without it no run can be repeated
        **_bounds(ends, longest),
        **_window(left),
    )
    # laid out as query, key and value were, which torch.compile may have turned; it counts on what is told below
    return to_query.contiguous(), to_key.contiguous(), to_value.contiguous()


@_forward.register_fake
def _(query, key, value, ends, longest, scale, left):  # type: ignore[no-untyped-def]
    normalizers = query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)
    return query.new_empty(query.shape), normalizers


@_backward.register_fake
def _(gradient, query, key, value, *rest):  # type: ignore[no-untyped-def]
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, key, value, ends, *ctx.numbers = inputs
    ctx.save_for_backward(query, key, value, *output, ends)


def _gradients(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return *_backward(gradient, *ctx.saved_tensors, *ctx.numbers), None, None, None, None


_forward.register_autograd(_gradients, setup_context=_keep)


@cache
def _interface() -> Any:
    """The package, told to keep on disk what it has compiled, in a folder that nobody else writes to."""
    own = Path(tempfile.gettempdir()) / f"sftpack-{os.getuid()}"
    with suppress(OSError):
        own.mkdir(mode=0o700, exist_ok=True)
        if own.stat().st_uid == os.getuid():
            os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
            os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(own / "flash-attn-4"))
    from flash_attn.cute import interface

    return interface


def _bounds(ends: torch.Tensor, longest: int) -> dict[str, Any]:
    return {"cu_seqlens_q": ends, "cu_seqlens_k": ends, "max_seqlen_q": longest, "max_seqlen_k": longest}


def _window(left: int) -> dict[str, bool | int]:
    """Causal over everything before a query (-1), or over `left` keys before it."""
    return {"causal": True} if left < 0 else {"causal": False, "window_size_left": left, "window_size_right": 0}
