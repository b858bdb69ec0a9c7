import math

import pytest

from driftscope_probes.trainer.half_precision_range import FP16_MAX, HalfPrecisionRange, LayerRange
from driftscope_probes.trainer.headroom import MARGIN, HeadroomVerdict, fitting_scale, judge

SCALE = 65_536.0


def layer(
    largest: float,
    *,
    vanish: int = 0,
    vanish_scaled: int = 0,
    overflow_scaled: int = 0,
    name: str = "a.layer",
) -> LayerRange:
    return LayerRange(
        name,
        HalfPrecisionRange(largest=largest, values=1000),
        HalfPrecisionRange(values=1000, underflow=vanish),
        HalfPrecisionRange(SCALE, values=1000, underflow=vanish_scaled, overflow=overflow_scaled),
    )


def verdict(*layers: LayerRange) -> HeadroomVerdict:
    return judge(layers, SCALE)


def test_small_values_everywhere_are_safe() -> None:
    result = verdict(layer(12.0), layer(3.0))
    assert result.safe
    assert "5,459 times below" in result.sentence
    assert "loss scaling;" not in result.sentence


def test_gradients_that_need_a_scale_are_safe_with_the_advice() -> None:
    result = verdict(layer(12.0, vanish=400))
    assert result.safe
    assert "40.00% vanish without loss scaling, none with a scale of 65,536" in result.sentence
    assert "use loss scaling" in result.sentence


@pytest.mark.parametrize("largest", [70_000.0, FP16_MAX / MARGIN * 1.01, math.inf])
def test_a_large_activation_is_not_safe_and_the_layer_is_named(largest: float) -> None:
    result = verdict(layer(1.0), layer(largest, name="model.layers.3.mlp.down_proj"))
    assert not result.safe
    assert "model.layers.3.mlp.down_proj" in result.sentence


def test_a_near_limit_is_safe_with_a_warning() -> None:
    result = verdict(layer(FP16_MAX / MARGIN * 0.99))
    assert result.safe
    assert "close" in result.sentence


def test_gradients_that_fit_at_neither_scale_are_not_safe() -> None:
    result = verdict(layer(1.0, vanish=500, vanish_scaled=0, overflow_scaled=3))
    assert not result.safe
    assert "3 overflow" in result.sentence


def test_gradients_that_overflow_only_when_scaled_are_safe_with_the_advice() -> None:
    result = verdict(layer(1.0, overflow_scaled=3))
    assert result.safe
    assert "let the scale adapt" in result.sentence


def test_a_lower_scale_that_fits_is_safe_and_the_first_is_said_to_overflow() -> None:
    result = judge([layer(1.0, vanish=500)], 16_384.0)
    assert result.safe
    assert "none with a scale of 16,384" in result.sentence
    assert "65,536 overflows, so let the scale adapt" in result.sentence


@pytest.mark.parametrize(
    ("largest", "scale"),
    [(0.0, SCALE), (0.9, SCALE), (1.0, SCALE / 2), (3.9, SCALE / 4), (7e4, 1.0), (math.inf, 1.0)],
)
def test_the_scale_is_the_largest_at_which_nothing_overflows(largest: float, scale: float) -> None:
    small, high = layer(1.0), layer(1.0)
    high.gradient.largest = largest
    assert fitting_scale([small, high]) == scale
