"""Which gradients of a model have the same bits however its batch is laid out, and which have not.

Rows (the gradient of the embeddings' output) always; weights where every sequence begins at a
multiple of 64 rows and the sums go into `main_grad`; experts of a mixture never.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels import ops
from driftscope_kernels.invariant_mode import invariant_mode
from driftscope_kernels.options import ROW_BLOCK

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
Build = Callable[..., Any]
Lay = Callable[..., list[Any]]
Gradients = tuple[Tensor, dict[str, Tensor]]


def gradients(model: Any, layouts: list[Any], sequences: list[Tensor]) -> Gradients:
    """Of Σ log-probability: per token of the embeddings' output, and every main_grad."""
    for parameter in model.parameters():
        ops.attach_main_grad(parameter)
        parameter.grad = None
    embedded: list[Tensor] = []

    def keep(_: Any, __: Any, output: Tensor) -> None:
        output.retain_grad()
        embedded.append(output)

    decoder = model.get_decoder()
    handle = decoder.embed_tokens.register_forward_hook(keep)
    wanted = iter(sequences)
    of_rows = []
    for one in layouts:
        hidden = decoder(
            input_ids=one.input_ids,
            attention_mask=one.attention_mask,
            position_ids=one.position_ids,
            use_cache=False,
        ).last_hidden_state.flatten(0, 1)
        # All rows go through the head, so that its blocks are those of the other weights.
        targets, weight = torch.zeros(len(hidden), dtype=torch.int64), torch.zeros(len(hidden))
        weight[one.rows] = 1.0
        targets[one.rows] = torch.cat([next(wanted) for _ in range(_sequences(one))])
        logprob = ops.token_logprob(hidden, model.lm_head.weight, targets).logprob
        torch.autograd.backward((logprob * weight).sum())
        grad = embedded.pop().grad
        assert grad is not None
        of_rows.append(grad.flatten(0, 1)[one.rows])
    handle.remove()
    named = model.named_parameters()
    return torch.cat(of_rows), {name: p.main_grad for name, p in named if p.grad is None}


def _sequences(layout: Any) -> int:
    if layout.attention_mask is not None:
        return len(layout.input_ids)
    return int((layout.position_ids == 0).sum())


def different(one: Gradients, other: Gradients) -> list[str]:
    return [name for name in one[1] if not torch.equal(one[1][name], other[1][name])]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["llama", "qwen3", "qwen3_moe"])
def test_micro_batches_of_any_size_give_the_same_weight_gradients(
    build: Build, lay: Lay, sequences: list[Tensor], family: str, dtype: torch.dtype
) -> None:
    model = build(family, dtype)
    with invariant_mode() as mode:
        alone = gradients(model, lay("right", 1, ROW_BLOCK), sequences)
        for kind, count in (("right", 2), ("right", 8), ("packed", 4)):
            other = gradients(model, lay(kind, count, ROW_BLOCK), sequences)
            assert torch.equal(other[0], alone[0])
            assert different(other, alone) == [], (kind, count)
    assert mode.coverage().stock == {}
    assert all("experts" not in name for name in alone[1])
    assert len(alone[1]) > 20 and all(bool(g.any()) for g in alone[1].values())


@pytest.mark.parametrize("kind", ["right", "left", "packed"])
def test_rows_have_the_same_gradients_without_any_padding_rule(
    build: Build, lay: Lay, sequences: list[Tensor], kind: str
) -> None:
    model = build("qwen3_moe", torch.bfloat16)
    with invariant_mode():
        alone = gradients(model, lay(), sequences)
        other = gradients(model, lay(kind, 4), sequences)
    assert torch.equal(other[0], alone[0])
    # What does not hold: blocks of rows that begin elsewhere are other sums.
    assert "model.layers.0.self_attn.o_proj.weight" in different(other, alone)
    assert "model.embed_tokens.weight" not in different(other, alone)


def test_stock_gradients_differ(build: Build, lay: Lay, sequences: list[Tensor]) -> None:
    model = build("llama", torch.float32)
    alone = gradients(model, lay("right", 1, ROW_BLOCK), sequences)
    other = gradients(model, lay("packed", 4, ROW_BLOCK), sequences)
    assert not torch.equal(other[0], alone[0])


def test_gradients_stay_close_to_stock(build: Build, lay: Lay, sequences: list[Tensor]) -> None:
    model = build("qwen3", torch.float32)

    def plain() -> dict[str, Tensor]:
        model.zero_grad()
        (one,) = lay("left", 8)
        logits = model(
            input_ids=one.input_ids,
            attention_mask=one.attention_mask,
            position_ids=one.position_ids,
            use_cache=False,
        ).logits.flatten(0, 1)[one.rows]
        loss = torch.nn.functional.cross_entropy(logits, torch.cat(sequences))
        loss.backward()  # type: ignore[no-untyped-call]
        return {name: p.grad for name, p in model.named_parameters()}

    stock = plain()
    with invariant_mode() as mode:
        ours = plain()
    assert mode.coverage().stock == {}
    for name, grad in stock.items():
        torch.testing.assert_close(ours[name], grad, rtol=1e-3, atol=1e-5, msg=name)
