"""Pushes the steps of a TRL trainer: a mixin that records what generation said."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from driftscope_client.answer import ALERT_LEVELS, StepDiagnosis
from driftscope_client.client import DriftscopeClient
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
                f"gave: {len(completion_ids)} sequences.",
                remedy="sample one sequence per row without beams, or set use_vllm=True.",
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


@dataclass(slots=True)
class Generation:
    step: int  # optimiser steps done so far, which is also the version of the weights
    expected: int = 0  # micro-batches
    weights: str | None = None  # what a look at the weights of both sides found, as text
    batches: list[dict[str, Any]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.batches) >= self.expected

    def tensors(self) -> dict[str, Any]:
        import torch

        longest = max(batch["mask"].shape[1] for batch in self.batches)

        def joined(name: str) -> Any:
            rows = [batch[name] for batch in self.batches]
            if rows[0].dim() == 1:
                return torch.cat(rows)
            widened = [torch.nn.functional.pad(row, (0, longest - row.shape[1])) for row in rows]
            return torch.cat(widened)

        names = set.intersection(*(set(batch) for batch in self.batches))
        tensors = {name: joined(name) for name in sorted(names)}
        sequences = tensors["mask"].shape[0]
        versions = torch.full((sequences,), self.step, dtype=torch.int32)
        return {**tensors, "behavior_version": versions}


def micro_batch(
    inputs: Mapping[str, Any], rollout: Any, scored: Any, *, with_entropy: bool
) -> dict[str, Any]:
    """`scored`: log-probabilities and entropies of the loss's forward, both [sequences, longest].

    Without old_per_token_logps, TRL takes those of this very forward for them.
    """
    old, mask, advantages = (
        inputs.get("old_per_token_logps"),
        inputs["completion_mask"],
        inputs["advantages"],
    )
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1)
    prompt_lengths = inputs["prompt_mask"].sum(dim=1, keepdim=True)
    batch = {
        "rollout_logprobs": rollout,
        "trainer_logprobs": scored[0].detach() if old is None else old,
        "mask": mask * inputs["tool_mask"] if "tool_mask" in inputs else mask,
        "token_ids": inputs["completion_ids"],
        "advantages": advantages.expand_as(mask),
        "position_ids": prompt_lengths + mask.new_ones(mask.shape).cumsum(dim=1) - 1,
        "prompt_lengths": prompt_lengths.squeeze(1),
    }
    if with_entropy and scored[1] is not None:
        batch["entropy"] = scored[1].detach()
    return batch


#: Our own column in TRL's batch: shuffled and split with the others, and read only by us.
RECORDED = "driftscope_rollout_logprobs"


class DriftscopeMixin:
    """`class Trainer(DriftscopeMixin, GRPOTrainer): pass`, then use Trainer as GRPOTrainer.

    The client comes from DRIFTSCOPE_URL, DRIFTSCOPE_RUN and DRIFTSCOPE_API_KEY, or is set before
    training: `trainer.driftscope = DriftscopeClient(…)`. Steps are numbered as TRL's global_step at
    the time of generation. `driftscope_metadata` is pushed with each step.

    Rollout side: what the engine returned (vLLM, or a rollout_func); under transformers' generate()
    what it sampled from, recorded on the way. Not recorded, and so not pushed: transformers'
    continuous batching, and tools under generate(). Trainer side: TRL's old_per_token_logps, or
    where TRL does not compute them because the weights are still the same, those of its loss.
    """

    driftscope: DriftscopeClient | None = None
    driftscope_metadata: Mapping[str, object] = {}
    _driftscope_generation: Generation | None = None
    _driftscope_recorded: Any = None  # (recorder, completion ids)
    _driftscope_server: Mapping[str, Any] | None = None  # model_config of a vLLM server
    _driftscope_alerted: StepDiagnosis | None = None  # the latest that was looked at for an alert
    _driftscope_scored: Any = None  # (log-probabilities, entropies, …) of the latest forward

    def train(self: Any, *arguments: Any, **named: Any) -> Any:
        """As TRL's. Raises DriftscopeError at once where no run is named; waits for the pushes, and
        says that the run has ended: another train() resumes it with its first step. With
        resume_from_checkpoint it is a new attempt of the run."""
        if self.driftscope is None:
            self.driftscope = DriftscopeClient()
        if self.accelerator.is_main_process:
            print(f"driftscope: the page of this run is {self.driftscope.page_url}", flush=True)
        if named.get("resume_from_checkpoint", arguments[:1] and arguments[0]):
            # Every rank needs the same name; the first push says from which step on.
            self.driftscope.begin_attempt(_agreed(str(uuid.uuid4())))
        result = super().train(*arguments, **named)  # type: ignore[misc]
        with self.driftscope.undisturbed(self.state.global_step):
            _push(self)
        self.driftscope.finish()
        return result

    def log(self: Any, logs: dict[str, float], *arguments: Any, **named: Any) -> None:
        """As TRL's, with what the service last said of a step: see DriftscopeClient.metrics. Where
        Trackio is the logger, a verdict that is new and bad is an alert there as well."""
        if self.driftscope is not None and self.model.training:
            with self.driftscope.undisturbed(self.state.global_step):
                latest = _latest(self)
                logs = {**logs, **({} if latest is None else latest.metrics())}
                _alert(self, latest)
        super().log(logs, *arguments, **named)  # type: ignore[misc]

    def _generate_single_turn(self: Any, *arguments: Any, **named: Any) -> Any:
        self._driftscope_recorded = None
        elsewhere = ("use_vllm", "use_transformers_continuous_batching", "tools")
        if any(getattr(self, name, None) for name in elsewhere):
            return super()._generate_single_turn(*arguments, **named)  # type: ignore[misc]
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with recorded_generation(model) as recorder:
            completion_ids, logprobs = super()._generate_single_turn(  # type: ignore[misc]
                *arguments, **named
            )
        self._driftscope_recorded = (recorder, completion_ids)
        return completion_ids, logprobs

    def _generate_and_score_completions(self: Any, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        recorded, self._driftscope_recorded = self._driftscope_recorded, None
        if self.driftscope is not None and self.model.training:
            with self.driftscope.undisturbed(self.state.global_step):
                if recorded is not None and "sampling_per_token_logps" not in batch:
                    rows = recorded[0].logprobs(recorded[1])
                    batch[RECORDED] = _padded(rows, batch["completion_mask"])
                _begin(self)
        return batch

    def _get_per_token_logps_and_entropies(self: Any, *arguments: Any, **named: Any) -> Any:
        self._driftscope_scored = super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
            *arguments, **named
        )
        return self._driftscope_scored

    def _compute_loss(self: Any, model: Any, inputs: Any) -> Any:
        loss = super()._compute_loss(model, inputs)  # type: ignore[misc]
        scored, self._driftscope_scored = self._driftscope_scored, None
        if self.driftscope is not None and self.model.training:
            with self.driftscope.undisturbed(self.state.global_step):
                _collect(self, inputs, scored)
        return loss


def _padded(rows: Sequence[Sequence[float]], like: Any) -> Any:
    """[sequences, longest] as float32, 0 where there is no token."""
    import torch

    padded = torch.zeros(like.shape, dtype=torch.float32)
    for row, values in enumerate(rows):
        padded[row, : len(values)] = torch.tensor(values)
    return padded.to(like.device)


def _agreed(text: str) -> str:
    """That of the first rank, on all of them."""
    from accelerate.utils import broadcast_object_list

    texts: list[str] = broadcast_object_list([text])
    return texts[0]


def _latest(trainer: Any) -> StepDiagnosis | None:
    """Of all ranks: the answer to a step goes to the rank whose shard came last, and the first
    rank is the one that logs. Every rank calls this, as every rank calls log()."""
    own: StepDiagnosis | None = trainer.driftscope.last_diagnosis
    if trainer.accelerator.num_processes == 1:
        return own
    from accelerate.utils import gather_object

    return max(
        (one for one in gather_object([own]) if one is not None),
        key=lambda one: one.step,
        default=None,
    )


def _alert(trainer: Any, latest: StepDiagnosis | None) -> None:
    before, trainer._driftscope_alerted = trainer._driftscope_alerted, latest
    if latest is None or "trackio" not in trainer.args.report_to:
        return
    if trainer.is_world_process_zero() and latest.is_news_after(before):
        import trackio

        title = f"driftscope: {latest.verdict} at step {latest.step}"
        level = trackio.AlertLevel[ALERT_LEVELS[latest.verdict]]
        trackio.alert(title, latest.sentence, level)


def _micro_steps_per_generation(trainer: Any) -> int:
    return int(trainer.args.steps_per_generation * trainer.num_iterations)


def _begin(trainer: Any) -> None:
    """TRL may generate several times between two optimiser steps: one step, to us."""
    generation, step = trainer._driftscope_generation, trainer.state.global_step
    if generation is None or generation.step != step:
        _push(trainer)
        generation = trainer._driftscope_generation = Generation(step, weights=_weights(trainer))
    generation.expected += trainer.args.steps_per_generation


def _weights(trainer: Any) -> str | None:
    """Where the trainer can look at the engine's weights: OnPolicyMixin of driftscope_kernels does.

    Of this moment: the engine has just answered, and the trainer has not made its next step yet.
    """
    look = getattr(trainer, "weights_digest", None)
    found = None if look is None else look()
    return None if found is None else str(found)


def _collect(trainer: Any, inputs: Mapping[str, Any], scored: Any) -> None:
    """One micro-batch of the loss; of num_iterations, the first."""
    generation = trainer._driftscope_generation
    rollout = inputs.get("sampling_per_token_logps", inputs.get(RECORDED))
    if generation is None or generation.complete or rollout is None:
        return
    accumulated, per_generation = (
        trainer.args.gradient_accumulation_steps,
        _micro_steps_per_generation(trainer),
    )
    # Otherwise the weights have moved on by the time of the later micro-batches.
    same_weights = accumulated % per_generation == 0
    generation.batches.append(micro_batch(inputs, rollout, scored, with_entropy=same_weights))
    if generation.complete and per_generation >= accumulated:  # no other with the same step
        _push(trainer)


def _push(trainer: Any) -> None:
    """Push what was collected; nothing if the rollout side is unknown."""
    generation, trainer._driftscope_generation = trainer._driftscope_generation, None
    if generation is None or not generation.batches:
        return
    rank, ranks = trainer.accelerator.process_index, trainer.accelerator.num_processes
    tensors = generation.tensors()
    tensors["rank"] = tensors["behavior_version"].new_full(tensors["behavior_version"].shape, rank)
    metadata = {
        **_metadata(trainer, generation.step),
        "weights_digest": generation.weights,
        **trainer.driftscope_metadata,
    }
    if ranks == 1:
        trainer.driftscope.push(generation.step, metadata=metadata, **tensors)
    else:
        trainer.driftscope.push_shard(generation.step, rank, ranks, metadata=metadata, **tensors)


def _metadata(trainer: Any, step: int) -> dict[str, object]:
    engine = "vllm" if trainer.use_vllm else "transformers"
    return {
        "framework": "trl",
        "model": trainer.model.config._name_or_path or None,
        "engine": "rollout_func" if trainer.rollout_func is not None else engine,
        # TRL asks vLLM for these; what transformers samples from is recorded after its processors.
        "logprobs_mode": None if trainer.rollout_func is not None else "processed_logprobs",
        "rollout_dtype": _rollout_dtype(trainer),
        "trainer_dtype": _dtype(trainer),
        "temperature": trainer.args.temperature,
        "trainer_temperature": trainer.args.temperature,  # the loss divides by it, too
        "top_p": trainer.args.top_p,
        "top_k": trainer.args.top_k,
        "min_p": trainer.args.min_p or 0.0,  # None: off
        "weights_version": step,
    }


def _dtype(trainer: Any) -> str:
    """Dtype of the weights; `autocast-…` if the forward runs in another."""
    short = _short(next(trainer.model.parameters()).dtype)
    forward = "bf16" if trainer.args.bf16 else "fp16" if trainer.args.fp16 else short
    return short if forward == short else f"autocast-{forward}"


def _short(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(name, name)


def _rollout_dtype(trainer: Any) -> str | None:
    """None where only the user knows: a rollout_func, and a vLLM server of several processes."""
    if trainer.rollout_func is not None:
        return None
    if not trainer.use_vllm:
        # generate() runs the very model that is trained, through the same (autocast) forward.
        return _dtype(trainer)
    generation = trainer.vllm_generation
    if trainer.vllm_mode == "colocate":
        settings = generation.llm.llm_engine.model_config
        return settings.quantization or _short(settings.dtype)
    # Only the main process talks to the server, and every rank's metadata have to be the same.
    if trainer.accelerator.num_processes > 1:
        return None
    if trainer._driftscope_server is None:
        trainer._driftscope_server = generation.vllm_client.get_server_info()["model_config"]
    settings = trainer._driftscope_server
    return settings.get("quantization") or _short(settings["dtype"])
