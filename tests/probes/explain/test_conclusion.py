"""The answer in words, of every verdict."""

from __future__ import annotations

from typing import Any

from driftscope_probes.explain.conclusion import remedy_of, sentence_of
from driftscope_probes.explain.report import Alignment, First, Gap, Op, Parts, Verified, Way

WAY = Way(variant="plain", says="it is plain", code="x", equal=1.0, nearest="plain")


def op(kind: str, label: str, reason: str, why: str, beyond: float = 0.0) -> Op:
    return Op(
        op=kind, label=label, sites=[kind], layers=[0], equal_fraction=0.8, max_ulp=2, elements=10,
        reverse_equal_fraction=0.8, first=None, reason=reason, why=why, engine=WAY, trainer=WAY,
        trees=[], errors=None, closer_to_float64=None, beyond_tolerance=beyond, backward=None,
        swap=None,
    )  # fmt: skip


def parts(verdict: Any, ops: list[Op], **fields: Any) -> Parts:
    empty: dict[str, Any] = {
        "gap": Gap(tokens=64, abs_diff_mean=0.0209, abs_diff_max=0.1, equal_fraction=0.0),
        "alignment": Alignment(checks=[], weights=[], weights_compared=0, weights_unknown=[]),
        **{"first": None, "verified": None, "full_vocabulary": None},
        **{name: [] for name in ("compared", "growth", "uncovered", "notes")},
        **{"ran": {}, "timing": {}},
    }
    return Parts(verdict=verdict, ops=ops, **empty | fields)


ROTARY = op("rotary", "rotary", "rounding_point", "On the engine …")
NORM = op("residual_norm", "residual + RMSNorm", "rounding_point", "On the engine …")


def test_rounding_names_every_op_and_what_replacing_them_does() -> None:
    verified = Verified(
        replaced=["rotary", "residual_norm"], on="engine", abs_diff_mean_before=0.0209,
        abs_diff_mean_after=0.0, predicted=0.0, abs_diff_max_after=0.0, holds=True,
        all_or_nothing=True, sentence="With both replaced, mean |Δ| goes to 0 nats.",
    )  # fmt: skip
    found = parts("rounding", [ROTARY, NORM], verified=verified)
    assert sentence_of(found) == (
        "Rounding: rotary (another rounding point) and residual + RMSNorm (another rounding point) "
        "make the whole gap; mean |Δ| is 0.0209 nats. With both replaced, mean |Δ| goes to 0 nats."
    )
    remedy = remedy_of(found)
    assert remedy is not None and "--kernels invariant" in remedy


def test_a_fault_comes_before_the_rounding_around_it() -> None:
    why = "linear of the engine is farther off than rounding explains: its weight differs."
    fault = op("linear", "linear", "weight", why, beyond=0.9)
    first = First(
        layer=7, op="linear", site="up_proj", token=3, sequence=0, position=3, feature=5,
        engine=1.0, trainer=2.0, ulp=9,
    )  # fmt: skip
    found = parts("fault", [ROTARY, fault], first=first)
    assert sentence_of(found) == f"{why[:-1]}, first at layer 7, up_proj; mean |Δ| is 0.0209 nats."
    remedy = remedy_of(found)
    assert remedy is not None and "weights" in remedy


def test_what_is_not_compared_says_why_and_what_to_do() -> None:
    notes = ["The sides are not comparable: 2 layers and 3.", "compare one architecture."]
    found = parts("not_comparable", [], notes=notes)
    assert (sentence_of(found), remedy_of(found)) == tuple(notes)


def test_equal_needs_nothing() -> None:
    gap = Gap(tokens=64, abs_diff_mean=0.0, abs_diff_max=0.0, equal_fraction=1.0)
    found = parts("equal", [], gap=gap)
    assert "all 64 tokens" in sentence_of(found)
    assert remedy_of(found) is None


def test_a_gap_without_an_op_says_so() -> None:
    assert "although every op that is seen is equal" in sentence_of(parts("unexplained", []))
