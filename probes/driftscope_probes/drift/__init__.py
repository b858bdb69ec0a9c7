"""Numbers of a run's steps → Drift: which of them shifted, which are trending, and where."""

from driftscope_probes.drift.drift import SERIES, Drift, StepValues, drift_of
from driftscope_probes.drift.events import Event, NumberMoved

__all__ = ["SERIES", "Drift", "Event", "NumberMoved", "StepValues", "drift_of"]
