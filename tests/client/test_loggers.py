"""What TensorBoard, MLflow and Trackio have on the disk after pushes; all of them real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftscope_client import DriftscopeClient, DriftscopeError
from driftscope_client.loggers import OnMetrics, to_mlflow, to_tensorboard, to_trackio

Pushed = Callable[[OnMetrics], DriftscopeClient]
PATIENCE_S = 30.0
#: (step, verdict, cause, mean |Δ|) of each answer.
SAID = [
    (3, "at_floor", None, 0.001),
    (4, "bug_like", "off_by_one", 0.5),
    (5, "bug_like", "off_by_one", 0.25),
]
VERDICTS = {3: 1.0, 4: 3.0, 5: 3.0}
MEANS = {step: mean for step, _, _, mean in SAID}

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers, about themselves


@pytest.fixture
def pushed(
    serve: Callable[..., Any], connect: Callable[..., DriftscopeClient], step: dict[str, Any]
) -> Pushed:
    """Pushes a step for every answer, from the background thread as a trainer does."""

    def push(on_metrics: OnMetrics) -> DriftscopeClient:
        client = connect(serve(*map(_answer, SAID)).url, on_metrics=on_metrics)
        for number, *_ in SAID:
            client.push(number, **step)
        assert client.flush(PATIENCE_S)
        assert (client.pushed, client.last_error) == (len(SAID), None)
        return client

    return push


def _answer(said: tuple[int, str, str | None, float]) -> Any:
    step, verdict, cause, mean = said
    causes = [] if cause is None else [{"name": cause, "confidence": 0.9}]
    told = {"verdict": verdict, "sentence": "It is.", "excess": 8.0, "causes": causes}
    comparison = {"abs_diff_mean": mean, "prob_pearson": None}
    return 201, {"step": step, "diagnosis": told, "comparison": comparison}, {}


def test_tensorboard(pushed: Pushed, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    pushed(to_tensorboard(writer))
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()

    def scalars(name: str) -> dict[int, float]:
        return {event.step: event.value for event in events.Scalars(f"driftscope/{name}")}

    assert scalars("verdict") == VERDICTS
    assert scalars("abs_diff_mean") == pytest.approx(MEANS)
    assert scalars("confidence") == pytest.approx({4: 0.9, 5: 0.9})
    tags = events.Tags()
    assert "driftscope/prob_pearson" not in tags["scalars"]
    causes = events.Tensors("driftscope/cause/text_summary")
    assert [(one.step, one.tensor_proto.string_val[0]) for one in causes] == [(4, b"off_by_one")]


def test_mlflow(pushed: Pushed, mlflow_folder: Path) -> None:
    import mlflow

    with pytest.raises(DriftscopeError, match="no MLflow run is active"):
        to_mlflow()
    with mlflow.start_run() as run:
        pushed(to_mlflow())
    # The client's thread has no active run of its own: a second one would have been made.
    assert len(mlflow.search_runs(output_format="list")) == 1
    tracking = mlflow.MlflowClient()

    def history(name: str) -> dict[int, float]:
        found = tracking.get_metric_history(run.info.run_id, f"driftscope/{name}")
        return {metric.step: metric.value for metric in found}

    assert history("verdict") == VERDICTS and history("abs_diff_mean") == MEANS
    tags = tracking.get_run(run.info.run_id).data.tags
    assert (tags["driftscope/verdict_name"], tags["driftscope/cause"]) == ("bug_like", "off_by_one")


@pytest.mark.usefixtures("trackio_folder")
def test_trackio(pushed: Pushed) -> None:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    run = trackio.init(project="p", name="n", auto_log_cpu=False, auto_log_gpu=False)
    pushed(to_trackio(run))
    trackio.finish()
    logged = {entry["driftscope/step"]: entry for entry in SQLiteStorage.get_logs("p", "n")}
    assert {step: entry["driftscope/verdict"] for step, entry in logged.items()} == VERDICTS
    assert logged[4]["driftscope/cause"] == "off_by_one"
    alerts = SQLiteStorage.get_alerts("p")
    assert [(one["title"], one["text"], one["level"], one["step"]) for one in alerts] == [
        ("driftscope: bug_like", "Step 4: off_by_one (90% sure).", "error", 4)
    ]
