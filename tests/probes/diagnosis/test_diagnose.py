"""Named rightly with nothing calibrated, and never named where nothing is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from driftscope_probes.diagnosis.cause import NAMED_FROM, Diagnosis
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.families.registry import BY_NAME
from driftscope_probes.diagnosis.floor import Floor
from driftscope_probes.diagnosis.observed import Observed
from driftscope_probes.tokens import Extras, Tokens

from .faults import FAULTS, Fault, noisier
from .made_up_policy import NOISE, MadeUpPolicy, Pair

#: Alike in one step's data: the right one is among the first three.
AMONG_THREE = frozenset({"rope_config"})


def names(found: Diagnosis) -> list[str]:
    return [cause.name for cause in found.causes]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize(("cause", "make"), FAULTS, ids=[make.__name__ for _, make in FAULTS])
def test_a_fault_gets_its_name(cause: str, make: Fault, dtype: str) -> None:
    found = diagnose(make(7, dtype))
    assert names(found)[0] == cause, found.sentence
    assert found.verdict in ("bug_like", "above_floor", "not_comparable")
    assert found.causes[0].evidence and found.causes[0].plot is not None


@pytest.mark.parametrize(("cause", "make"), FAULTS, ids=[make.__name__ for _, make in FAULTS])
def test_without_its_detector_it_is_not_called_healthy(cause: str, make: Fault) -> None:
    """Honesty: what is not known comes out unexplained rather than as rounding."""
    found = diagnose(make(7, "bf16"), without={cause})
    assert cause not in names(found)
    named = found.cause
    assert found.verdict != "at_floor"
    assert named is None or not BY_NAME[named.name].healthy


@pytest.mark.parametrize("dtype", list(NOISE))
@pytest.mark.parametrize("seed", range(12))
def test_rounding_is_at_the_floor(dtype: str, seed: int) -> None:
    lengths = {"sequences": (8, 24, 96)[seed % 3], "length": (16, 80, 40)[seed % 3]}
    pair = MadeUpPolicy(seed, dtype=dtype, **lengths).pair()
    found = diagnose(pair.observed(bare=seed % 2 == 0))
    assert found.verdict == "at_floor" and not found.unexplained, found.sentence
    assert found.floor.source == "prior" and found.missing[0].startswith("a calibrated floor")
    assert found.cause is None or found.cause.name == "bf16_rounding_tail"


@pytest.mark.parametrize("seed", range(6))
def test_a_noisy_model_that_nobody_calibrated_is_no_fault(seed: int) -> None:
    """pythia-160m in bf16: twenty times the prior, in the shape of rounding."""
    policy = MadeUpPolicy(seed)
    pair = policy.pair(logits=noisier(policy, 20 * NOISE["bf16"]))
    found = diagnose(pair.observed())
    assert found.verdict == "above_floor"
    assert found.cause is None or found.cause.name == "bf16_rounding_tail"
    calibrated = Floor(0.7, "calibrated", "bf16", "bf16", "pythia-160m")
    assert diagnose(pair.observed(), calibrated).verdict == "at_floor"


def test_the_same_bits() -> None:
    pair = MadeUpPolicy(1).pair()
    found = diagnose(pair.changed(trainer=pair.rollout).observed())
    assert found.verdict == "bitwise_equal" and found.sentence.startswith("Bitwise equal")
    assert not found.unexplained and not found.missing


def test_other_token_ids_are_not_comparable() -> None:
    pair = MadeUpPolicy(1).pair()
    other = pair.ids.copy()
    other[pair.limits[2] + 3 :: 7] += 1
    found = diagnose(pair.observed(rollout_token_ids=other))
    assert found.verdict == "not_comparable"
    assert names(found)[0] == "retokenization_drift"
    first = {item.what: item.value for item in found.causes[0].evidence}["first"]
    assert str(first).startswith("sequence 2, token 3")


@pytest.mark.parametrize("tokens", [0, 1, 2, 8, 15])
def test_few_tokens_say_little(tokens: int) -> None:
    pair = MadeUpPolicy(3).pair()
    mask = np.zeros(pair.rollout.size, np.bool_)
    mask[:tokens] = True
    found = diagnose(pair.changed(trainer=np.roll(pair.trainer, -1)).observed(bare=True, mask=mask))
    assert all(cause.confidence < NAMED_FROM for cause in found.causes)
    assert any("tokens" in text for text in found.missing)
    if tokens < 2:
        assert found.verdict == "not_comparable"


def test_masked_faults_do_not_count() -> None:
    pair = MadeUpPolicy(4).pair()
    trainer, mask = pair.trainer.copy(), np.ones(pair.trainer.size, np.bool_)
    trainer[::9], mask[::9] = np.nan, False
    assert diagnose(pair.changed(trainer=trainer).observed(mask=mask)).verdict == "at_floor"


def test_dropout_is_told_by_equal_contexts() -> None:
    policy = MadeUpPolicy(5, sequences=32, length=24)
    rng = np.random.default_rng(5)
    # Groups of four responses that share their first tokens, as at a low temperature.
    lengths = np.diff(policy.limits)
    for group in range(0, 32, 4):
        shared = int(lengths[group : group + 4].min() // 2)
        first = policy.limits[group]
        for row in range(group + 1, group + 4):
            at = slice(policy.limits[row], policy.limits[row] + shared)
            policy.logits[at] = policy.logits[first : first + shared]
            policy.sampled[at] = policy.sampled[first : first + shared]
            policy.ids[at] = policy.ids[first : first + shared]
    pair = policy.pair(logits=noisier(policy, 0.5))
    pair = pair.changed(prompt_lengths=np.repeat(rng.integers(20, 60, 8), 4))
    assert names(diagnose(pair.observed()))[0] == "dropout_active"


def test_the_wire_form() -> None:
    document = diagnose(FAULTS[0][1](1, "bf16")).to_dict()
    assert json.loads(json.dumps(document)) == document
    assert set(document) >= {"verdict", "excess", "floor", "causes", "unexplained", "missing"}
    cause = document["causes"][0]
    assert set(cause) >= {"name", "title", "confidence", "evidence", "remedy", "next_control"}
    assert set(cause["evidence"][0]) == {"what", "value", "expected"}
    assert document["floor"]["source"] in ("prior", "calibrated")


def test_a_large_step_is_read_in_part_and_answered_alike() -> None:
    pair = MadeUpPolicy(2, sequences=40).pair()
    times = 400
    large = _repeated(pair, times)
    assert large.tokens.rollout.size > 2**20
    assert diagnose(large).verdict == "at_floor"
    trainer = large.tokens.trainer.copy()
    trainer[-3] = np.nan
    broken = Tokens(large.tokens.rollout, trainer, large.tokens.cu_seqlens)
    found = diagnose(Observed(broken, large.metadata))
    assert names(found)[0] == "sentinel_or_nan_logprob"


def _repeated(pair: Pair, times: int) -> Observed:
    lengths = np.tile(np.diff(pair.limits), times)
    limits = np.concatenate([[0], np.cumsum(lengths)])
    tokens = Tokens(
        np.tile(pair.rollout, times).astype(np.float32),
        np.tile(pair.trainer, times).astype(np.float32),
        limits,
        None,
        Extras(),
    )
    return Observed(tokens, pair.metadata)


@pytest.mark.parametrize("seed", range(3))
def test_a_little_above_0_is_not_what_makes_a_large_difference(seed: int) -> None:
    pair = MadeUpPolicy(seed, dtype="bf16").pair()
    trainer = np.roll(pair.trainer, -2)
    trainer[np.argsort(trainer)[-3:]] = (0.004, 0.009, 0.017)
    found = diagnose(pair.changed(trainer=trainer).observed(bare=True))
    assert names(found)[0] == "off_by_one", found.sentence


@pytest.mark.parametrize("seed", range(3))
def test_one_position_is_no_period(seed: int) -> None:
    """A fault of one absolute position; the borders of a chunk are many."""
    pair = MadeUpPolicy(seed, dtype="bf16", sequences=32, length=96).pair()
    wild = pair.positions == 73
    assert np.count_nonzero(wild) >= 10
    found = diagnose(pair.changed(trainer=pair.trainer - 4.0 * wild).observed())
    assert found.cause is None or found.cause.name != "chunked_prompt_logprobs", found.sentence
    assert found.verdict != "at_floor"
