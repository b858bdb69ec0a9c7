"""Log-probabilities of the tokens that transformers' generate() samples, as it samples them.

In: the model that generates. Out: one list per sequence, under the distribution that was sampled
from: after temperature, top-k and every other processor, in float32, from the cached decoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from driftscope_client.errors import MalformedStep

#: transformers puts its samplers after every processor that a caller may give; only here can we
#: run last. (output_scores would keep [tokens, sequences, vocabulary] until the end.)
PREPARE = "_get_logits_processor"


class GenerationRecorder:
    """The last logits processor; changes nothing. Holds one [sequences, vocabulary] at a time."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._previous: Any = None  # log-probabilities of the previous step, whose token comes next
        self._columns: list[Any] = []  # [sequences] each, one per token but the last
        self.error: Exception | None = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self.error is None:
            try:
                self._keep(input_ids, scores)
            except Exception as error:  # no memory left, say: generation must go on without us
                self.start()
                self.error = error
        return scores

    def _keep(self, input_ids: Any, scores: Any) -> None:
        if self._previous is not None:
            chosen = self._previous.gather(-1, input_ids[:, -1:])
            self._columns.append(chosen.squeeze(-1))
        self._previous = scores.float().log_softmax(-1)

    def logprobs(self, completion_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """One list per completion. Raises what went wrong while they were generated."""
        if self.error is not None:
            raise self.error
        longest = len(self._columns) + (self._previous is not None)
        rows = 0 if self._previous is None else len(self._previous)
        if rows != len(completion_ids) or any(len(ids) > longest for ids in completion_ids):
            raise MalformedStep(
                f"{rows} sequences of {longest} tokens were recorded, which is not what generate() "
                f"gave: {len(completion_ids)} sequences."
            )
        listed = [column.tolist() for column in self._columns]
        found = []
        for row, ids in enumerate(completion_ids):
            values = [column[row] for column in listed[: len(ids)]]
            if len(values) < len(ids):  # the last token was never an input
                values.append(float(self._previous[row, ids[-1]]))
            found.append(values)
        return found


@contextmanager
def recorded_generation(model: Any) -> Iterator[GenerationRecorder]:
    """Within, generate() of `model` is recorded; the latest call counts."""
    if hasattr(model, "get_base_model"):  # PEFT hands generate() on to the model within
        model = model.get_base_model()
    recorder = GenerationRecorder()
    prepare = getattr(model, PREPARE, None)
    if prepare is None:
        yield recorder
        return

    def prepare_recorded(*arguments: Any, **named: Any) -> Any:
        recorder.start()
        processors = prepare(*arguments, **named)
        processors.append(recorder)
        return processors

    setattr(model, PREPARE, prepare_recorded)
    try:
        yield recorder
    finally:
        delattr(model, PREPARE)
