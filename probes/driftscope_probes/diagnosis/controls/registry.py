"""All controls. Adding one takes its file and a line here.

In: nothing. Out: CONTROLS, in the order in which a user would try them without a planner.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.controls.base import Control

CONTROLS: tuple[Control, ...] = ()
BY_NAME: dict[str, Control] = {control.name: control for control in CONTROLS}
