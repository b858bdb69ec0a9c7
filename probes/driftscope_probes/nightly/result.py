"""A night as a whole: what the command prints and the history keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from driftscope_probes.nightly.changes import JudgedItem
from driftscope_probes.nightly.environment_change import Change

SCHEMA = "1"


@dataclass(frozen=True, slots=True)
class NightlyResult:
    exit_code: int  # 0 as expected, 1 something changed, 2 something could not be run
    started_at: str
    finished_at: str
    config_name: str
    config_sha256: str
    key: Mapping[str, Any]  # {"hardware", "versions"}
    items: tuple[JudgedItem, ...]
    alarms: tuple[str, ...]  # a line for each reason of exit code 1
    changes: tuple[Change, ...]
    environment: Mapping[str, Any]
    resumed: int  # items that an interrupted start of the same night had finished
    budget_s: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA,
            "kind": "nightly",
            "exit_code": self.exit_code,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "config": {"name": self.config_name, "sha256": self.config_sha256},
            "key": dict(self.key),
            "alarms": list(self.alarms),
            "items": [item.to_dict() for item in self.items],
            "changed_environment": [change.to_dict() for change in self.changes],
            "environment": dict(self.environment),
            "resumed": self.resumed,
            "budget_s": self.budget_s,
            "notes": list(self.notes),
        }
