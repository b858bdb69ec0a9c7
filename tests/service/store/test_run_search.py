"""Filters, orders and pages of runs against plain Python over the same rows, on both databases."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from driftscope_probes.verdicts import COMPARISON_VERDICTS
from driftscope_service.runs.store.progress import PROGRESSES, run_progress
from driftscope_service.runs.store.runs import Run, RunRepository
from driftscope_service.runs.store.search import (
    ORDERS,
    Order,
    Place,
    RunFilter,
    RunSearch,
    decode_place,
    place_of,
)
from driftscope_service.store.database import Database
from driftscope_service.store.tables import run_tags, runs

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
MODELS = ("Qwen/Q3-8B", "qwen/q3-8b", "tiny", "100%", "a_b", None)
ENGINES = ("vllm 0.32.0", "vllm", "vllm-fork 1", "SGLang 0.5", None)
FRAMEWORKS = ("trl", "verl", "prime-rl", None)
DTYPES = ("bf16", "fp32", "fp8", None)
CAUSES = ("stale_weights", "unexplained", None)
TAGS = ("prod", "Prod-2", "sweep/3", "50%", "x_y", "größe")
WORDS = ("lr", "LR", "50%", "x_y", "team", "a\\b", "größe", "run-1", "zz", "'", '"')
VERDICTS = (*COMPARISON_VERDICTS, None)


@dataclass(frozen=True)
class Stored:
    run: Run
    tags: tuple[str, ...]


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.write() as connection:
        yield connection


def add(connection: Connection, row: dict[str, Any], tags: tuple[str, ...] = ()) -> Stored:
    connection.execute(insert(runs).values(**row))
    found = RunRepository(connection).get(row["name"])
    assert found is not None
    for tag in tags:
        connection.execute(insert(run_tags).values(run_number=found.number, tag=tag))
    return Stored(found, tags)


def row(name: str, activity: int, **given: Any) -> dict[str, Any]:
    values = {
        "labels": {},
        "created_at": NOW - timedelta(hours=3),
        "updated_at": NOW,
        "complete_steps": 0,
    }
    return {"name": name, "activity": activity, **values, **given}


def random_runs(connection: Connection, seed: int, count: int) -> list[Stored]:
    chance = random.Random(seed)
    activities = chance.sample(range(1, 10 * count), count)
    found = []
    for place in range(count):
        # Few different moments, so that several runs share one.
        created = NOW - timedelta(hours=chance.randrange(1, 6))
        updated = created + (NOW - created) * chance.choice([0.0, 0.5, 0.9, 0.99, 1.0])
        complete = chance.choice([0, 1, 2, 5, 400])
        verdict = chance.choice(VERDICTS)
        found.append(
            add(
                connection,
                row(
                    f"{chance.choice(['run', 'Run', 'a.b', 'z_z'])}-{place}",
                    activities[place],
                    model=chance.choice(MODELS),
                    framework=chance.choice(FRAMEWORKS),
                    engine=chance.choice(ENGINES),
                    rollout_dtype=chance.choice(DTYPES),
                    trainer_dtype=chance.choice(DTYPES),
                    labels={chance.choice(WORDS): chance.choice(WORDS)}
                    if chance.random() < 0.5
                    else {},
                    created_at=created,
                    updated_at=updated,
                    complete_steps=complete,
                    last_step=complete or None,
                    last_step_at=updated if complete else None,
                    finished_at=updated if chance.random() < 0.2 else None,
                    attempt=chance.choice([1, 1, 2, 3]),
                    note=" ".join(chance.sample(WORDS, 2)) if chance.random() < 0.4 else None,
                    verdict=verdict,
                    excess=None if verdict is None else chance.choice([None, 0.0, 1.5, 1.5, 40.25]),
                    cause=chance.choice(CAUSES),
                ),
                tuple(chance.sample(TAGS, chance.randrange(3))),
            )
        )
    return found


def random_filter(seed: int) -> RunFilter:
    chance = random.Random(seed)

    def maybe(values: Any) -> Any:
        return chance.choice(values) if chance.random() < 0.25 else None

    moments = [NOW - timedelta(minutes=minutes) for minutes in (0, 20, 70, 200)]
    return RunFilter(
        text=maybe([*WORDS, *TAGS, "RUN", "n-1 l"]),
        model=maybe([one for one in MODELS if one]),
        framework=maybe(["trl", "TRL", "veRL"]),
        engine=maybe(["vllm", "VLLM", "vllm 0.32.0", "sglang", "vllm 0"]),
        dtype=maybe(["bf16", "BF16", "fp8", "int4"]),
        states=tuple(chance.sample(PROGRESSES, chance.randrange(1, 3)))
        if chance.random() < 0.4
        else (),
        verdicts=tuple(chance.sample(tuple(COMPARISON_VERDICTS), 2))
        if chance.random() < 0.3
        else (),
        cause=maybe(["stale_weights", "unexplained"]),
        tags=tuple(chance.sample(TAGS, chance.randrange(1, 3))) if chance.random() < 0.2 else (),
        since=maybe(moments),
        until=maybe(moments),
    )


def matches(one: Stored, wanted: RunFilter) -> bool:
    """What RunFilter says, without a database."""
    run = one.run
    places = [run.name, run.note or "", *one.tags, *run.labels, *run.labels.values()]
    lower = [place.lower() for place in places]
    return (
        all(any(word.lower() in place for place in lower) for word in (wanted.text or "").split())
        and same(run.model, wanted.model)
        and same(run.framework, wanted.framework)
        and same(run.cause, wanted.cause)
        and (
            same(run.engine, wanted.engine)
            or (run.engine or "").lower().startswith(f"{wanted.engine} ".lower())
        )
        and (same(run.rollout_dtype, wanted.dtype) or same(run.trainer_dtype, wanted.dtype))
        and (not wanted.states or run_progress(run, NOW) in wanted.states)
        and (not wanted.verdicts or run.verdict in wanted.verdicts)
        and all(tag.lower() in [mine.lower() for mine in one.tags] for tag in wanted.tags)
        and (wanted.since is None or run.updated_at >= wanted.since)
        and (wanted.until is None or run.updated_at <= wanted.until)
    )


def same(value: str | None, wanted: str | None) -> bool:
    return wanted is None or (value or "").lower() == wanted.lower()


def in_order(found: list[Run], order: Order) -> list[Run]:
    worst_last = (None, *COMPARISON_VERDICTS)
    keys: dict[Order, Any] = {
        "activity": lambda run: -run.activity,
        "name": lambda run: run.name.encode(),
        "created": lambda run: (-run.created_at.timestamp(), -run.number),
        "worst": lambda run: (
            -worst_last.index(run.verdict),
            -(-1.0 if run.excess is None else run.excess),
            -run.number,
        ),
    }
    return sorted(found, key=keys[order])


def paged(search: RunSearch, wanted: RunFilter, order: Order, size: int) -> list[str]:
    """Page by page, each place through its text as in an address."""
    names: list[str] = []
    place: Place | None = None
    while True:
        page = search.page(wanted, order, size, after=place)
        names += [run.name for run in page]
        if len(page) < size:
            return names
        place = decode_place(place_of(page[-1], order).encode(), order)


@pytest.mark.parametrize("seed", range(3))
def test_any_filter_and_order_agree_with_plain_python(connection: Connection, seed: int) -> None:
    stored = random_runs(connection, seed, 60)
    search = RunSearch(connection, NOW)
    sizes = []
    for number in range(80):
        wanted = random_filter(1000 * seed + number)
        expected = [one.run for one in stored if matches(one, wanted)]
        sizes.append(len(expected))
        assert search.count(wanted) == len(expected), wanted
        order = ORDERS[number % len(ORDERS)]
        names = [run.name for run in in_order(expected, order)]
        assert paged(search, wanted, order, 1 + number % 7) == names, (wanted, order)
    # The filters bite, and not all of them too hard for the comparison to mean anything.
    assert min(sizes) == 0 and sum(0 < size < 60 for size in sizes) > 25


def test_all_runs_in_every_order(connection: Connection) -> None:
    stored = random_runs(connection, 7, 60)
    search = RunSearch(connection, NOW)
    for order in ORDERS:
        names = [run.name for run in in_order([one.run for one in stored], order)]
        assert paged(search, RunFilter(), order, 11) == names, order


def test_the_states_are_told_apart(connection: Connection) -> None:
    """A step a minute for an hour, then silence."""
    steps = {
        "complete_steps": 61,
        "last_step": 60,
        "created_at": NOW - timedelta(hours=2),
        "last_step_at": NOW - timedelta(hours=1),
    }

    def silent(name: str, activity: int, since: timedelta, **given: Any) -> None:
        values = {**steps, **given, "updated_at": NOW - since}
        add(connection, row(name, activity, **values))

    minute = timedelta(minutes=1)
    silent("fresh", 1, 9 * minute)
    silent("again", 2, 9 * minute, attempt=2)
    silent("silent", 3, 11 * minute)
    silent("silent-again", 4, 11 * minute, attempt=2)
    silent("ended", 5, 50 * minute, finished_at=NOW - 50 * minute)
    # A step every two minutes: ten of those are more than ten minutes.
    silent("slow", 6, 11 * minute, complete_steps=31)
    silent("slow-silent", 7, 21 * minute, complete_steps=31)
    # Engines load for longer than a step takes.
    silent("first", 8, 59 * minute, complete_steps=1)
    silent("first-silent", 9, 61 * minute, complete_steps=1)
    silent("empty", 10, 59 * minute, complete_steps=0, last_step_at=None, last_step=None)
    search = RunSearch(connection, NOW)
    found = {
        state: [run.name for run in search.page(RunFilter(states=(state,)), "name", 20)]
        for state in PROGRESSES
    }
    assert found == {
        "running": ["empty", "first", "fresh", "slow"],
        "resumed": ["again"],
        "finished": ["ended"],
        "stale": ["first-silent", "silent", "silent-again", "slow-silent"],
    }


def test_a_page_stays_right_while_runs_move(connection: Connection) -> None:
    for place in range(6):
        add(connection, row(f"r{place}", place + 1))
    search = RunSearch(connection, NOW)
    first = search.page(RunFilter(), "activity", 3)
    # The first of the next page becomes the latest; nothing is shown twice, nothing else is lost.
    RunRepository(connection).put("r2", {"model": "m"})
    rest = search.page(RunFilter(), "activity", 10, after=place_of(first[-1], "activity"))
    assert [run.name for run in first] == ["r5", "r4", "r3"]
    assert [run.name for run in rest] == ["r1", "r0"]


def test_choices_are_what_the_runs_have(connection: Connection) -> None:
    add(connection, row("a", 1, model="m", engine="vllm 1", rollout_dtype="bf16"), ("t", "s"))
    add(connection, row("b", 2, model="m", trainer_dtype="fp32", cause="stale_weights"))
    found = RunSearch(connection).choices()
    assert (found.models, found.frameworks, found.engines) == (["m"], [], ["vllm 1"])
    assert (found.dtypes, found.causes) == (["bf16", "fp32"], ["stale_weights"])
    assert found.tags == ["s", "t"]


def test_a_place_that_is_none_of_ours_is_refused(connection: Connection) -> None:
    run = add(connection, row("a", 1)).run
    for order in ORDERS:
        whole = place_of(run, order).encode()
        assert place_of(run, order) == decode_place(whole, order)
        for other in ORDERS:
            if other != order:
                with pytest.raises(ValueError):
                    decode_place(whole, other)
    for keys in ((2**40,), ("1",), (True,), (1.5,), (None,), (1, 2), ()):
        with pytest.raises(ValueError):
            decode_place(replace(Place("activity", keys)).encode(), "activity")
    for text in ("", "x", "W10", "é", "bnVsbA", "=" * 9):
        with pytest.raises(ValueError):
            decode_place(text, "activity")
    with pytest.raises(ValueError):
        decode_place(Place("name", ("a\0",)).encode(), "name")
    with pytest.raises(ValueError):
        decode_place(Place("created", ("2026-11-29T00:00:00", 1)).encode(), "created")
