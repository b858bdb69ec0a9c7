"""In passing, only what is stated counts: silence of a step's metadata says nothing."""

from __future__ import annotations

import time
from pathlib import Path

from driftscope_probes.lint.base import Rule, lint
from driftscope_probes.lint.conditions import Either, Known, Unless, Unset, equals
from driftscope_probes.lint.readers.registry import read_text
from driftscope_probes.lint.readers.step_metadata import settings_of_metadata
from driftscope_probes.lint.rules.registry import ALL_RULES
from driftscope_probes.lint.stated import (
    OF_A_PROBE,
    STATED,
    probe_lint,
    rules_of_stated,
    silent_sides,
    stated_findings,
)
from driftscope_probes.sampling_notes import SAID_BY_NOTES

FP8 = {"model": "m", "rollout_dtype": "bf16", "kv_cache_dtype": "fp8", "weights_version": "1"}
#: Of a step of 10,000 tokens, which takes 10 ms to analyse.
MOST_S = 0.0002


def rule(name: str, *when: object) -> Rule:
    return Rule(name, "note", when, "Why.", "Change.", "source")  # type: ignore[arg-type]


def test_the_sides_that_a_condition_is_silent_about() -> None:
    assert silent_sides(equals("engine.dtype", "fp16")) == frozenset()
    assert silent_sides(Unset("engine.dtype")) == {"engine"}
    assert silent_sides(Unless(Either((Known("model.type"), Known("trainer.dtype"))))) == {
        "model",
        "trainer",
    }
    assert silent_sides(Either((Known("model.type"), Unset("engine.dtype")))) == {"engine"}


def test_rules_that_rest_on_silence_are_left_out() -> None:
    stated, silent = rule("stated", Known("engine.dtype")), rule("silent", Unset("engine.dtype"))
    assert rules_of_stated([stated, silent]) == (stated,)
    assert rules_of_stated([stated, silent], frozenset({"engine"})) == (stated, silent)
    assert set(STATED) < set(OF_A_PROBE) < set(ALL_RULES)


def test_a_fact_that_the_notes_tell_is_told_once() -> None:
    names = {rule.name for rule in ALL_RULES}
    assert SAID_BY_NOTES <= names
    raw = {"logprobs_mode": "raw_logprobs", "temperature": "0.7", "top_p": "0.9"}
    known = settings_of_metadata({**raw, "rollout_dtype": "bf16"})
    assert "raw-logprobs-with-temperature" in {one.rule for one in lint(known, ALL_RULES)}
    assert not SAID_BY_NOTES & {one.rule for one in stated_findings(known)}


def test_a_step_is_not_told_of_what_it_did_not_say() -> None:
    """FP8 keys and values without scales are an error of a command line, which says all."""
    whole = lint(read_text("run.sh", "vllm serve m --kv-cache-dtype fp8"), ALL_RULES)
    assert "kv-fp8-without-scales" in {one.rule for one in whole}
    known = settings_of_metadata(FP8)
    assert "kv-fp8-without-scales" in {one.rule for one in lint(known, ALL_RULES)}
    assert "kv-fp8-without-scales" not in {one.rule for one in stated_findings(known)}


def test_a_step_does_not_wait() -> None:
    stated_findings(settings_of_metadata(FP8))
    start = time.process_time()
    for step in range(200):
        stated_findings(settings_of_metadata({**FP8, "weights_version": str(step)}))
    assert (time.process_time() - start) / 200 < MOST_S


def test_a_probe_is_told_of_model_request_and_machine(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "rope_parameters": '
        '{"rope_theta": 10000.0}, "rope_theta": 1000000.0, "tie_word_embeddings": false}'
    )
    request = {
        "engine_dtypes": ["bf16"],
        "engine": {"kind": "vllm", "kernels": "stock", "prefix_caching": None},
        "sampling": {"temperature": 1.0, "top_p": 1.0, "top_k": 0},
    }
    here = {"packages": {"torch": "2.9.0+cpu"}, "variables": {"VLLM_BATCH_INVARIANT": "1"}}
    report = probe_lint(request, here, tmp_path)
    rules = {one.rule for one in report.findings}
    assert {"rope-base-twice", "batch-invariant-on-cpu"} <= rules
    assert {"config.json", "request"} <= {one.name for one in report.read}
    assert report.rules == len(OF_A_PROBE) and report.ignored == ()
    assert probe_lint(request, {"packages": {}, "variables": {}}, None).findings == ()
