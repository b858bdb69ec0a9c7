"""Live pairs of every family: which ops differ on equal inputs, why, and that nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from driftscope_kernels.compare_ops.reasons import ROUNDING
from driftscope_probes.explain.planted.families import save
from driftscope_probes.explain.report import Parts
from driftscope_probes.models.tiny_random import build_moe

from .engine_process import answered

SCRIPT = Path(__file__).with_name("pair_script.py")
BF16: Final = {"engine_dtype": "bf16", "trainer_dtype": "bf16"}
SAMPLING: Final = {"max_tokens": 6}
#: The mixture first: engines beside each other share the process groups that the first has made.
PAIRS: Final[dict[str, dict[str, Any]]] = {
    "moe": {"family": "moe", **BF16},
    "llama": {"family": "llama", "breaks": True, **BF16},
    "decoded": {"family": "llama", "phase": "decode", **BF16},
    "chunked": {"family": "llama", "engine": {"chunked_prefill_tokens": 16}, **BF16},
    "fp32": {"family": "llama", "engine_dtype": "fp32", "trainer_dtype": "fp32"},
    "unequal": {"family": "llama", "engine_dtype": "bf16", "trainer_dtype": "fp32"},
    "autocast": {"family": "llama", "engine_dtype": "bf16", "trainer_dtype": "autocast-bf16"},
    "qwen2": {"family": "qwen2", **BF16},
    "qwen3": {"family": "qwen3", "engine_dtype": "fp16", "trainer_dtype": "fp16"},
    "mistral": {"family": "mistral", "phase": "decode", **BF16},
    "gemma": {"family": "gemma", **BF16},
    "gemma2": {"family": "gemma2_plain_head", **BF16},
    "wrong": {"family": "llama", "trainer": "other", **BF16},
    "apart": {"family": "llama", "trainer": "qwen3", **BF16},
}
STOCK_16_BIT: Final = {"rotary", "residual_norm", "attention"}
Answers = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    root = tmp_path_factory.mktemp("pairs")
    names = {"other", *(pair["family"] for pair in PAIRS.values())}
    folders = {name: _folder(name, root / name) for name in names}
    asked = [
        {
            "folder": str(folders[pair["family"]]),
            "trainer": str(folders[pair.get("trainer", pair["family"])]),
            "breaks": pair.get("breaks", False),
            "request": {
                "model": name,
                "sampling": SAMPLING,
                **{key: pair[key] for key in ("engine_dtype", "trainer_dtype")},
                "phase": pair.get("phase", "prefill"),
                "engine": {"threads": 1, **pair.get("engine", {})},
                "trainer": {"threads": 1},
            },
        }
        for name, pair in PAIRS.items()
    ]
    return dict(zip(PAIRS, answered(SCRIPT, asked, root), strict=True))


def _folder(name: str, folder: Path) -> Path:
    if name == "moe":
        folder.mkdir()
        build_moe(folder, lambda _: None)
        return folder
    if name != "other":
        return save(name, folder)
    # The same model with one matrix of its second layer negated.
    import torch
    from safetensors.torch import load_file, save_file

    save("llama", folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    key = "model.layers.1.mlp.up_proj.weight"
    weights[key] = (-weights[key].to(torch.float32)).to(torch.bfloat16)
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def parts(answers: Answers, name: str) -> Parts:
    return Parts.read(answers[name]["parts"])


#: Their dtypes and experts take kernels of which only those for AVX-512 are known bit for bit.
KNOWN_WITH_AVX512 = ("moe", "unequal", "autocast")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.avx512] if name in KNOWN_WITH_AVX512 else [])
        for name in PAIRS
        if name not in ("wrong", "apart")
    ],
)
def test_healthy_pairs_differ_by_rounding_that_is_named_and_verified(
    answers: Answers, name: str
) -> None:
    found = parts(answers, name)
    assert found.verdict == "rounding"
    assert {op.reason for op in found.ops} <= ROUNDING
    assert found.uncovered == []
    assert found.verified is not None and found.gap is not None
    assert found.gap.abs_diff_mean > 0.0
    assert found.verified.abs_diff_mean_after <= 0.02 * found.gap.abs_diff_mean
    assert all(check.equal for check in found.alignment.checks)


@pytest.mark.avx512
@pytest.mark.parametrize(
    "name", ["llama", "decoded", "chunked", "qwen2", "qwen3", "mistral", "gemma", "gemma2"]
)
def test_three_ops_make_the_gap_in_16_bits(answers: Answers, name: str) -> None:
    """bench/engine_trainer_gap.py found the same by taking roundings one at a time."""
    found = parts(answers, name)
    assert {op.op for op in found.ops} == STOCK_16_BIT
    assert all(op.engine.variant and op.trainer.variant for op in found.ops), "ways are exact"
    assert found.verified is not None and found.verified.abs_diff_max_after == 0.0
    assert all(row.equal_fraction == 1.0 for row in found.compared if row.op not in STOCK_16_BIT)


@pytest.mark.avx512
def test_a_mixture_differs_in_its_experts_too(answers: Answers) -> None:
    found = parts(answers, "moe")
    assert {op.op for op in found.ops} == {*STOCK_16_BIT, "experts"}
    assert {row.op for row in found.compared} >= {"router", "top_k", "experts"}
    assert found.verified is not None and found.verified.abs_diff_max_after == 0.0


@pytest.mark.avx512
def test_float32_differs_in_the_order_of_additions(answers: Answers) -> None:
    found = parts(answers, "fp32")
    by_op = {op.op: op for op in found.ops}
    assert by_op["attention"].reason == "reduction_order"
    assert by_op["rotary"].reason == "primitive"
    assert "residual_norm" not in by_op, "in float32 nothing is rounded between"


@pytest.mark.parametrize("name", ["unequal", "autocast"])
def test_of_unequal_dtypes_the_dtype_is_the_reason(answers: Answers, name: str) -> None:
    reasons = {op.op: op.reason for op in parts(answers, name).ops}
    assert reasons["residual_norm"] == "dtype"


def test_other_weights_are_named_where_they_are(answers: Answers) -> None:
    found = parts(answers, "wrong")
    assert found.verdict == "fault"
    assert found.first is not None
    assert (found.first.layer, found.first.site) == (1, "up_proj")
    assert {op.reason for op in found.ops} - ROUNDING == {"weight"}
    assert [one.tensor for one in found.alignment.weights] == ["1.up_proj.weight"]


def test_models_of_other_widths_are_not_compared(answers: Answers) -> None:
    found = parts(answers, "apart")
    assert found.verdict == "not_comparable"
    assert found.notes, "it is said why"


def test_both_models_are_afterwards_as_they_were(answers: Answers) -> None:
    """Also where a run ended in an exception."""
    assert not any(changed for answer in answers.values() for changed in answer["changed"])
    assert answers["llama"]["failed"] == ["planted", "planted"]


def test_the_difference_grows_from_the_first_op_on(answers: Answers) -> None:
    growth = parts(answers, "llama").growth
    assert growth[0].relative_difference == 0.0, "the embedding is equal"
    assert all(later.relative_difference > 0.0 for later in growth[1:])


@pytest.mark.avx512
def test_what_ran_is_read_back(answers: Answers) -> None:
    ran = parts(answers, "llama").ran
    assert ran["engine"]["attention_backend"] == "CPU_ATTN"
    assert set(ran["engine"]["linear_kernels"]) <= {"onednn_mm", "weight_packed_linear_cpu"}
    assert ran["engine"]["threads"] == ran["trainer"]["threads"] == 1
    assert ran["trainer"]["attention_backend"] == "sdpa"
