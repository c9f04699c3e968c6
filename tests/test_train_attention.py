"""PyTorch's variable-length kernel is called as each of its generations wants.

It runs on CUDA only, so a stand-in with
the same signature takes its place here, computing by definition what the kernel is documented to give.
"""

from collections.abc import Callable, Iterator

import pytest
import torch

from schemas.errors import TrainError
from train import attention

LENGTHS = (5, 1, 9)


def by_definition(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, left: int) -> torch.Tensor:
    """Causal attention of (tokens, heads, head_dim) within LENGTHS; `left` keys before each query are seen, -1: all."""
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    outputs = []
    for q, k, v in zip(query.split(LENGTHS), key.split(LENGTHS), value.split(LENGTHS), strict=True):
        distance = torch.arange(len(q))[:, None] - torch.arange(len(q))[None, :]
        seen = (distance >= 0) & ((distance <= left) | (left < 0))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        outputs.append(torch.einsum("hqk,khd->qhd", scores.where(seen, -torch.inf).softmax(-1), v))
    return torch.cat(outputs)


def torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    assert query.shape == key.shape and is_causal
    assert (cu_seq_q.tolist(), max_q, max_k) == ([0, 5, 6, 15], 9, 9)
    return by_definition(query, key, value, query.shape[-1] ** -0.5, -1)


def torch_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
    assert query.shape[1] == 2 * key.shape[1] and window_size[1] == 0
    return by_definition(query, key, value, scale or query.shape[-1] ** -0.5, window_size[0])


def torch_2_13(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    assert enable_gqa and query.shape[1] == 2 * key.shape[1] and window_size[1] == 0
    return by_definition(query, key, value, scale or query.shape[-1] ** -0.5, window_size[0])


@pytest.fixture(params=[torch_2_10, torch_2_11, torch_2_13])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., torch.Tensor]]:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", request.param)
    attention.torch_kernel.cache_clear()
    yield request.param
    attention.torch_kernel.cache_clear()


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    return torch.randn(1, 4, 15, 8), torch.randn(1, 2, 15, 8), torch.randn(1, 2, 15, 8)


@pytest.mark.parametrize("scaling", [None, 0.2])
@pytest.mark.parametrize("window", [None, 3, 9])
def test_every_generation_of_the_kernel_gives_what_separate_examples_give(
    kernel: Callable[..., torch.Tensor], scaling: float | None, window: int | None
) -> None:
    ends = torch.tensor([0, 5, 6, 15], dtype=torch.int32)
    if kernel is torch_2_10 and window == 3:
        with pytest.raises(TrainError, match="a sliding window of 3 needs"):
            attention.flash_attention(attention.torch_kernel(), *tensors(), ends, 9, scaling, 0.0, window)
        return
    output = attention.flash_attention(attention.torch_kernel(), *tensors(), ends, 9, scaling, 0.0, window)
    expected = attention._one_by_one(*tensors(), LENGTHS, scaling, 0.0, window)
    assert output.shape == expected.shape == (1, 15, 4, 8)
    assert torch.allclose(output, expected, atol=1e-6)


def test_scores_that_the_kernels_cannot_give_are_refused() -> None:
    with pytest.raises(TrainError, match="Identity uses soft-capped scores"):
        attention.packed_attention(torch.nn.Identity(), *tensors(), None, seq_lengths=LENGTHS, softcap=30.0)
