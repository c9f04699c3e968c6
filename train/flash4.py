"""FlashAttention-4 as one operator to torch.compile; for Hopper and Blackwell, compiled when first called.

The package `flash-attn-4` is plain Python that generates kernels. Its public function can't be traced, so its two
halves are called here.
"""

from functools import cache

import torch

from train.attention import Kernel

NAMES = frozenset({"scale", "window_size", "enable_gqa"})


@cache
def flash4_kernel() -> Kernel:
    """The kernel, called as PyTorch's varlen_attn. Raises ImportError where the package is not installed whole."""
    from flash_attn.cute import interface

    @torch.library.custom_op("sftpack::flash4", mutates_args=())
    def forward(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        ends: torch.Tensor,
        longest: int,
        scale: float,
        left: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        output, normalizers, *_ = interface._flash_attn_fwd(
            query,
            key,
            value,
            cu_seqlens_q=ends,
            cu_seqlens_k=ends,
            max_seqlen_q=longest,
            max_seqlen_k=longest,
            softmax_scale=scale,
            return_lse=True,
            **_window(left),
        )
        return output, normalizers

    @torch.library.custom_op("sftpack::flash4_backward", mutates_args=())
    def backward(
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
        one, two, three, *_ = interface._flash_attn_bwd(
            query,
            key,
            value,
            output,
            gradient.contiguous(),
            normalizers,
            softmax_scale=scale,
            cu_seqlens_q=ends,
            cu_seqlens_k=ends,
            max_seqlen_q=longest,
            max_seqlen_k=longest,
            deterministic=True,  # 1% of a step's time; without it no run can be repeated
            **_window(left),
        )
        return one, two, three

    @forward.register_fake
    def _(query, key, value, ends, longest, scale, left):  # type: ignore[no-untyped-def]
        normalizers = query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)
        return query.new_empty(query.shape), normalizers

    @backward.register_fake
    def _(gradient, query, key, value, *rest):  # type: ignore[no-untyped-def]
        return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)

    def keep(ctx, inputs, output):  # type: ignore[no-untyped-def]
        query, key, value, ends, *ctx.numbers = inputs
        ctx.save_for_backward(query, key, value, *output, ends)

    def gradients(ctx, gradient, _):  # type: ignore[no-untyped-def]
        return *backward(gradient, *ctx.saved_tensors, *ctx.numbers), None, None, None, None

    forward.register_autograd(gradients, setup_context=keep)

    def flash4(query, key, value, ends, _, longest, __, *, scale=None, window_size=(-1, 0), enable_gqa=True):  # type: ignore[no-untyped-def]
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return forward(query, key, value, ends, longest, scale, window_size[0])[0]

    return flash4, NAMES


def _window(left: int) -> dict[str, bool | int]:
    """Causal over everything before a query (-1), or over `left` keys before it."""
    return {"causal": True} if left < 0 else {"causal": False, "window_size_left": left, "window_size_right": 0}
