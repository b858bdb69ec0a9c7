from __future__ import annotations

import inspect
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch.frameworks.preset_fates import (
    VERL_PRESETS,
    PresetEffect,
    effect,
    verl_fates,
)
from driftscope_probes.mismatch.frameworks.unmasked_tokens import UnmaskedTokens, unmasked_tokens
from driftscope_probes.mismatch.frameworks.verl import VerlCorrection
from driftscope_probes.tokens import checked_tokens


@pytest.fixture(scope="module")
def correction_config(verl_wheel: Path) -> Any:
    """RolloutCorrectionConfig of the wheel; only its base class, which holds no values, is ours."""
    with zipfile.ZipFile(verl_wheel) as wheel:
        source = wheel.read("verl/trainer/config/algorithm.py").decode()
    module = ModuleType("algorithm")
    sys.modules["algorithm"] = module
    try:
        exec(source.replace("from verl.base_config import BaseConfig", ""), _names(module))
        yield module.RolloutCorrectionConfig
    finally:
        del sys.modules["algorithm"]


def _names(module: ModuleType) -> dict[str, Any]:
    vars(module)["BaseConfig"] = object
    return vars(module)


def as_verl_writes_it(correction: VerlCorrection) -> tuple[Any, ...]:
    bounds = correction.upper, correction.lower
    threshold: Any = bounds[0] if bounds[1] is None else f"{bounds[1]}_{bounds[0]}"
    option: Any = None
    limit: Any = None
    for rejection in correction.rejections:
        option = rejection.option
        limit = rejection.upper
        if rejection.lower is not None:
            limit = f"{rejection.lower}_{rejection.upper}"
    return correction.rollout_is, threshold, option, limit


@pytest.mark.slow
def test_presets_are_verls_own(correction_config: Any) -> None:
    own = {
        name: getattr(correction_config, name)()
        for name, member in vars(correction_config).items()
        if isinstance(inspect.getattr_static(correction_config, name), classmethod)
        and not name.startswith("_")
        and member is not None
    }
    assert set(own) == set(VERL_PRESETS)
    for name, config in own.items():
        theirs = (
            config.rollout_is,
            config.rollout_is_threshold,
            config.rollout_rs,
            config.rollout_rs_threshold,
        )
        assert as_verl_writes_it(VERL_PRESETS[name]) == theirs, name


def batch(*log_ratios: list[float]) -> UnmaskedTokens:
    diff = np.array([d for row in log_ratios for d in row])
    limits = np.cumsum([0, *map(len, log_ratios)])
    rollout = np.full(diff.size, -20.0)
    return unmasked_tokens(checked_tokens(rollout, rollout + diff, limits))


def share(tokens: UnmaskedTokens, name: str) -> PresetEffect:
    shares = effect(tokens, verl_fates(tokens)[name])
    assert isinstance(shares, PresetEffect)
    return shares


def test_truncation_clips_and_rejection_drops() -> None:
    tokens = batch([np.log(3.0), 0.0], [np.log(0.4), np.log(0.5)])
    assert share(tokens, "decoupled_token_is").tokens_clipped == 0.25
    assert share(tokens, "decoupled_seq_is").tokens_clipped == 0.5
    assert share(tokens, "decoupled_token_icepop").tokens_dropped == 0.25
    assert share(tokens, "decoupled_seq_is_rs") == PresetEffect(1.0, 0.0, 1.0, 1.0)
    for name in ("disabled", "bypass_ppo_clip"):
        assert share(tokens, name) == PresetEffect(0.0, 0.0, 0.0, 0.0)


def test_equal_sides_lose_nothing() -> None:
    tokens = batch([0.0, 0.0], [0.0])
    for name in VERL_PRESETS:
        assert share(tokens, name) == PresetEffect(0.0, 0.0, 0.0, 0.0)


def test_geometric_bounds_drop_a_drift_of_two_thousandths() -> None:
    assert share(batch([0.002] * 4, [0.0005] * 4), "decoupled_geo_rs").sequences_dropped == 0.5
    assert share(batch([0.2] * 4, [0.1] * 4), "decoupled_k3_rs").sequences_dropped == 0.5
