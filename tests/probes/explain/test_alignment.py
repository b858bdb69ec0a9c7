"""What has to be the same before ops are compared, on real engines beside real trainers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from driftscope_probes.explain.alignment import NotComparable, Part, align
from driftscope_probes.explain.planted.families import CONFIGS, save
from driftscope_probes.explain.report import Alignment, Check
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sides.read_tokens import ReadTokens
from driftscope_probes.explain.sides.trainer_weights import trainer_parameters
from driftscope_probes.explain.sites import Place, Site, sites_of

from .engine_process import answered

SCRIPT = Path(__file__).with_name("alignment_script.py")
LLAMA_FAULTS = ("one_ulp", "permuted", "merged", "float8", "epsilon", "base", "scale")
#: The mixture first: engines beside each other share the process groups that the first has made.
ENGINES: Final[tuple[dict[str, Any], ...]] = (
    {"name": "moe", "dtype": "bfloat16"},
    {"name": "qwen2", "dtype": "bfloat16", "faults": ["stale_head"]},
    {"name": "qwen3", "dtype": "float16", "trainer": "float32"},
    {"name": "mistral", "dtype": "float32"},
    {"name": "gemma", "dtype": "bfloat16"},
    {"name": "gemma2", "dtype": "bfloat16", "faults": ["without_cap"]},
    {"name": "llama", "dtype": "bfloat16", "faults": LLAMA_FAULTS},
)
Aligned = dict[str, dict[str, Alignment]]


@pytest.fixture(scope="module")
def folders(tiny_moe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {"moe": tiny_moe} | {family: save(family, root / family) for family in CONFIGS}


@pytest.fixture(scope="module")
def aligned(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Aligned:
    scratch = tmp_path_factory.mktemp("aligned")
    asked = [{**engine, "folder": str(folders[engine["name"]])} for engine in ENGINES]
    found = answered(SCRIPT, asked, scratch)
    return {
        name: {fault: Alignment.model_validate(one) for fault, one in of.items()}
        for name, of in found.items()
    }


def failed(alignment: Alignment) -> dict[str, str]:
    return {check.what: check.says for check in alignment.checks if not check.equal}


def check(alignment: Alignment, what: str) -> Check:
    return next(one for one in alignment.checks if one.what == what)


@pytest.mark.parametrize("family", [engine["name"] for engine in ENGINES])
def test_healthy_pairs_have_no_difference(aligned: Aligned, family: str) -> None:
    """Packed weights are recovered bit for bit, and every number is read on both sides."""
    healthy = aligned[family]["healthy"]
    assert failed(healthy) == {}
    assert healthy.weights == [] and healthy.weights_unknown == []
    # Outside layers embedding, final norm and head; in a layer two norms and seven matrices at
    # least, or for a mixture two norms, two of heads, four matrices, the router and two of experts.
    least = {"moe": 3 + 3 * 11, "qwen2": 3 + 2 * 12, "qwen3": 3 + 2 * 11, "gemma2": 3 + 2 * 11}
    assert healthy.weights_compared == least.get(family, 3 + 2 * 9)


def test_numbers_are_those_of_the_models(aligned: Aligned) -> None:
    of = {family: aligned[family]["healthy"] for family in aligned}
    assert check(of["gemma2"], "softcap of attention").says == "20 (2 ops)"
    assert check(of["gemma2"], "window of attention").says == "8, none (2 ops)"
    assert check(of["gemma2"], "softcap of log-softmax").says == "10 (1 ops)"
    assert check(of["gemma2"], "scale of attention").says == f"{48**-0.5:.6g} (2 ops)"
    assert check(of["gemma"], "scale of embedding").says == "11.3125 (1 ops)"  # √128 in bfloat16
    assert check(of["gemma"], "unit offset of RMSNorm").says == "True (1 ops)"
    assert check(of["gemma"], "name of activation · up").says == "gelu_tanh (2 ops)"
    assert check(of["mistral"], "window of attention").says == "8 (2 ops)"
    assert check(of["moe"], "experts used of top-k of the router").says == "2 (3 ops)"
    assert "base 1e+04" in check(of["llama"], "frequencies of rotary").says


def test_roundings_of_masters_are_no_fault(aligned: Aligned) -> None:
    says = check(aligned["qwen3"]["healthy"], "weights").says
    assert says.startswith("25 of 25 are equal; in 25 the engine holds the float16 rounding")


@pytest.mark.parametrize(
    ("family", "fault", "tensor", "says"),
    [
        ("llama", "one_ulp", "1.q_proj.weight", "1 element of 16,384: [3, 5] by 1 ULP"),
        ("llama", "permuted", "0.gate_proj.weight", "one block of rows 64-127 permuted"),
        ("llama", "merged", "0.up_proj.weight", "rank-4 difference"),
        ("llama", "float8", "0.down_proj.weight", "the trainer's is rounded to float8_e4m3fn"),
        # Only there does vLLM pack the weight for oneDNN.
        pytest.param(
            *("qwen2", "stale_head", "lm_head.weight", "a copy that it packed before"),
            marks=pytest.mark.avx512,
        ),
    ],
)
def test_one_changed_weight_is_named(
    aligned: Aligned, family: str, fault: str, tensor: str, says: str
) -> None:
    found = aligned[family][fault]
    assert [one.tensor for one in found.weights] == [tensor]
    assert says in found.weights[0].says
    assert list(failed(found)) == ["weights"]


@pytest.mark.parametrize(
    ("family", "fault", "what", "says"),
    [
        (
            "llama",
            "epsilon",
            "epsilon of residual + RMSNorm",
            "engine 1e-06, trainer 0.0001 in 1.attention_norm",
        ),
        ("llama", "base", "frequencies of rotary", "engine 32 features, base 500, trainer"),
        ("llama", "scale", "scale of attention", "engine 0.5, trainer 0.176777 in 1.attention"),
        ("gemma2", "without_cap", "softcap of attention", "engine 20, trainer none in 0.attention"),
    ],
)
def test_one_changed_number_is_named(
    aligned: Aligned, family: str, fault: str, what: str, says: str
) -> None:
    found = failed(aligned[family][fault])
    assert says in found[what]
    assert list(found) == [what] and aligned[family][fault].weights == []


SAMPLE = Sample(prompts=((5, 6, 7), (9, 10)), responses=((8, 9), (11, 12, 13)))


@pytest.fixture(scope="module")
def trainer(folders: dict[str, Path]) -> Any:
    return AutoModelForCausalLM.from_pretrained(folders["llama"])


def sites(layers: int = 1) -> list[Site]:
    outside = [Place(None, name) for name in ("embedding", "final_norm", "residual_out", "logits")]
    names = ("residual_in", "attention_norm", "q_proj", "k_proj", "v_proj")
    return sites_of([*outside, *(Place(layer, name) for layer in range(layers) for name in names)])


def part(trainer: Any, **changes: Any) -> Part:
    inputs = ReadTokens(SAMPLE)
    inputs.add(np.arange(SAMPLE.rows), SAMPLE.tokens, SAMPLE.positions)
    of = Part(
        name="trainer",
        dtype=torch.bfloat16,
        sites=sites(),
        parameters=lambda site: trainer_parameters(trainer, site),
        received=inputs.received(),
    )
    return replace(of, **changes)


def test_other_positions_are_a_finding(trainer: Any) -> None:
    """A padded batch whose positions count the padding."""
    mine = part(trainer)
    shifted = mine.received.positions + np.where(np.arange(SAMPLE.rows) >= 4, 3, 0)
    other = part(trainer, received=replace(mine.received, positions=shifted))
    found = align(SAMPLE, replace(mine, name="engine"), other)
    says = "engine 0, trainer 3 at token 0 of sequence 1; 4 of 8 tokens differ"
    assert failed(found) == {"positions": says}


def test_what_the_time_does_not_reach_is_named(trainer: Any) -> None:
    found = align(SAMPLE, part(trainer), part(trainer), time_limit_s=0.0)
    assert found.weights_compared == 0
    assert "0.q_proj (not within 0 s)" in found.weights_unknown


def test_sides_that_cannot_be_compared_are_refused(trainer: Any) -> None:
    mine = part(trainer)
    other_token = mine.received.tokens.copy()
    other_token[5] += 1
    truncated = ReadTokens(SAMPLE)
    rows = np.arange(SAMPLE.rows - 1)
    truncated.add(rows, SAMPLE.tokens[rows], SAMPLE.positions[rows])
    for other, words in (
        (part(trainer, received=replace(mine.received, tokens=other_token)), "sequence 1, pos"),
        (part(trainer, received=truncated.received()), "sequences of [4, 3] tokens"),
        (part(trainer, sites=sites(layers=2)), "1 layers and the trainer 2"),
    ):
        with pytest.raises(NotComparable, match=words.replace("[", r"\[")) as caught:
            align(SAMPLE, mine, other)
        assert caught.value.remedy


def test_another_vocabulary_or_width_is_refused(trainer: Any) -> None:
    def without_rows(name: str, rows: int) -> Callable[[Site], Any]:
        def parameters(site: Site) -> Any:
            found: Any = trainer_parameters(trainer, site)
            return replace(found, weight=found.weight[:-rows]) if site.name == name else found

        return parameters

    resized, narrower = without_rows("lm_head", 4), without_rows("q_proj", 32)
    for parameters, words in ((resized, "500 tokens"), (narrower, r"q_proj.weight is \(128, 128")):
        with pytest.raises(NotComparable, match=words):
            align(SAMPLE, part(trainer), part(trainer, parameters=parameters))


def test_an_unknown_architecture_is_not_guessed(trainer: Any) -> None:
    class Other(type(trainer)):  # type: ignore[misc]
        pass

    trainer.__class__, own = Other, trainer.__class__
    try:
        found = align(SAMPLE, part(trainer), part(trainer))
    finally:
        trainer.__class__ = own
    assert found.weights_compared == 0
    assert "lm_head (not read from trainer and trainer)" in found.weights_unknown
