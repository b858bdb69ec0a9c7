"""An explanation as a run of SmolLM2 in bf16 gives it: three ops make the whole gap."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from driftscope_probes.explain.report import (
    Alignment,
    Backward,
    Check,
    Compared,
    Errors,
    ExplainReport,
    First,
    FullVocabulary,
    Gap,
    Growth,
    Op,
    Swap,
    Tree,
    Verified,
    Way,
)
from driftscope_probes.explain.request import ExplainRequest

LAYERS = 30
BEFORE, AFTER = 0.0412345, 0.0
#: Of one layer, in the order in which they run: name and kind of op.
SITES = (
    *(("attention_norm", "residual_norm"), ("q_proj", "linear"), ("k_proj", "linear")),
    *(("v_proj", "linear"), ("rotary", "rotary"), ("attention", "attention")),
    *(("o_proj", "linear"), ("mlp_norm", "residual_norm"), ("gate_proj", "linear")),
    *(("up_proj", "linear"), ("activation", "activation"), ("down_proj", "linear")),
)
DIFFERING = {"rotary": 0.17, "attention": 0.19, "residual_norm": 0.26}


def explanation(**changed: Any) -> ExplainReport:
    ops = [residual_norm(), rotary(), attention()]
    fields: dict[str, Any] = {
        "schema_version": "1",
        "kind": "explain",
        "created_at": "2026-11-30T04:00:00+00:00",
        "model": {"name": "smollm2-135m", "architecture": "LlamaForCausalLM"},
        "trainer_model": None,
        "request": ExplainRequest(model="smollm2-135m"),
        "verdict": "rounding",
        "equal": False,
        "sentence": "Three ops make the whole gap, all by rounding: residual + RMSNorm, rotary and "
        "attention; with them replaced together, every log-probability is bitwise equal.",
        "remedy": "run both sides with --kernels invariant, or live with it: no op is at fault.",
        "gap": Gap(tokens=64, abs_diff_mean=BEFORE, abs_diff_max=0.31, equal_fraction=0.03125),
        "alignment": Alignment(
            checks=[
                Check(what="token ids", equal=True, says="134 tokens of 4 sequences"),
                Check(what="positions", equal=True, says="0 to 38"),
            ],
            weights=[],
            weights_compared=272,
            weights_unknown=[],
        ),
        "first": ops[0].first,
        "ops": ops,
        "compared": list(compared()),
        "growth": list(growth()),
        "verified": Verified(
            replaced=["residual_norm", "rotary", "attention"],
            on="trainer",
            abs_diff_mean_before=BEFORE,
            abs_diff_mean_after=AFTER,
            predicted=0.0,
            abs_diff_max_after=0.0,
            holds=True,
            all_or_nothing=True,
            sentence="With the three replaced on the trainer's side the gap is 0, as predicted.",
        ),
        "full_vocabulary": FullVocabulary(
            tokens=64,
            vocabulary=49_152,
            equal_tokens=0.0,
            equal_sampled=0.03125,
            kl_engine_trainer_mean=1.2e-3,
            kl_engine_trainer_max=8.1e-3,
            kl_trainer_engine_mean=1.3e-3,
            kl_trainer_engine_max=8.3e-3,
            total_variation_mean=0.011,
            total_variation_max=0.041,
            top_k=10,
            top_k_overlap=0.98,
            sentence="2 of 64 tokens are equal where sampled, none on the whole vocabulary.",
        ),
        "uncovered": [],
        "ran": {
            "engine": {"attention": "CPU_ATTN", "linear": "oneDNN", "threads": 1},
            "trainer": {"attention": "sdpa", "linear": "MKL", "threads": 1},
        },
        "notes": ["The engine ran without a split of keys over threads."],
        "environment": {"packages": {"driftscope": "0.1.0", "torch": "2.13.0"}},
        "timing": {"engine_load_s": 11.2, "compare_s": 19.4, "total_s": 38.25},
    }
    return ExplainReport(**(fields | changed))


def compared() -> Iterator[Compared]:
    draw = random.Random(0)
    yield site(None, "embedding", "embedding", 0.0, 1.0)
    for layer in range(LAYERS):
        for name, kind in SITES:
            first = kind == "residual_norm" and layer == 0 and name == "attention_norm"
            part = 0.0 if first else DIFFERING.get(kind, 0.0) * (0.6 + 0.8 * draw.random())
            if (name, layer) == ("down_proj", 7):
                part = 3e-4  # a lone element or two
            yield site(layer, name, kind, part, max(0.0, 0.4 - layer / 40))
    yield site(None, "final_norm", "residual_norm", 0.21, 0.0)
    yield site(None, "lm_head", "linear", 0.0, 0.0)
    yield site(None, "logprob", "logprob", 0.0, 0.03)


def site(layer: int | None, name: str, kind: str, differing: float, own: float) -> Compared:
    return Compared(
        layer=layer,
        op=kind,
        site=name,
        equal_fraction=1.0 - differing,
        max_ulp=3 if differing else 0,
        reverse_equal_fraction=1.0 - 0.9 * differing,
        own_inputs_equal_fraction=own,
        beyond_tolerance=0.0,
    )


def growth() -> Iterator[Growth]:
    before = None
    for layer in range(LAYERS + 1):
        value = 0.0 if layer == 0 else 2.1e-3 * 1.09**layer
        yield Growth(
            layer=layer if layer < LAYERS else None,
            relative_difference=value,
            amplification=value / before if before else None,
            abs_diff_mean_after=BEFORE * (1 - layer / 31),
        )
        before = value


def way(variant: str | None, says: str | None = None, code: str | None = None) -> Way:
    if variant is None:
        return Way(variant=None, says=None, code=None, equal=0.81, nearest="sdpa")
    return Way(variant=variant, says=says, code=code, equal=1.0, nearest=variant)


def first(name: str, layer: int | None = 0, ulp: int | None = 1) -> First:
    return First(
        layer=layer,
        op=name,
        site=name,
        token=17,
        sequence=0,
        position=17,
        feature=203,
        engine=0.123046875,
        trainer=0.12353515625,
        ulp=ulp,
    )


def op(kind: str, label: str, layers: list[int], **fields: Any) -> Op:
    common: dict[str, Any] = {
        "op": kind,
        "label": label,
        "sites": [kind],
        "layers": layers,
        "equal_fraction": 1.0 - DIFFERING.get(kind, 0.1),
        "max_ulp": 3,
        "elements": 2_315_520,
        "reverse_equal_fraction": 0.84,
        "first": first(kind),
        "reason": "rounding_point",
        "why": f"The two sides round {label} at different points.",
        "engine": way("float32", "one rounding at the end"),
        "trainer": way("stored", "each product is rounded"),
        "trees": [],
        "errors": Errors(engine=0.31, trainer=0.54),
        "closer_to_float64": "engine",
        "beyond_tolerance": 0.0,
        "backward": Backward(equal_fraction=0.72, max_ulp=12, error=3.1e-3),
        "swap": Swap(abs_diff_mean_before=BEFORE, abs_diff_mean_after=0.0398),
    }
    return Op(**(common | fields))


def rotary() -> Op:
    return op(
        "rotary",
        "rotary",
        list(range(LAYERS)),
        why="vLLM turns in float32 and rounds once; the trainer rounds each product to bf16.",
        engine=way(
            "float32 arithmetic",
            "the table is rounded to the dtype, the arithmetic is float32",
            "(x.float() * cos + turned.float() * sin).to(x.dtype)",
        ),
        trainer=way(
            "rounded products", "each product is rounded to the dtype", "x * cos + turned * sin"
        ),
    )


def residual_norm() -> Op:
    return op(
        "residual_norm",
        "residual + RMSNorm",
        list(range(LAYERS)),
        sites=["attention_norm", "mlp_norm", "final_norm"],
        why="vLLM's norm reads the float32 sum; the trainer's reads the sum rounded to bf16.",
    )


def attention() -> Op:
    return op(
        "attention",
        "attention",
        [*range(4), *range(6, LAYERS)],
        reason="unknown",
        why="No way that was tried equals the trainer's attention bit for bit.",
        trainer=way(None),
        trees=[Tree(side="trainer", text="((0+1)+(2+3))", hash="a1b2")],
        closer_to_float64="trainer",
        backward=None,
    )
