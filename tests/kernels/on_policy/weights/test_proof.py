"""Every fault of a weight sync is named, on sides laid out as transformers and vLLM have them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.kernels.on_policy.weights.tiny_sides import Sides, StaleHead, sides
from torch import nn

from driftscope_kernels.on_policy.weights.proof import WeightsProof
from driftscope_kernels.on_policy.weights.recorded import WeightsDigest

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def started(both: Sides) -> WeightsProof:
    """After the first sync and one that went well."""
    proof = WeightsProof(both.trainer, both.engine)
    for step in (0, 1):
        if step:
            both.trainer.update()
        both.sync()
        assert looked(proof, step).kind == "equal"
    both.trainer.update()
    return proof


def looked(proof: WeightsProof, step: int) -> WeightsDigest:
    found = proof.check(step)
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_after_every_sync(dtype: torch.dtype) -> None:
    both = sides(dtype, dtype)
    proof = started(both)
    both.sync()
    found = looked(proof, 2)
    assert (found.kind, found.differing, found.unseen_tensors) == ("equal", (), 0)
    assert found.trainer == found.engine


def test_the_sync_of_the_step_before() -> None:
    both = sides()
    proof = started(both)
    found = looked(proof, 2)
    assert (found.kind, found.versions_behind) == ("stale", 1)
    assert found.differing_tensors == 14 and len(found.differing) == 6
    assert found.trainer != found.engine
    both.trainer.update()
    assert looked(proof, 3).versions_behind == 2


@pytest.mark.parametrize(
    "name", ["self_attn.k_proj.weight", "mlp.up_proj", "norm.weight", "v_proj.b"]
)
def test_one_tensor_that_is_not_sent(name: str) -> None:
    both = sides()
    proof = started(both)
    both.sync(without=name)
    found = looked(proof, 2)
    assert (found.kind, found.versions_behind) == ("tensor_not_sent", 1)
    assert len(found.differing) == 1 and name in found.differing[0]
    both.trainer.update()
    both.sync(without=name)
    assert looked(proof, 3).versions_behind == 2


def test_tensors_left_behind_one_after_another() -> None:
    both = sides()
    proof = started(both)
    both.sync(without="o_proj")
    assert looked(proof, 2).kind == "tensor_not_sent"
    both.trainer.update()
    for name, parameter in both.trainer.named_parameters():
        if "o_proj" not in name and "norm" not in name:
            both.engine.load_weights([(name, parameter.data)])
    found = looked(proof, 3)
    assert (found.kind, found.versions_behind) == ("tensor_not_sent", None)


def test_a_tied_head_that_goes_on_with_its_own_copy() -> None:
    both = sides()
    both.engine.lm_head.cpu_linear = StaleHead()
    proof = started_with_stale_head(both)
    found = looked(proof, 1)
    assert (found.kind, found.differing) == ("tied_head_stale", ("lm_head.weight",))
    assert found.versions_behind == 1


def started_with_stale_head(both: Sides) -> WeightsProof:
    proof = WeightsProof(both.trainer, both.engine)
    both.sync()
    assert looked(proof, 0).kind == "equal"
    both.trainer.update()
    both.sync()
    return proof


def test_experts_that_are_not_written() -> None:
    both = sides()
    proof = started(both)
    both.sync(without="experts")
    found = looked(proof, 2)
    assert (found.kind, found.versions_behind) == ("experts_stale", 1)
    assert found.differing_tensors == 2


def test_masters_that_are_rounded_are_no_fault() -> None:
    both = sides(torch.float32, torch.bfloat16)
    proof = WeightsProof(both.trainer, both.engine)
    both.sync()
    found = looked(proof, 0)
    assert found.kind == "rounded_masters" and found.matches
    both.trainer.update()
    assert looked(proof, 1).kind == "stale"


def test_float32_masters_that_lose_nothing_are_equal() -> None:
    both = sides()
    both.trainer.float()
    both.sync()
    assert looked(WeightsProof(both.trainer, both.engine), 0).kind == "equal"


def test_sleep_that_drops_weights() -> None:
    both = sides()
    proof = started(both)
    both.sync()
    for module in both.engine.modules():
        packed = getattr(module, "cpu_linear", None)
        if packed is not None and hasattr(packed, "_panels"):
            packed._panels.zero_()
    found = looked(proof, 2)
    assert found.kind == "weights_lost"
    assert "model.self_attn.q_proj.weight" in found.differing


def test_weights_that_nobody_had() -> None:
    both = sides()
    proof = started(both)
    both.sync()
    both.engine.model.norm.weight.data[3] += 1
    found = looked(proof, 2)
    assert (found.kind, found.differing) == ("unknown", ("model.norm.weight",))


def test_known_tokens_that_differ_where_every_tensor_is_equal() -> None:
    both = sides()
    both.sync()
    for larger, kind in ((0.0, "equal"), (0.5, "unknown"), (float("nan"), "unknown")):
        answers = [-1.0, -2.0 + larger]
        proof = WeightsProof(
            both.trainer,
            both.engine,
            ask=([-1.0, -2.0].copy, answers.copy),
            allowed=0.25,
        )
        assert looked(proof, 0).kind == kind
        assert looked(proof, 1).function_diff is None  # asked at every tenth look


class Adapted(nn.Module):
    """As PEFT's: the base's names with a prefix, adapters beside, merged in place."""

    prefix = "lora_"

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = base
        self.lora_delta = nn.Parameter(torch.full((16, 16), 0.5, dtype=torch.bfloat16))

    def get_input_embeddings(self) -> Any:
        base: Any = self.base_model.model
        return base.get_input_embeddings()

    get_output_embeddings = get_input_embeddings

    @property
    def target(self) -> torch.Tensor:
        base: Any = self.base_model.model
        weight: torch.Tensor = base.model.self_attn["q_proj"].weight.data
        return weight

    def merge_adapter(self) -> None:
        self.target.add_(self.lora_delta.data)

    def unmerge_adapter(self) -> None:
        self.target.sub_(self.lora_delta.data)


def send(model: Adapted, both: Sides, *, merged: bool = True) -> None:
    """As TRL's `_iter_named_params`: within the merge. `merged`: what arrives."""
    names = [(name.removeprefix("base_model.model."), p) for name, p in model.named_parameters()]
    base = [(name, p.data.clone()) for name, p in names if "lora" not in name]
    model.merge_adapter()
    sent = [(name, p.data) for name, p in names if "lora" not in name] if merged else base
    both.engine.load_weights(sent)
    model.unmerge_adapter()
    both.engine.compute()


def test_an_adapter_that_is_merged_and_one_that_is_not() -> None:
    both = sides()
    model = Adapted(both.trainer)
    proof = WeightsProof(model, both.engine)
    assert proof.check(0) is None  # merged weights are seen while TRL has them merged
    send(model, both)
    assert looked(proof, 0).kind == "equal"
    model.lora_delta.data.mul_(1.5)
    send(model, both, merged=False)
    found = looked(proof, 1)
    assert (found.kind, found.differing) == (
        "adapter_not_merged",
        ("model.self_attn.q_proj.weight",),
    )
