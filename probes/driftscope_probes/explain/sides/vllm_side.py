"""The engine's side: the real vLLM in this process, its layers seen while it samples or reads.

In: a RolloutTask. Out: the sample that it draws, and runs of it through a tap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from driftscope_kernels.compare_ops.parameters import Parameters
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.vllm_in_process import VllmInProcess
from driftscope_probes.errors import EngineError
from driftscope_probes.explain.request import Phase
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sides.base import Received, SideName
from driftscope_probes.explain.sides.engine_weights import Recovered, engine_parameters
from driftscope_probes.explain.sides.overrides import Overrides
from driftscope_probes.explain.sides.ran import engine_ran
from driftscope_probes.explain.sides.read_tokens import ReadTokens
from driftscope_probes.explain.sides.vllm_places import met, uncovered
from driftscope_probes.explain.sites import Place, Site
from driftscope_probes.explain.taps import Tap

FORCED: Final = "driftscope_forced"


class ForcedTokens(AdapterLogitsProcessor):  # type: ignore[misc]
    """Samples the tokens that a request names: log-probabilities are taken before it works."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(
        self, params: SamplingParams
    ) -> Callable[[list[int], Tensor], Tensor] | None:
        forced = (params.extra_args or {}).get(FORCED)
        return None if forced is None else partial(_only, forced)


def _only(forced: Sequence[int], output: list[int], logits: Tensor) -> Tensor:
    alone = torch.full_like(logits, -torch.inf)
    alone[forced[len(output)]] = 0.0
    return alone


class VllmSide:
    name: SideName = "engine"

    def __init__(self, task: RolloutTask, phase: Phase) -> None:
        """Loads the engine. Raises ProbeError."""
        self._recovered = Recovered()
        self._seen: _Seen | None = None
        self._alone = False
        self._seed = task.sampling.seed
        self._task, self._phase = task, phase
        self._engine = VllmInProcess(task, logits_processors=(ForcedTokens,))
        self.model: Any = self._engine.llm.apply_model(lambda model: model)[0]
        self._runner: Any = self._engine.llm.collective_rpc(lambda worker: worker.model_runner)[0]
        if not hasattr(self.model, "model") or not hasattr(self.model.model, "layers"):
            raise EngineError(
                f"{type(self.model).__name__} is not built as a decoder with layers.",
                remedy="explain a dense or mixture decoder such as Llama, Qwen, Mistral or Gemma.",
            )

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._engine.llm.vllm_config.model_config.dtype
        return dtype

    def reseed(self, seed: int) -> None:
        """What is drawn from now on is drawn with it, instead of the task's seed."""
        self._seed = seed

    def draw(self) -> Sample:
        """Responses as the task's sampling draws them."""
        task = self._task
        prompts = [list(task.prompts.ids(index)) for index in range(len(task.prompts))]
        asked = [self._engine.sampling_params(index) for index in range(len(prompts))]
        for index, one in enumerate(asked):
            one.seed = self._seed + index
            one.output_kind = RequestOutputKind.FINAL_ONLY
        answers = self._finished(prompts, asked)
        responses = tuple(tuple(answer.outputs[0].token_ids) for answer in answers)
        return Sample(tuple(map(tuple, prompts)), responses)

    def run(self, sample: Sample, tap: Tap | None, *, alone: bool = False) -> NDArray[np.float32]:
        """`alone`: one sequence after another, instead of all at once."""
        self._alone = alone
        with Overrides() as overrides:
            if tap is not None:
                seen = self._seen = _Seen(self._runner, sample, tap)
                overrides.enter_context(met(self.model, seen.meet))
                overrides.wrap(self.model, "forward", seen.begins)
                overrides.wrap(self.model.logits_processor, "forward", seen.heads)
            self._engine.llm.reset_prefix_cache()
            values = self._prefill(sample) if self._phase == "prefill" else self._decode(sample)
        if tap is not None:
            rows = torch.from_numpy(sample.scored)
            tap.at(Place(None, "logprob"), torch.from_numpy(values)[:, None], rows)
        return values

    def _decode(self, sample: Sample) -> NDArray[np.float32]:
        answers = self._finished(
            [list(prompt) for prompt in sample.prompts],
            [_forced(list(response)) for response in sample.responses],
        )
        found = [
            step[token].logprob
            for answer, response in zip(answers, sample.responses, strict=True)
            for token, step in zip(response, answer.outputs[0].logprobs, strict=True)
        ]
        return np.array(found, np.float32)

    def _prefill(self, sample: Sample) -> NDArray[np.float32]:
        """Everything but a sequence's last token is its prompt, so that no row is read twice."""
        sequences = [list(sample.sequence(index)) for index in range(len(sample.prompts))]
        answers = self._finished(
            [sequence[:-1] for sequence in sequences],
            [_forced(sequence[-1:], prompt_logprobs=0) for sequence in sequences],
        )
        found: list[float] = []
        for answer, prompt, response in zip(answers, sample.prompts, sample.responses, strict=True):
            steps = [*answer.prompt_logprobs[len(prompt) :], *answer.outputs[0].logprobs]
            found += [step[token].logprob for token, step in zip(response, steps, strict=True)]
        return np.array(found, np.float32)

    def _finished(self, prompts: list[list[int]], asked: list[SamplingParams]) -> list[Any]:
        llm = self._engine.llm
        done: dict[int, Any] = {}
        for index, (prompt, params) in enumerate(zip(prompts, asked, strict=True)):
            request = {"prompt_token_ids": prompt}
            llm.add_request(str(index), request, params, lora_request=self._engine.lora)
            if self._alone:
                done |= self._until_idle()
        done |= self._until_idle()
        return [done[index] for index in range(len(prompts))]

    def _until_idle(self) -> dict[int, Any]:
        """Finished requests, by number."""
        llm = self._engine.llm
        done: dict[int, Any] = {}
        while llm.has_unfinished_requests():
            for output in llm.step():
                if output.finished:
                    done[int(output.request_id)] = output
        return done

    def weights_changed(self) -> None:
        """What was read of packed weights is of weights that are no longer there."""
        self._recovered = Recovered()

    @property
    def received(self) -> Received:
        assert self._seen is not None, "nothing was run through a tap yet"
        return self._seen.received

    def logprobs(self, logits: Tensor) -> Tensor:
        """By its sampler's own function, as temperature 1 leaves the logits."""
        found: Tensor = self._runner.sampler.compute_logprobs(logits)
        return found

    def parameters(self, site: Site) -> Parameters | None:
        config = self._engine.llm.vllm_config
        return engine_parameters(self.model, config, site, self._recovered)

    def facts(self) -> Mapping[str, Any]:
        return {**self._engine.used_settings(), **engine_ran(self.model)}

    @property
    def uncovered(self) -> list[str]:
        return uncovered(self.model)


