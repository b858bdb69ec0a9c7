"""Planner: Bayes over the catalogue, the choice per second, and when it ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.diagnosis.cause import NAMED_FROM, NamedCause
from driftscope_probes.diagnosis.controls.base import LEAST_LIKELIHOOD, Control
from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, Need, Outcome
from driftscope_probes.diagnosis.families.registry import BY_NAME
from driftscope_probes.diagnosis.planner import (
    ALIKE_FRACTION,
    LEAST_GAIN_BITS,
    LEAST_GAIN_UNNAMED_BITS,
    SURE_FROM,
    UNEXPLAINED,
    Belief,
    Planner,
    prior_of,
)

NAMES = tuple(sorted(BY_NAME))[:6]


def never(_: Bench) -> Measurement:
    raise AssertionError("the planner runs nothing")


def control(
    name: str,
    points_to: Mapping[str, float],
    *,
    cost_s: float = 1.0,
    positive: Outcome = "clean",
    needs: frozenset[Need] = frozenset(),
) -> Control:
    return Control(name, f"Do {name}", "", "", cost_s, positive, points_to, never, needs=needs)


def named(name: str, confidence: float) -> NamedCause:
    cause = BY_NAME[name]
    return NamedCause(name, cause.title, confidence, (), cause.remedy, "", cause.doc)


probabilities = st.floats(0.001, 1.0)
beliefs = st.fixed_dictionaries({name: probabilities for name in (*NAMES, UNEXPLAINED)}).map(
    lambda weights: Belief({c: w / math.fsum(weights.values()) for c, w in weights.items()})
)
controls = st.builds(
    control,
    st.uuids().map(str),
    st.dictionaries(st.sampled_from(NAMES), st.floats(0.0, 1.0)),
    cost_s=st.floats(0.1, 60.0),
    positive=st.sampled_from(["clean", "dirty"]),
)
outcomes = st.sampled_from(["clean", "dirty"])


@given(beliefs, st.lists(st.tuples(controls, outcomes), max_size=4))
def test_a_posterior_sums_to_one_in_whichever_order(
    belief: Belief, heard: list[tuple[Control, Outcome]]
) -> None:
    found = []
    for order in itertools.islice(itertools.permutations(heard), 6):
        after = belief
        for one, outcome in order:
            after = after.updated(one, outcome)
        assert math.fsum(after.probabilities.values()) == pytest.approx(1.0)
        found.append(after.probabilities)
    for other in found[1:]:
        assert other == pytest.approx(found[0])


@given(beliefs, controls)
def test_the_gain_is_that_of_brute_force(belief: Belief, one: Control) -> None:
    """Mutual information from the joint table, H(cause) + H(outcome) − H(both)."""
    joint = [
        p * one.likelihood(outcome, cause)
        for cause, p in belief.probabilities.items()
        for outcome in ("clean", "dirty")
    ]

    def entropy(values: list[float]) -> float:
        return -sum(value * math.log2(value) for value in values if value)

    of_outcome = [sum(joint[0::2]), sum(joint[1::2])]
    expected = entropy(list(belief.probabilities.values())) + entropy(of_outcome) - entropy(joint)
    assert belief.gain(one) == pytest.approx(expected, abs=1e-9)
    assert -1e-12 <= belief.gain(one) <= 1.0


def test_a_sure_outcome_rules_a_cause_in() -> None:
    """Only one cause answers `dirty`: seen, it is that one, and one that never does is out."""
    fault, other = NAMES[:2]
    belief = Belief({fault: 0.5, other: 0.5})
    only = control("only", {fault: 1.0, other: 0.0}, positive="dirty")
    assert belief.updated(only, "dirty").probabilities[fault] == 1 - LEAST_LIKELIHOOD
    assert belief.updated(only, "clean").probabilities[fault] == LEAST_LIKELIHOOD


@settings(max_examples=50)
@given(
    beliefs,
    st.lists(controls, min_size=1, max_size=6, unique_by=lambda one: one.name),
    st.lists(outcomes, min_size=6, max_size=6),
    st.floats(0.0, 60.0),
)
def test_no_control_runs_twice_and_one_at_most_beyond_the_budget(
    belief: Belief, given_: list[Control], said: list[Outcome], budget_s: float
) -> None:
    planner = Planner(given_, belief, offers=frozenset(), budget_s=budget_s)
    ran: list[str] = []
    spent_s, last_s = 0.0, 0.0
    while (choice := planner.choose(spent_s)) is not None:
        cause, leading = planner.belief.leading
        named = cause != UNEXPLAINED and leading >= NAMED_FROM
        # Where nothing is named yet, little is worth a run.
        assert choice.gain >= (LEAST_GAIN_BITS if named else LEAST_GAIN_UNNAMED_BITS)
        assert spent_s < budget_s
        rates = [belief.gain(c) / c.cost_s for c in planner.left if c.cost_s > 0.5]
        if not ran and choice.control.cost_s > 0.5:
            assert choice.gain / choice.control.cost_s >= max(rates) - 1e-9
        ran.append(choice.control.name)
        last_s = choice.control.cost_s
        spent_s += last_s
        planner.heard(choice.control, said[len(ran) - 1], last_s)
    assert len(set(ran)) == len(ran)
    assert spent_s - last_s <= budget_s
    assert planner.ended == (
        "sure"
        if planner.belief.leading[1] >= SURE_FROM
        else "budget"
        if spent_s >= budget_s
        else "nothing_left"
    )


def test_the_prior_leaves_room_for_what_data_cannot_show() -> None:
    cause = next(c for c in BY_NAME.values() if len(c.alike) > 1 and c.name in c.alike)
    belief = prior_of([named(cause.name, 0.98)])
    assert belief.probabilities.keys() == {*BY_NAME, UNEXPLAINED}
    assert math.fsum(belief.probabilities.values()) == pytest.approx(1.0)
    name, probability = belief.leading
    assert name == cause.name and probability < SURE_FROM
    alike = [belief.probabilities[other] for other in cause.alike if other != name]
    assert math.fsum(alike) >= ALIKE_FRACTION * probability * 0.999
    assert min(belief.probabilities.values()) > 0.001


def test_two_controls_find_a_cause_that_the_data_did_not_name() -> None:
    fault = NAMES[0]
    belief = prior_of(())
    for name in ("one", "two"):
        belief = belief.updated(control(name, {fault: 0.95}), "clean")
    assert belief.leading[0] == fault and belief.leading[1] >= SURE_FROM


def test_a_choice_says_its_seconds_and_what_it_splits() -> None:
    fault, other = NAMES[:2]
    belief = Belief({fault: 0.31, other: 0.28, UNEXPLAINED: 0.41})
    planner = Planner([control("off", {fault: 0.9}, cost_s=12)], belief, offers=frozenset())
    choice = planner.choose()
    assert choice is not None
    assert choice.reason == f"Do off: 12 s; splits {fault} 0.31 from unexplained 0.41"


def test_the_pace_of_this_machine_scales_what_is_expected() -> None:
    first, second = (control(name, {NAMES[0]: 0.9}, cost_s=10) for name in ("a", "b"))
    planner = Planner([first, second], prior_of(()), offers=frozenset())
    planner.heard(first, "clean", 40.0)
    assert planner.pace == 4.0
    choice = planner.choose()
    assert choice is not None and choice.seconds == 40.0


def test_what_a_control_lacks_and_what_failed_is_said() -> None:
    lacking = control("older", {NAMES[0]: 0.9}, needs=frozenset({"older_models"}))
    failing = control("failing", {NAMES[0]: 0.9})
    planner = Planner([lacking, failing], prior_of(()), offers=frozenset({"threads"}))
    assert [one.control for one in planner.skipped] == ["older"]
    assert "--older-model" in planner.skipped[0].reason
    assert planner.would_tell == list(planner.skipped)
    planner.set_aside(failing, "the engine died")
    assert planner.choose() is None and planner.ended == "nothing_left"
    assert planner.skipped[1].reason == "the engine died"
