"""What TRL's own trackers have on the disk after a run with the mixin; all three are real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftscope_client import DriftscopeClient
from driftscope_client.answer import HEADLINE

STEPS = 3
HEALTHY, BAD = ("at_floor", 1.0), ("bug_like", 3.0)

pytestmark = [
    pytest.mark.slow,  # importing TRL alone takes ten seconds
    pytest.mark.filterwarnings("ignore"),  # of transformers, TRL and the trackers
]


def answer(step: int, verdict: str) -> Any:
    causes = [{"name": "off_by_one", "confidence": 0.9}]
    told = {"verdict": verdict, "sentence": "It is off by one.", "excess": 8.0, "causes": causes}
    comparison = dict.fromkeys(HEADLINE, 0.5)
    return 201, {"step": step, "diagnosis": told, "comparison": comparison}, {}


@pytest.mark.usefixtures("mlflow_folder", "trackio_folder")
def test_the_numbers_are_in_each_tracker_and_a_new_verdict_is_an_alert(
    make_trainer: Callable[..., Any],
    serve: Callable[..., Any],
    connect: Callable[..., DriftscopeClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tensorboard"))
    verdicts = [HEALTHY, BAD, BAD]
    stub = serve(*(answer(step, word) for step, (word, _) in enumerate(verdicts)))
    report_to = ["tensorboard", "mlflow", "trackio"]
    trainer = make_trainer(
        connect(stub.url, strict=True),
        report_to=report_to,
        project="p",
        run_name="n",
        max_steps=STEPS,
    )
    trainer.train()
    # What is pushed within an optimiser step is answered before TRL logs it, as strict waits.
    expected = {float(step): number for step, (_, number) in enumerate(verdicts)}

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    steps = [event.value for event in scalars["train/driftscope/step"]]
    numbers = [event.value for event in scalars["train/driftscope/verdict"]]
    assert dict(zip(steps, numbers, strict=True)) == expected
    assert {f"train/driftscope/{name}" for name in HEADLINE} < set(scalars)
    assert "train/reward" in scalars

    (run,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "driftscope/verdict")
    assert [metric.value for metric in history][:STEPS] == list(expected.values())

    logs = [log for log in SQLiteStorage.get_logs("p", "n") if "train/driftscope/step" in log]
    found = {log["train/driftscope/step"]: log["train/driftscope/verdict"] for log in logs}
    assert found == expected
    (alert,) = SQLiteStorage.get_alerts("p")
    assert alert["title"] == "driftscope: bug_like at step 1"
    assert (alert["text"], alert["level"]) == ("It is off by one.", "error")
