"""Numbers of a run's steps → Drift: which of them shifted, which are trending, and where."""

from driftscope_probes.drift.drift import SERIES, Drift, StepValues, drift_of

__all__ = ["SERIES", "Drift", "StepValues", "drift_of"]