def _forced(tokens: list[int], prompt_logprobs: int | None = None) -> SamplingParams:
    return SamplingParams(
        max_tokens=len(tokens),
        temperature=0.0,
        ignore_eos=True,
        logprobs=0,
        prompt_logprobs=prompt_logprobs,
        detokenize=False,
        extra_args={FORCED: tokens},
    )


class _Seen:
    """Which rows of the sample a forward pass of the engine holds."""

    def __init__(self, runner: Any, sample: Sample, tap: Tap) -> None:
        self._runner, self._sample, self._tap = runner, sample, tap
        self._read = ReadTokens(sample)
        self._rows = torch.empty(0, dtype=torch.int64)  # of the pass
        self._last = self._rows  # of them, those of each request's last token
        self._hidden: Tensor | None = None  # what the pass gave

    @property
    def received(self) -> Received:
        return self._read.received()

    def begins(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(input_ids: Tensor, positions: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._locate(input_ids, positions)
            self._hidden = own(input_ids, positions, *args, **kwargs)
            return self._hidden

        return forward

    def _locate(self, input_ids: Tensor, read_at: Tensor) -> None:
        """A request's tokens stand in its cache one after another, wherever it says they are."""
        batch = self._runner.input_batch
        count = batch.num_reqs
        starts = self._runner.query_start_loc.np[: count + 1]
        # vLLM adds a suffix of its own to the name of a request.
        sequences = [int(name.partition("-")[0]) for name in batch.req_ids[:count]]
        done = batch.num_computed_tokens_cpu[:count]
        counts = np.diff(starts)
        first = np.repeat(self._sample.cu_seqlens[sequences] + done - starts[:-1], counts)
        rows = first + np.arange(int(starts[-1]))
        self._rows = torch.from_numpy(rows)
        count_read = len(rows)
        self._read.add(
            rows, input_ids[:count_read].cpu().numpy(), read_at[:count_read].cpu().numpy()
        )
        self._last = self._rows[torch.from_numpy(starts[1:] - 1).long()]

    def meet(self, place: Place, value: Tensor) -> Tensor:
        """Behind the rows of a pass there may be padding."""
        count = len(self._rows)
        if len(value) == count:
            return self._tap.at(place, value, self._rows)
        seen = self._tap.at(place, value[:count], self._rows)
        return torch.cat([seen, value[count:]])

    def heads(self, own: Callable[..., Any]) -> Callable[..., Any]:
        """The head reads some rows: a slice of the pass's output, or each request's last."""

        def forward(head: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            logits = own(head, hidden, *args, **kwargs)
            rows = self._rows_of(hidden)
            wanted = torch.isin(rows, torch.from_numpy(self._sample.scored))
            if logits is None or not bool(wanted.any()):
                return logits
            seen = self._tap.at(Place(None, "logits"), logits[wanted], rows[wanted])
            # A copy: what comes back may be read elsewhere too.
            logits = logits.clone()
            logits[wanted] = seen
            return logits

        return forward

    def _rows_of(self, hidden: Tensor) -> Tensor:
        whole = self._hidden
        assert whole is not None, "the head was called before the model"
        if hidden.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr():
            first = (hidden.storage_offset() - whole.storage_offset()) // whole.stride(0)
            return self._rows[first : first + len(hidden)]
        assert len(hidden) == len(self._last), "the head reads rows that are not known"
        return self._last
