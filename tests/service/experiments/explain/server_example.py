"""An explanation of a server from outside: a change of the trainer brings the gap to the floor."""

from __future__ import annotations

from typing import Any

from driftscope_probes.explain.report import Check, Gap
from driftscope_probes.explain.server.report import (
    Best,
    Coincides,
    Floors,
    NotTried,
    Precision,
    ServerReport,
    Step,
    Tried,
    Truncation,
    Unknown,
)
from driftscope_probes.explain.server.request import ServerExplainRequest


def tried(name: str, **changed: Any) -> Tried:
    fields: dict[str, Any] = {
        "name": name,
        "side": "trainer",
        "kind": "fault",
        "says": f"{name} dropped",
        "tokens": 256,
        "abs_diff_mean_before": 0.21,
        "abs_diff_mean_after": 0.0123,
        "z": 14.2,
        "needed": 3.1,
        "effect": "lowers",
        "own_sigma": None,
        "own_equal_fraction": None,
        "consistent": None,
    }
    return Tried(**(fields | changed))


def from_outside(**changed: Any) -> ServerReport:
    fields: dict[str, Any] = {
        "schema_version": "1",
        "kind": "explain",
        "door": "server",
        "created_at": "2026-11-30T04:00:00+00:00",
        "model": {"name": "smollm2-135m"},
        "trainer_model": None,
        "request": ServerExplainRequest(engine_server="http://127.0.0.1:8000", model="m"),
        "verdict": "fault",
        "equal": False,
        "sentence": "Mean |Δ| 0.21 nats falls to the floor with softcap dropped.",
        "remedy": "make both sides agree: softcap.",
        "server": {"version": "0.32.0", "max_length": 2048},
        "checks": [Check(what="token ids", equal=True, says="the same tokenizer")],
        "precision": Precision(
            values=256, float32_fraction=1.0, resolution=0.0, sentence="All values are float32."
        ),
        "floors": Floors(
            server_itself=0.0, server_itself_equal=1.0, rounding=0.07, basis="published"
        ),
        "gap": Gap(tokens=256, abs_diff_mean=0.21, abs_diff_max=1.5, equal_fraction=0.0),
        "sigma": 0.3,
        "server_settings": [
            tried("batch", side="server", kind="setting", effect="neither", consistent=False)
        ],
        "trainer_variants": [tried("softcap")],
        "not_tried": [NotTried(name="window", reason="the model has none")],
        "best": Best(
            changes=["softcap"],
            says=["softcap dropped"],
            kinds=["fault"],
            abs_diff_mean_before=0.21,
            abs_diff_mean_after=0.0123,
            sigma_after=0.02,
            at_floor=True,
            equal_fraction_after=0.01,
            all_or_nothing=False,
            as_good=["window 128"],
        ),
        "truncation": Truncation(
            where="position",
            at=128,
            texts=4,
            longest=512,
            sigma_before=0.02,
            sigma_from=0.4,
            coincides=[Coincides(what="a block of the cache", tokens=128, chance=0.01)],
            steps=[Step(length=128, sigma=0.02), Step(length=129, sigma=0.4)],
            sentence="They part from position 128 on.",
        ),
        "unknown": [Unknown(what="the order of additions", why="no tensors", door="--dumps A B")],
        "notes": ["The server told its cached tokens."],
        "environment": {"packages": {"driftscope": "0.1.0"}},
        "timing": {"total_s": 61.5},
        "requests": 87,
    }
    return ServerReport(**(fields | changed))
