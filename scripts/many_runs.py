"""Five hundred runs to find one's way in: rows put into the database of a service, without a push.

In: an open transaction. Out: its runs and steps. Seeded: the same every time. Stored as a push
would store them, with an analysis of the usual size, so that times mean
something.
"""

from __future__ import annotations

import json
import random
import zlib
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, insert, select

from driftscope_probes.drift import SERIES
from driftscope_service.store.tables import run_tags, runs, steps

RUNS = 500
STEPS = 60
MODELS = ("Qwen3-8B", "Llama-3.2-1B", "gpt-oss-20b", "tiny-random-llama")
FRAMEWORKS = ("trl", "verl", "prime-rl", "slime")
ENGINES = ("vllm 0.32.0", "vllm 0.31.2", "sglang 0.5.6")
TAGS = ("sweep", "prod", "ablation", "nightly", "keep")
#: verdict, excess, cause, limits crossed.
ANSWERS = (
    ("at_floor", 0.9, None, 0),
    ("at_floor", 1.1, None, 0),
    ("bitwise_equal", None, None, 0),
    ("above_floor", 3.0, "stale_engine_weights", 1),
    ("above_floor", 2.2, "unexplained", 0),
    ("bug_like", 40.0, "temperature_semantics", 4),
)
#: Of a compressed analysis; a pushed step takes 5 to 9 KB in all.
ANALYSIS_BYTES = 5_000
STEP_S = 60


def add_runs(
    connection: Connection, *, count: int = RUNS, of_steps: int = STEPS, now: datetime | None = None
) -> None:
    """`run-0000` …; every 25th is tagged `keep`, every 10th is finished, every 7th resumed, and
    half of the others ended without a word. `now`: when the last of them had its last step."""
    chance = random.Random(0)
    now = now or datetime.now(UTC)
    known = connection.execute(select(func.coalesce(func.max(runs.c.activity), 0))).scalar_one()
    for place in range(count):
        last = now - timedelta(seconds=0.5) * (count - place)
        if place % 2:
            last -= timedelta(days=1 + place % 20)
        run = {**_run(chance, place, of_steps, last), "activity": known + place + 1}
        key = connection.execute(insert(runs).values(run)).inserted_primary_key
        assert key is not None
        number = key[0]
        tags = {chance.choice(TAGS[:-1]), *(["keep"] if place % 25 == 0 else [])}
        connection.execute(
            insert(run_tags), [{"run_number": number, "tag": tag} for tag in sorted(tags)]
        )
        connection.execute(insert(steps), _steps(chance, number, run, of_steps, last))


def _run(chance: random.Random, place: int, of_steps: int, last: datetime) -> dict[str, object]:
    verdict, excess, cause, crossed = ANSWERS[place % len(ANSWERS)]
    return {
        "name": f"run-{place:04}",
        "model": MODELS[place // 2 % len(MODELS)],
        "framework": chance.choice(FRAMEWORKS),
        "engine": chance.choice(ENGINES),
        "rollout_dtype": chance.choice(("bf16", "fp8")),
        "trainer_dtype": chance.choice(("bf16", "fp32")),
        "labels": {"team": chance.choice(("rl", "infra"))},
        "note": "learning rate 3e-6, second try" if place % 50 == 3 else None,
        "created_at": last - timedelta(seconds=STEP_S * (of_steps - 1)),
        "updated_at": last,
        "complete_steps": of_steps,
        "last_step": of_steps - 1,
        "last_step_at": last,
        "finished_at": last if place % 10 == 1 else None,
        "attempt": 2 if place % 7 == 2 else 1,
        "verdict": verdict,
        "excess": None if excess is None else excess * chance.uniform(0.9, 1.1),
        "cause": cause,
        "confidence": None if cause in (None, "unexplained") else 0.8,
        "crossed": crossed,
    }


def _steps(
    chance: random.Random, number: int, run: dict[str, object], of_steps: int, last: datetime
) -> list[dict[str, object]]:
    crossed = list(SERIES[: int(str(run["crossed"]))])
    limits = [
        {"metric": name, "value": 1.0, "limit": 0.1, "direction": "above", "source": "made up"}
        for name in crossed
    ]
    # What does not compress stands for the numbers of a real analysis.
    filling = chance.randbytes(ANALYSIS_BYTES // 2).hex()
    document: dict[str, object] = {
        "comparison": {},
        "diagnosis": None,
        "crossed_limits": limits,
        "filling": filling,
    }
    analysis = zlib.compress(json.dumps(document).encode())
    level = 0.003 * chance.uniform(0.5, 2.0)
    told = {name: run[name] for name in ("verdict", "excess", "cause", "confidence")}
    return [
        {
            "run_number": number,
            "step": step,
            "content_sha256": "0" * 64,
            "received_at": last - timedelta(seconds=STEP_S * (of_steps - 1 - step)),
            "tokens": 4096,
            "sequences": 16,
            "size_bytes": 40_000,
            "shards": 1,
            "kept_bytes": 0,
            "crossed": crossed,
            "series": {name: level * chance.uniform(0.9, 1.1) for name in SERIES},
            "verdict": told,
            "metadata": {"model": run["model"]},
            "analysis": analysis,
        }
        for step in range(of_steps)
    ]
