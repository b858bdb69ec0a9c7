"""The product's session with a fault in its answers, named in the file of $PLANTED at each batch.

The engine is real; what the fault moves is the log-probabilities that it gave.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from driftscope_probes.children import child_main, serve_questions
from driftscope_probes.engines.sessions.question import Answer, Batch, Output, Row, Setup
from driftscope_probes.engines.sessions.registry import BatchEngine
from driftscope_probes.engines.sessions.run_session import Desk
from driftscope_probes.progress import ProgressSink

SIZE = 0.5  # nats on the logits: several times rounding in bf16
FAR = "far"  # behind a plant's name: twenty times as much
#: First position that errs: FA3's tile has 96 keys.
ONSET = 97

When = Callable[[Setup, Batch, Row], bool]
PLANTS: Mapping[str, When] = {
    "batch": lambda setup, batch, row: len(batch.rows) > 1,
    "decode": lambda setup, batch, row: not row.score,
    "chunks": lambda setup, batch, row: (setup.engine.chunked_prefill_tokens or 0) == 32,
    "chunks read": lambda setup, batch, row: (
        (setup.engine.chunked_prefill_tokens or 0) == 32 and bool(row.score)
    ),
    "cache": lambda setup, batch, row: setup.engine.prefix_caching is not False,
    "launch": lambda setup, batch, row: setup.process > 0,
    "replica": lambda setup, batch, row: setup.replica > 0,
    "onset": lambda setup, batch, row: True,
}


class PlantedDesk(Desk):
    def opened(self, model: Path, setup: Setup) -> BatchEngine:
        self._setup, self._undergone = setup, set[str]()
        return super().opened(model, setup)

    def answer(self, engine: BatchEngine, batch: Batch) -> Answer:
        self._undergone |= set(batch.before)
        answer = super().answer(engine, batch)
        rows = zip(batch.rows, answer.outputs, strict=True)
        return replace(answer, outputs=tuple(self._output(batch, *pair) for pair in rows))

    def _output(self, batch: Batch, row: Row, output: Output) -> Output:
        named = Path(os.environ["PLANTED"]).read_text(encoding="utf-8")
        plant = named.removesuffix(f" {FAR}")
        size = SIZE if named == plant else 20 * SIZE
        at = len(row.prompt) + np.arange(output.logprobs.size)
        errs = plant in self._undergone or (
            plant in PLANTS and PLANTS[plant](self._setup, batch, row)
        )
        from_here = at >= ONSET if plant == "onset" else np.ones_like(at, bool)
        seed = crc32(repr((row.key, row.prompt[:4], bool(row.score))).encode())
        signs = np.random.default_rng(seed).choice((-size, size), at.size)
        noise = signs * errs * from_here
        moved = output.logprobs - noise * np.expm1(output.logprobs.astype(np.float64))
        return Output(output.token_ids, np.minimum(moved, 0.0).astype(np.float32))


def run(request: dict[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    serve_questions(PlantedDesk(Path(request["model_path"])).reply, progress)
    return {}


if __name__ == "__main__":
    child_main(run)
