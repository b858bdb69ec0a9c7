from collections.abc import Callable
from pathlib import Path

import pytest

from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.prompts import PromptBatch

PROMPTS = PromptBatch.from_lists([[5, 6, 7], [300, 301], [40, 41, 42, 43, 44], [9]])
SAMPLING_NAMES = frozenset(SamplingSettings.model_fields)

MakeTask = Callable[..., RolloutTask]


@pytest.fixture
def make_task(tiny_llama: Path) -> MakeTask:
    """A small task on the tiny Llama; keyword arguments are engine or sampling settings."""

    def make(
        kind: str, dtype: str = "fp32", model: Path | None = None, **fields: object
    ) -> RolloutTask:
        sampling = {name: value for name, value in fields.items() if name in SAMPLING_NAMES}
        engine = {name: value for name, value in fields.items() if name not in SAMPLING_NAMES}
        return RolloutTask(
            model_path=model or tiny_llama,
            model_name="tiny",
            dtype=dtype,  # type: ignore[arg-type]
            prompts=PROMPTS,
            sampling=SamplingSettings(**{"max_tokens": 12, **sampling}),
            engine=EngineSettings(kind=kind, threads=1, **engine),
        )

    return make
