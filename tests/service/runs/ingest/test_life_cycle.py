"""The step store and the life of a run against a model of a few sets, on both databases.

Pushes, the same again, other bytes, shards in any order on either replica, completions, attempts
and deletions, in the orders that Hypothesis thinks of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

STEPS = st.integers(0, 2)
CONTENTS = st.integers(0, 1)
REPLICAS = st.integers(0, 1)
SHARDS = 2
RULES, RUNS = 12, 6
#: Each run of the machine has a training run of its own, since the services live for all of them,
#: and each attempt an id.
_numbers = count()


@dataclass
class Attempt:
    """What one attempt of a run has, by the contents that were sent."""

    id: str
    steps: dict[int, tuple[int, ...]] = field(default_factory=dict)  # contents of its shards
    shards: dict[int, dict[int, int]] = field(default_factory=dict)  # of open steps

    @property
    def empty(self) -> bool:
        return not self.steps and not any(self.shards.values())


class LifeCycle(RuleBasedStateMachine):
    """Every push names its attempt, so that the model need not guess which one is meant."""

    pushings: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self._run = f"run-{next(_numbers)}"
        self._attempts: list[Attempt] = []

    @initialize()
    def begin(self) -> None:
        self.open_attempt(0)

    @rule(replica=REPLICAS)
    def open_attempt(self, replica: int) -> None:
        """From scratch: the series of the run is empty again, what there was stays stored. A run
        that has nothing learns what its first attempt is called."""
        name = f"a{next(_numbers)}"
        answer = self._client(replica).post(
            f"/v1/runs/{self._run}/attempts", json={"id": name, "resumed_from": None}
        )
        assert answer.status_code == 201, answer.text
        if len(self._attempts) == 1 and self._attempts[0].empty:
            self._attempts.clear()
        self._attempts.append(Attempt(name))

    @rule(replica=REPLICAS, step=STEPS, content=CONTENTS)
    def push(self, replica: int, step: int, content: int) -> None:
        newest = self._attempts[-1]
        answer = self._push(replica, step, content)
        if newest.steps.get(step) == (content,):
            expected = 200
        elif step in newest.steps or step in newest.shards:
            expected = 409
        else:
            expected = 201
            newest.steps[step] = (content,)
        assert answer.status_code == expected, answer.text

    @rule(replica=REPLICAS, step=STEPS, shard=st.integers(0, SHARDS - 1), content=CONTENTS)
    def push_shard(self, replica: int, step: int, shard: int, content: int) -> None:
        newest = self._attempts[-1]
        answer = self._push(replica, step, content, shard=shard, shards=SHARDS)
        complete = newest.steps.get(step)
        there = newest.shards.setdefault(step, {}) if complete is None else {}
        if complete is not None and len(complete) == SHARDS:
            expected = 200 if complete[shard] == content else 409
        elif complete is not None:
            expected = 409
        elif shard in there:
            expected = 200 if there[shard] == content else 409
        else:
            expected = 201
            there[shard] = content
        assert answer.status_code == expected, answer.text

    @rule(replica=REPLICAS, step=STEPS)
    def complete(self, replica: int, step: int) -> None:
        newest = self._attempts[-1]
        answer = self._client(replica).post(
            f"/v1/runs/{self._run}/steps/{step}/complete", params=self._named()
        )
        there = newest.shards.get(step, {})
        if step in newest.steps:
            expected = 200
        elif not there:
            expected = 404
        elif len(there) < SHARDS:
            expected = 409
        else:
            expected = 201
            newest.steps[step] = tuple(there[shard] for shard in range(SHARDS))
            del newest.shards[step]
        assert answer.status_code == expected, answer.text

    @rule(replica=REPLICAS, step=STEPS)
    def delete_step(self, replica: int, step: int) -> None:
        """Of the series, complete or not."""
        answer = self._client(replica).delete(f"/v1/runs/{self._run}/steps/{step}")
        newest = self._attempts[-1]
        there = step in newest.steps or bool(newest.shards.get(step))
        assert (answer.status_code < 300) == there, answer.text
        newest.steps.pop(step, None)
        newest.shards.pop(step, None)

    @rule(replica=REPLICAS)
    def delete_run(self, replica: int) -> None:
        assert self._client(replica).delete(f"/v1/runs/{self._run}").status_code < 300
        self._attempts = []
        self.open_attempt(1 - replica)

    @invariant()
    def both_tell_what_the_model_says(self) -> None:
        if not self._attempts:
            return
        for pushing in self.pushings:
            run = pushing.client.get(f"/v1/runs/{self._run}").json()
            assert run["attempt"] == len(self._attempts)
            assert run["steps"] == len(self._attempts[-1].steps)
            listed = pushing.client.get(f"/v1/runs/{self._run}/steps").json()["steps"]
            assert [one["step"] for one in listed] == sorted(self._attempts[-1].steps)
            every = pushing.client.get(f"/v1/runs/{self._run}/attempts").json()["attempts"]
            assert [(one["id"], one["steps"]) for one in every] == [
                (one.id, len(one.steps)) for one in self._attempts
            ]

    def _client(self, replica: int) -> Any:
        return self.pushings[replica % len(self.pushings)].client

    def _named(self) -> dict[str, str]:
        return {"attempt": self._attempts[-1].id}

    def _push(self, replica: int, step: int, content: int, **shard: int) -> Any:
        pushing = self.pushings[replica % len(self.pushings)]
        body = pushing.same(10 * content + shard.get("shard", 0))
        return pushing.push(body, run=self._run, step=step, params={**self._named(), **shard})


def check(pushings: list[Any], machine: type[LifeCycle] = LifeCycle) -> None:
    bound = type("Bound", (machine,), {"pushings": pushings})
    run_state_machine_as_test(
        bound,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=RULES,
            deadline=None,
            database=None,
            # Making a counterexample smaller takes minutes of a real service; it prints its steps.
            phases=[Phase.generate],
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def on_sqlite(running: Any, pushing_to: Any) -> Iterator[list[Any]]:
    yield [pushing_to(running)]


@pytest.mark.slow
def test_the_life_of_a_run_on_sqlite(on_sqlite: list[Any]) -> None:
    check(on_sqlite)


@pytest.mark.slow
def test_the_life_of_a_run_on_two_replicas(two_replicas: list[Any], pushing_to: Any) -> None:
    check([pushing_to(running) for running in two_replicas])


class Deaf(LifeCycle):
    """The model does not hear of pushes: a planted fault, which the comparison must see."""

    @rule(replica=REPLICAS, step=STEPS, content=CONTENTS)
    def push(self, replica: int, step: int, content: int) -> None:
        self._push(replica, step, content)


@pytest.mark.slow
def test_a_model_that_is_wrong_is_found(on_sqlite: list[Any]) -> None:
    with pytest.raises(AssertionError):
        check(on_sqlite, Deaf)
