"""assert_logprobs_agree: every layout, a failure that names cause and place, and the plugin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from driftscope_client import DriftscopeError
from driftscope_probes.errors import RequestError
from driftscope_probes.push import PushError
from driftscope_probes.testing import LogprobsDisagree, assert_logprobs_agree

pytest_plugins = ["pytester"]
LENGTHS = (60, 40, 100)
LIMITS = np.cumsum([0, *LENGTHS])


def sides(temperature: float = 1.0) -> tuple[Any, Any]:
    """Of a trainer in bf16, and a rollout that differs by its rounding."""
    generator = np.random.default_rng(7)
    trainer = -generator.exponential(1.0, LIMITS[-1]).astype(np.float32)
    noise = generator.normal(0.0, 0.02, trainer.size).astype(np.float32)
    return (trainer + noise * -np.expm1(trainer)) * np.float32(temperature), trainer


def parts(values: Any) -> list[Any]:
    return np.split(values, LIMITS[1:-1])


def padded(values: Any) -> Any:
    rows = np.zeros((len(LENGTHS), max(LENGTHS)), np.float32)
    for row, part in zip(rows, parts(values), strict=True):
        row[: part.size] = part
    return rows


@pytest.mark.parametrize("layout", ["flat", "sequences", "lists", "padded", "one", "torch"])
def test_two_sides_that_differ_by_rounding_agree_in_every_layout(layout: str) -> None:
    rollout, trainer = sides()
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    given: dict[str, Any] = {"rollout": rollout, "trainer": trainer}
    if layout == "flat":
        given |= {"cu_seqlens": LIMITS}
    elif layout in ("sequences", "lists"):
        given = {name: parts(value) for name, value in given.items()}
    elif layout == "padded":
        given = {name: padded(value) for name, value in given.items()} | {"mask": mask}
    elif layout == "torch":
        torch = pytest.importorskip("torch")
        given = {name: [*map(torch.tensor, parts(value))] for name, value in given.items()}
    if layout == "lists":
        given = {name: [part.tolist() for part in value] for name, value in given.items()}
    found = assert_logprobs_agree(**given, dtype="bf16")
    counted = found.analysis.comparison.to_dict()
    assert counted["tokens"] == LIMITS[-1]
    assert counted["sequences"] == (1 if layout == "one" else len(LENGTHS))
    assert found.summary.startswith("at_floor (")


def test_a_planted_fault_fails_with_its_cause_and_place() -> None:
    rollout, trainer = sides()
    rollout[70] -= 3.0
    rollout[75:] += 0.5
    with pytest.raises(LogprobsDisagree) as failed:
        assert_logprobs_agree(rollout, trainer, cu_seqlens=LIMITS, dtype="bf16")
    told = str(failed.value)
    assert told.startswith("rollout and trainer disagree: ")
    assert "rule: verdict>=above_floor: verdict is bug_like" in told
    assert "beyond rounding:\n    sequence 1, token 10: rollout " in told
    assert failed.value.agreement.analysis.diagnosis.verdict == "bug_like"


def test_the_cause_is_named_where_there_is_one() -> None:
    rollout, trainer = sides()
    with pytest.raises(LogprobsDisagree) as failed:
        assert_logprobs_agree(
            parts(rollout), parts(np.roll(trainer, 1)), dtype="bf16", fail_on="verdict>=bug_like"
        )
    assert "cause: off_by_one (" in str(failed.value)
    assert "what to do: " in str(failed.value)


def test_what_fits_no_layout_is_no_disagreement() -> None:
    rollout, trainer = sides()
    with pytest.raises(DriftscopeError, match="that takes a mask"):
        assert_logprobs_agree(padded(rollout), padded(trainer))
    with pytest.raises((DriftscopeError, PushError), match="trainer_logprobs"):
        assert_logprobs_agree(rollout, trainer[:-1])
    with pytest.raises(RequestError, match="is not a rule"):
        assert_logprobs_agree(rollout, trainer, fail_on="soon")


def test_the_plugin_tells_how_far_a_test_is_from_failing(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["driftscope_probes.testing.plugin"]')
    pytester.makepyfile(
        "def test_it(logprobs_agree):\n"
        "    logprobs_agree([-1.0, -2.0, -0.5], [-1.0, -2.002, -0.5], dtype='bf16')\n"
    )
    passed = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    passed.assert_outcomes(passed=1)
    passed.stdout.fnmatch_lines(
        ["*test_it: at_floor (* times the floor): abs_diff_mean 0.0006667*"]
    )
    strict = ("-p", "no:cacheprovider", "--driftscope-fail-on", "abs_diff_max>1e-4")
    failed = pytester.runpytest_inprocess(*strict)
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["*rule: abs_diff_max>1e-4: abs_diff_max is 0.0020*"])
    # The test's own line and the answer, none of the lines that found it.
    failed.stdout.no_fnmatch_line("*step_tensors*")
    refused = pytester.runpytest_inprocess("--driftscope-fail-on", "soon")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
