"""The fast path's kernels against plain PyTorch, beyond what whole models show."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F

from danlu.training.kernels import attention, cross_entropy, gemm
from danlu.training.kernels.cross_entropy import linear_cross_entropy


@pytest.mark.parametrize("uses_onednn", [True, False])
def test_products_are_the_same_in_both_libraries(uses_onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if uses_onednn and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(gemm, "has_fast_onednn", lambda: uses_onednn)
    torch.manual_seed(0)
    x, w, y, bias, add = torch.randn(33, 20), torch.randn(48, 20), torch.randn(33, 7), torch.randn(48), torch.randn(33, 48)

    torch.testing.assert_close(gemm.nt(x, w), x @ w.T, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gemm.nt(x, w, bias, add), x @ w.T + bias + add, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gemm.nn(add, w), add @ w, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gemm.tn(x, y), x.T @ y, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gemm.tn(y, x), y.T @ x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_head_and_loss_equal_the_textbook_over_several_chunks(softcap: float | None, with_bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 0)
    monkeypatch.setattr(cross_entropy, "MIN_ROWS", 4)
    torch.manual_seed(0)
    leaves = [torch.randn(11, 8), torch.randn(30, 8), torch.randn(30)]
    leaves = [leaf.requires_grad_() for leaf in leaves[: 3 if with_bias else 2]]
    labels = torch.randint(0, 30, (11,))

    def textbook() -> torch.Tensor:
        logits = F.linear(*leaves) * 0.7
        logits = logits if softcap is None else torch.tanh(logits / softcap) * softcap
        return F.cross_entropy(logits, labels, reduction="none")

    bias = leaves[2] if with_bias else None
    nll = linear_cross_entropy(leaves[0], leaves[1], bias, labels, scale=0.7, softcap=softcap)

    torch.testing.assert_close(nll, textbook())
    expected = torch.autograd.grad(textbook().mean(), leaves)
    torch.testing.assert_close(torch.autograd.grad(nll.mean(), leaves), expected)


def test_rows_may_have_their_own_weights_where_the_head_is_frozen() -> None:
    torch.manual_seed(0)
    hidden, weight, labels = torch.randn(5, 8, requires_grad=True), torch.randn(30, 8), torch.randint(0, 30, (5,))
    row_weights = torch.arange(5.0)
    expected = torch.autograd.grad((F.cross_entropy(hidden @ weight.T, labels, reduction="none") * row_weights).sum(), hidden)

    gradients = torch.autograd.grad((linear_cross_entropy(hidden, weight, None, labels) * row_weights).sum(), hidden)

    torch.testing.assert_close(gradients, expected)


@pytest.mark.parametrize("weighs_rows", [False, True])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_a_trained_head_gets_its_exact_gradient_when_rows_weigh_differently(softcap: float | None, weighs_rows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "MIN_ROWS", 4)
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 1)
    torch.manual_seed(1)
    hidden, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((11, 8), (23, 8), (23,)))
    labels, row_weights = torch.randint(0, 23, (11,)), torch.randn(11)
    logits = 0.7 * (hidden @ weight.T + bias)
    logits = logits if softcap is None else torch.tanh(logits / softcap) * softcap
    expected = torch.autograd.grad((F.cross_entropy(logits, labels, reduction="none") * row_weights).sum(), (hidden, weight, bias))

    nll = linear_cross_entropy(hidden, weight, bias, labels, scale=0.7, softcap=softcap, weighs_rows=weighs_rows)

    torch.testing.assert_close(torch.autograd.grad((nll * row_weights).sum(), (hidden, weight, bias)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [None, 3, 8, 11])
def test_block_attention_equals_masked_attention_within_each_example(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK_ROWS", 8)
    torch.manual_seed(0)
    lengths = (1, 8, 21, 0, 5)
    total = sum(lengths)
    leaves = [torch.randn(total, heads, width, requires_grad=True) for heads, width in ((4, 6), (2, 6), (2, 10))]
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    distance = torch.arange(total)[:, None] - torch.arange(total)[None, :]
    visible = (owner[:, None] == owner[None, :]) & (distance >= 0) & (distance < (window or total))
    q, k, v = (leaf.transpose(0, 1)[None] for leaf in leaves)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=0.3, enable_gqa=True)[0].transpose(0, 1)

    output = attention._PackedAttention.apply(*leaves, 0.3, lengths, window)

    upstream = torch.randn_like(output)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(output, leaves, upstream), torch.autograd.grad(expected, leaves, upstream), atol=1e-5, rtol=1e-5)


def test_attention_outside_of_a_packed_batch_is_refused() -> None:
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(AssertionError, match="outside of packed"):
        attention._interface(torch.nn.Identity(), x, x, x, None)


def test_columns_of_a_wider_matrix_are_multiplied_as_fast_as_a_matrix() -> None:
    """Adapters of layers that share an input lie side by side: their gradients are products with such columns."""
    x_MN, y_MK = torch.randn(700, 64), torch.randn(700, 384).split(128, 1)[1]

    def milliseconds(y: torch.Tensor) -> float:
        taken = []
        for _ in range(6):
            start = time.perf_counter()
            gemm.tn(x_MN, y)
            taken.append(time.perf_counter() - start)
        return 1000 * min(taken)  # whatever else the machine does

    torch.testing.assert_close(gemm.tn(x_MN, y_MK), x_MN.T @ y_MK, rtol=1e-5, atol=1e-4)
    assert milliseconds(y_MK) < 20 * milliseconds(y_MK.contiguous()) + 2
