"""What settings of the sampling do to a comparison: the probe, a file and a pushed step say it in
the same words; and what a step brings in vain is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from driftscope_probes.paired.report import semantic_notes
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.sampling_notes import RENORMALISED

from ..probes.diagnosis.made_up_policy import MadeUpPolicy
from .policy import BF16, analyze, pair, push, write

NUCLEUS = {"temperature": "1.0", "top_p": "0.8", "logprobs_mode": "processed_logprobs"}


def _truncated(folder: Path) -> Path:
    """Tokens drawn from a nucleus of 0.8, whose log-probabilities are renormalised over it."""
    of = MadeUpPolicy(5, keep=0.8).pair()
    return write(folder, of.rollout, of.trainer, of.limits, {**BF16, **NUCLEUS})


def test_a_file_says_what_the_probe_says(tmp_path: Path) -> None:
    asked = PairedRequest.model_validate(
        {
            "model": "made-up",
            "engine_dtypes": ["bf16"],
            "trainer_dtypes": ["bf16"],
            "sampling": {"top_p": 0.8},
            "engine": {"logprobs_mode": "processed_logprobs"},
            "prompts": 32,
        }
    )
    assert RENORMALISED in semantic_notes(asked)
    printed = analyze(_truncated(tmp_path))
    assert printed.json["notes"] == [RENORMALISED]
    assert f"Note: {RENORMALISED}" in printed.text


def test_nothing_is_said_where_both_sides_mean_the_same(tmp_path: Path) -> None:
    of = pair(6)
    stated = {**BF16, "temperature": "1.0", "top_p": "1.0", "logprobs_mode": "processed_logprobs"}
    printed = analyze(write(tmp_path, of.rollout, of.trainer, of.limits, stated))
    assert printed.json["notes"] == [] and "Note:" not in printed.text


def test_a_pushed_step_and_its_page_say_it_too(running_service: str, tmp_path: Path) -> None:
    answer, page = push(running_service, _truncated(tmp_path), "nucleus")
    assert answer["notes"] == [RENORMALISED]
    assert "the difference carries the logarithm of the mass kept" in page


def test_what_is_used_by_nothing_is_named(tmp_path: Path) -> None:
    of = pair(7)
    versions = np.zeros(of.limits.size - 1, np.int32)
    path = write(
        tmp_path,
        of.rollout,
        of.trainer,
        of.limits,
        {**BF16, "colour": "blue"},
        behavior_version=versions,
        rollout_token_ids=of.ids.astype(np.int32),
        turn_ids=(of.index // 20).astype(np.int32),
        position_ids=of.positions.astype(np.int32),
    )
    unused = {one["name"] for one in analyze(path).json["unused"]}
    assert unused == {"behavior_version", "rollout_token_ids", "metadata colour"}
    named = write(
        tmp_path,
        of.rollout,
        of.trainer,
        of.limits,
        {**BF16, "weights_version": "3"},
        behavior_version=versions,
    )
    printed = analyze(named)
    assert printed.json["unused"] == [] and "Used by nothing" not in printed.text
