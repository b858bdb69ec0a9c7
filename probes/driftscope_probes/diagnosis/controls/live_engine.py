"""LiveEngine: the engine side of a diagnosis, in processes of its own or behind a URL.

In: Sides and an EngineChange. Out: what the engine samples, with its log-probabilities. Free of
torch: engines run in child processes, which are started when they are first asked.

The engine as it is stays up while others come and go beside it, so that it is the same launch that
answers before and after a control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ValidationError

from driftscope_probes.diagnosis.controls.engine_folders import EngineFolders
from driftscope_probes.diagnosis.controls.sides import (
    OTHER_LAUNCH,
    EngineChange,
    Logprobs,
    Routed,
    Sampled,
    Sequences,
    Sides,
    Tokens,
)
from driftscope_probes.engines.sessions.question import Answer, Batch, Draw, Row, Setup
from driftscope_probes.engines.sessions.runners import MODULE, EngineRunner, ServerRunner
from driftscope_probes.engines.settings import EngineSettings
from driftscope_probes.errors import RequestError

#: As many sequences run together by default as in the paired probe.
MOST_TOGETHER: Final = 256


class LiveEngine:
    """An EngineSide."""

    def __init__(self, sides: Sides, workdir: Path, module: str = MODULE) -> None:
        """`module`: the child process of an engine of ours; drills have others."""
        self._sides = sides
        self._folders = EngineFolders(sides, workdir / "weights")
        self._context = 0
        self._first: EngineRunner | ServerRunner
        if self.on_server:
            self._first = ServerRunner(sides.engine_model)
        else:
            self._first = EngineRunner(sides.engine_model, workdir / "first", module)
            self._other = EngineRunner(sides.engine_model, workdir / "other", module)

    @property
    def on_server(self) -> bool:
        return self._sides.engine.kind == "vllm-server"

    def sample(self, change: EngineChange) -> Sampled:
        """Respond to the sides' prompts. Raises ProbeError."""
        sampling = self._sides.sampling
        greedy = change.greedy or sampling.temperature == 0.0
        # Its own seed for each prompt: a token never depends on the batch.
        seeds = [None if greedy else sampling.seed + i for i in range(len(self._sides.prompts))]
        return self._respond(self._sides.prompts, seeds, sampling.max_tokens, change)

    def respond(self, prompts: Tokens, max_tokens: int, change: EngineChange) -> Sampled:
        """Respond to other prompts, greedily. Raises ProbeError."""
        return self._respond(prompts, [None] * len(prompts), max_tokens, change)

    def _respond(
        self,
        prompts: Tokens,
        seeds: Sequence[int | None],
        max_tokens: int,
        change: EngineChange,
    ) -> Sampled:
        rows = [
            Row(f"prompt {index}", prompt, seed=seed)
            for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        answers = self._ask(rows, max_tokens, change)
        outputs = [output for answer in answers for output in answer.outputs]
        cached = [answer.cached_tokens for answer in answers]
        return Sampled(
            Sequences(prompts, tuple(tuple(output.token_ids.tolist()) for output in outputs)),
            np.concatenate([output.logprobs for output in outputs]),
            None if None in cached else sum(tokens or 0 for tokens in cached),
        )

    def rescore(self, sequences: Sequences, change: EngineChange) -> Logprobs:
        """Read given responses as part of the prompt. Raises ProbeError."""
        answers = self._ask(_read(sequences), 1, change)
        return np.concatenate([output.logprobs for one in answers for output in one.outputs])

    def rescore_routed(self, sequences: Sequences, change: EngineChange) -> Routed:
        """As `rescore`, one sequence at a time, with the experts. Raises ProbeError.

        Every response has a token.
        """
        if self.on_server:
            raise RequestError(
                "the routers of a running server cannot be seen.",
                remedy="let the probe start the engine itself: engine vllm.",
            )
        answers = self._ask(_read(sequences), 1, change, routes=True)
        outputs = [output for answer in answers for output in answer.outputs]
        return Routed(
            np.concatenate([output.logprobs for output in outputs]),
            tuple(output.routes for output in outputs if output.routes is not None),
        )

    def _ask(
        self,
        rows: Sequence[Row],
        max_tokens: int,
        change: EngineChange,
        *,
        routes: bool = False,
    ) -> list[Answer]:
        longest = max(len(row.prompt) + len(row.score) for row in rows)
        self._context = max(self._context, longest + max_tokens + 1, self._own_context)
        setup = self._setup(change)
        runner = self._runner(setup, change)
        together = change.rows or len(rows)
        answers = []
        for start in range(0, len(rows), together):
            batch = Batch(
                tuple(rows[start : start + together]),
                max_tokens,
                warm=change.warm,
                run=change.again,
                draw=self._draw,
                before=change.before,
                routes=routes,
            )
            answers.append(runner.run(setup, batch))
        return answers

    @property
    def _own_context(self) -> int:
        # And two: a token is decoded behind a text that is read, and vLLM wants room for one more.
        return max(map(len, self._sides.prompts)) + self._sides.sampling.max_tokens + 2

    @property
    def _draw(self) -> Draw:
        sampling = self._sides.sampling
        return Draw(sampling.temperature, sampling.top_p, sampling.top_k, sampling.ignore_eos)

    def _runner(self, setup: Setup, change: EngineChange) -> EngineRunner | ServerRunner:
        if self.on_server or setup.process == 0:
            return self._first
        if not self._room_for_two(setup):
            self._first.close()
        return self._other

    def _room_for_two(self, setup: Setup) -> bool:
        """A GPU's engine takes most of its memory, unless it was told how much."""
        devices = {engine.get("device") for engine in self._first.engines}
        return devices <= {"cpu"} or setup.engine.kv_cache_gib is not None

    def _setup(self, change: EngineChange) -> Setup:
        self._check(change)
        folder = self._folders.of(change)
        setup = Setup(
            dtype=change.dtype or self._sides.engine_dtype,
            engine=self._settings(change),
            context=self._context,
            replica=change.replica,
            model=None if folder.model == self._sides.engine_model else str(folder.model),
            adapter=folder.adapter,
        )
        as_is = EngineChange()
        own = self._sides.engine_dtype, self._settings(as_is), self._folders.of(as_is)
        as_it_is = (setup.dtype, setup.engine, folder) == own and not change.before
        return replace(setup, process=change.launch or (0 if as_it_is else OTHER_LAUNCH))

    def _check(self, change: EngineChange) -> None:
        other_weights = change.weights != "engine" or change.adapter != "as_is"
        restarted = change.settings or change.dtype or change.launch or change.replica
        if self.on_server and (restarted or change.before or other_weights):
            raise RequestError(
                "a running server was asked to run with other settings or weights, in another "
                "launch, or after a sleep or reload.",
                remedy="let the probe start the engine itself: engine vllm.",
            )

    def _settings(self, change: EngineChange) -> EngineSettings:
        own = self._sides.engine
        together = own.batch_size or min(len(self._sides.prompts), MOST_TOGETHER)
        fields = own.model_dump() | {"batch_size": together} | dict(change.settings)
        try:
            return EngineSettings(**fields)
        except ValidationError as error:
            raise RequestError(
                f"the engine cannot run with {dict(change.settings)}: {error.errors()[0]['msg']}",
                remedy="leave the control out for this engine.",
            ) from error

    def close(self) -> None:
        self._first.close()
        if not self.on_server:
            self._other.close()
        self._folders.close()


def _read(sequences: Sequences) -> list[Row]:
    pairs = zip(sequences.prompts, sequences.responses, strict=True)
    return [
        Row(f"prompt {index}", prompt, score=response)
        for index, (prompt, response) in enumerate(pairs)
        if response  # one that is empty has nothing to be read
    ]
