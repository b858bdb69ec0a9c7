"""Functions for `on_metrics`: the numbers of an answer into TensorBoard, MLflow or Trackio.

In: the tracker's own object. Out: a function of one flat mapping. W&B needs none of them:
`on_metrics=wandb.log`. No tracker is imported before its function is asked for.

All are called on the client's background thread. MLflow keeps its active run per thread and Trackio
per context, so both functions hold on to the run that they are made for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from driftscope_client.answer import (
    ALERT_LEVELS,
    CAUSE_WORD,
    CONFIDENCE_METRIC,
    STEP_METRIC,
    VERDICT_WORD,
    WORDS,
)
from driftscope_client.errors import DriftscopeError

OnMetrics = Callable[[Mapping[str, float | str]], None]


def numbers(logged: Mapping[str, float | str]) -> dict[str, float]:
    """Without the words, which some loggers refuse."""
    return {name: value for name, value in logged.items() if isinstance(value, float)}


def to_tensorboard(writer: Any) -> OnMetrics:
    """writer: a SummaryWriter, of torch.utils.tensorboard or tensorboardX. Words become texts, when
    they change."""
    changed = _Changes()

    def log(logged: Mapping[str, float | str]) -> None:
        step = _step(logged)
        for name, value in numbers(logged).items():
            writer.add_scalar(name, value, step)
        for name, text in changed(logged).items():
            writer.add_text(name, text or "none", step)
        writer.flush()

    return log


def to_mlflow(run_id: str | None = None) -> OnMetrics:
    """run_id: default, the run that is active now. Words become tags of the run: those of the
    latest answer. Raises DriftscopeError where no run is active."""
    import mlflow

    active = mlflow.active_run()
    if run_id is None and active is None:
        raise DriftscopeError(
            "no MLflow run is active.",
            remedy="call mlflow.start_run() before to_mlflow(), or give to_mlflow(run_id=…).",
        )
    run = run_id or active.info.run_id
    tracking, changed = mlflow.MlflowClient(), _Changes()

    def log(logged: Mapping[str, float | str]) -> None:
        mlflow.log_metrics(numbers(logged), step=_step(logged), run_id=run)
        for name, text in changed(logged).items():
            tracking.set_tag(run, name, text)

    return log


def to_trackio(run: Any) -> OnMetrics:
    """run: what trackio.init() returned. A verdict that is new and bad becomes an alert as well."""
    from trackio import AlertLevel

    changed = _Changes()

    def log(logged: Mapping[str, float | str]) -> None:
        run.log(dict(logged), step=_step(logged))
        verdict = str(logged.get(VERDICT_WORD, ""))
        if changed(logged) and verdict in ALERT_LEVELS:
            level = AlertLevel[ALERT_LEVELS[verdict]]
            run.alert(f"driftscope: {verdict}", _because(logged), level, step=_step(logged))

    return log


class _Changes:
    """The words that are other than those of the call before; empty for one that has gone."""

    def __init__(self) -> None:
        self._before: dict[str, str] = {}

    def __call__(self, logged: Mapping[str, float | str]) -> dict[str, str]:
        now = {name: str(logged[name]) for name in WORDS if name in logged}
        named = {**dict.fromkeys(self._before, ""), **now}
        changed = {name: text for name, text in named.items() if self._before.get(name) != text}
        self._before = now
        return changed


def _step(logged: Mapping[str, float | str]) -> int:
    return int(logged[STEP_METRIC])


def _because(logged: Mapping[str, float | str]) -> str:
    cause = logged.get(CAUSE_WORD)
    confidence = logged.get(CONFIDENCE_METRIC)
    sure = f" ({confidence:.0%} sure)" if isinstance(confidence, float) else ""
    return f"Step {_step(logged)}: " + (
        "no cause is named." if cause is None else f"{cause}{sure}."
    )
