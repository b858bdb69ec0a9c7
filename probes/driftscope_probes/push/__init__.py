"""What an RL trainer pushes for one step: files in the push format → PushedStep. Free of torch."""

from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.readers.base import StepFormat
from driftscope_probes.push.rules import PushError
from driftscope_probes.push.step_file import FORMATS, read_step

__all__ = ["FORMATS", "PushError", "PushedStep", "StepFormat", "read_step"]
