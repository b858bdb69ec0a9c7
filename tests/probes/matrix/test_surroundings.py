"""Which environment differences go with which classes, on made-up environments."""

from __future__ import annotations

from typing import Any

from driftscope_probes.matrix.surroundings import GoesWith, facts_that_differ, going_with

from .made_up import ENVIRONMENT, environment


def relations(found: tuple[GoesWith, ...]) -> dict[str, str]:
    return {one.name: one.relation for one in found}


def test_equal_environments_have_no_facts() -> None:
    assert facts_that_differ({"a": ENVIRONMENT, "b": environment()}) == ()


def test_what_one_place_lacks_is_a_fact() -> None:
    (fact,) = facts_that_differ(
        {"a": ENVIRONMENT, "b": environment(variables={"OMP_NUM_THREADS": "1"})}
    )
    assert (fact.kind, fact.name) == ("variable", "OMP_NUM_THREADS")
    assert fact.values == {"a": "–", "b": "1"}


def test_memory_is_no_fact() -> None:
    assert facts_that_differ({"a": ENVIRONMENT, "b": environment(hardware={"memory_gib": 9})}) == ()


def three() -> dict[str, Any]:
    """b has another CPU; c another CPU and another torch."""
    return {
        "a": environment(),
        "b": environment(hardware={"cpu": "B"}),
        "c": environment(hardware={"cpu": "B"}, packages={"torch": "2.10.0"}),
    }


def test_a_fact_that_goes_with_the_classes_and_one_that_does_not() -> None:
    facts = facts_that_differ(three())
    assert relations(going_with((("a",), ("b", "c")), facts)) == {
        "cpu": "matches",
        "torch": "partly",
    }
    assert relations(going_with((("a", "b"), ("c",)), facts)) == {
        "cpu": "partly",
        "torch": "matches",
    }
    assert relations(going_with((("a", "b", "c"),), facts)) == {"cpu": "within", "torch": "within"}


def test_only_a_single_difference_shows_anything() -> None:
    found = {one.name: one for one in going_with((("a",), ("b", "c")), facts_that_differ(three()))}
    assert found["cpu"].only_between == ("a", "b") and found["cpu"].makes_difference is True
    assert found["torch"].only_between == ("b", "c") and found["torch"].makes_difference is False
    two = {"a": environment(), "c": three()["c"]}
    for one in going_with((("a",), ("c",)), facts_that_differ(two)):
        assert one.relation == "matches" and one.only_between is None


def test_what_torch_makes_of_a_variable_does_not_hide_the_variable() -> None:
    """Its own report of the instruction set is a consequence."""
    found = {
        one.name: one
        for one in going_with(
            (("a",), ("b",)),
            facts_that_differ(
                {
                    "a": environment(),
                    "b": environment(
                        variables={"ATEN_CPU_CAPABILITY": "default"},
                        libraries={"CPU capability of torch": "DEFAULT"},
                    ),
                }
            ),
        )
    }
    assert found["ATEN_CPU_CAPABILITY"].only_between == ("a", "b")
    assert found["CPU capability of torch"].only_between is None


def test_a_fact_that_separates_and_differs_within() -> None:
    every = {
        name: environment(hardware={"cpu": cpu}) for name, cpu in zip("abc", "XYZ", strict=True)
    }
    (found,) = going_with((("a", "b"), ("c",)), facts_that_differ(every))
    assert found.relation == "separates" and found.makes_difference is True
