"""Lab: a real engine and a real trainer of one model, small enough to be broken hundreds of times.

In: a model folder and two dtypes. Out: sampled responses with the log-probabilities of a decode
loop, the trainer's teacher-forced ones, and both as a pushed step.

The engine decodes left-padded batches with a KV cache; the trainer runs one full forward over
right-padded ones: other shapes, other kernels, as in life. Both take log_softmax in float32 of the
logits in the model's dtype, as vLLM does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from driftscope_probes.dtypes import TORCH_NAMES, Dtype
from driftscope_probes.errors import RequestError
from driftscope_probes.prompts import DEMO_PROMPTS
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.tokenization import tokenize

Prompts = tuple[tuple[int, ...], ...]
GROUP = 4  # responses to one prompt, whose rewards are normalised together as GRPO does
#: Answers have different lengths: each is cut at a length drawn between this fraction and the most.
SHORTEST_RESPONSE = 0.4
PAD = 0  # any id: padding is masked
#: As many weight versions as a run has made before the step that is pushed.
WEIGHTS_VERSION = 20


@dataclass(frozen=True, slots=True)
class Sampling:
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    min_p: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """What an engine answers. logprobs[i]: float32 [len(responses[i])] nats, as it reports them."""

    prompts: Prompts
    responses: Prompts
    logprobs: tuple[NDArray[np.float32], ...]
    sampling: Sampling
    processed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What a trainer computes for a Sampled, in its order, packed."""

    logprobs: NDArray[np.float32]  # [tokens] nats
    entropy: NDArray[np.float32]  # [tokens] nats, over all classes


#: Cache, padding on the left of each row [rows], and the columns that the last forward added.
CacheFault = Callable[[Any, Tensor, range], None]


@dataclass(frozen=True, slots=True)
class Decoding:
    """What may go wrong inside a decode loop; the default is a loop without faults."""

    #: Attends to the padding on the left, as an engine without an attention mask.
    attend_padding: bool = False
    #: Another model ran the first `cached_tokens` of each prompt [sequences], and its keys and
    #: values are used: a prefix cache that was filled by other weights.
    cache_model: Any = None
    cached_tokens: NDArray[np.int64] | None = None
    #: Response token from which on `later_model` decodes, on the cache that is there.
    swap_at: int | None = None
    later_model: Any = None
    #: Called after each forward.
    on_cache: CacheFault | None = None


class Lab:
    """`seed` draws rewards and response lengths. Raises ModelError for a folder without a model."""

    def __init__(
        self, model_folder: Path, rollout_dtype: Dtype, trainer_dtype: Dtype, seed: int
    ) -> None:
        self.model_folder = model_folder
        self.rollout_dtype: Dtype = rollout_dtype
        self.trainer_dtype: Dtype = trainer_dtype
        self.seed = seed

    def engine(self, *, fresh: bool = False) -> Any:
        """The engine's model; `fresh`: a copy that may be damaged."""
        return _model(self.model_folder, self.rollout_dtype, fresh)

    def trainer(self, *, fresh: bool = False) -> Any:
        """The trainer's model; `fresh`: a copy that may be damaged."""
        return _model(self.model_folder, self.trainer_dtype, fresh)

    def prompts(self, count: int, seed: int = 0, context: int = 0) -> Prompts:
        """`count` prompts, each GROUP times. `context`: every other prompt gets earlier questions
        in front until it has so many tokens, the rest stay short."""
        rng = np.random.default_rng([self.seed, seed])
        distinct = -(-count // GROUP)
        texts = [
            DEMO_PROMPTS[int(index)] for index in rng.integers(len(DEMO_PROMPTS), size=distinct)
        ]
        batch = tokenize(self.model_folder, texts, chat_template=None)
        lists = [batch.ids(index) for index in range(distinct)]
        if context:
            pool = tokenize(self.model_folder, DEMO_PROMPTS, chat_template=None)
            for index in range(0, distinct, 2):
                while len(lists[index]) < context:
                    lists[index] = pool.ids(int(rng.integers(len(pool)))) + lists[index]
        return tuple(tuple(lists[index // GROUP]) for index in range(count))

    @torch.inference_mode()
    def roll_out(
        self,
        model: Any,
        prompts: Prompts,
        sampling: Sampling,
        *,
        processed: bool,
        batch: int | None = None,
        seed: int = 0,
        decoding: Decoding = Decoding(),
    ) -> Sampled:
        """Sample one response per prompt, `batch` at a time (None: all together)."""
        rng = np.random.default_rng([self.seed, seed, 1])
        shortest = max(1, int(sampling.max_tokens * SHORTEST_RESPONSE))
        lengths = rng.integers(shortest, sampling.max_tokens + 1, size=len(prompts))
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        size = batch or len(prompts)
        responses: list[tuple[int, ...]] = []
        logprobs: list[NDArray[np.float32]] = []
        for start in range(0, len(prompts), size):
            rows = slice(start, start + size)
            cached = None if decoding.cached_tokens is None else decoding.cached_tokens[rows]
            ids, values = _decode(
                model,
                prompts[rows],
                lengths[rows],
                _Sampler(sampling, processed, generator),
                replace(decoding, cached_tokens=cached),
            )
            responses += ids
            logprobs += values
        return Sampled(prompts, tuple(responses), tuple(logprobs), sampling, processed)

    @torch.inference_mode()
    def score(
        self,
        model: Any,
        sampled: Sampled,
        *,
        temperature: float = 1.0,
        microbatch: int = 8,
        attend_padding: bool = False,
        left_padded: bool = False,
    ) -> Scored:
        """Teacher-forced log-probabilities of the responses, `microbatch` sequences at a time.

        `attend_padding` leaves the attention mask out, `left_padded` keeps positions counted from
        the left edge: two faults of a trainer.
        """
        logprobs: list[Tensor] = []
        entropies: list[Tensor] = []
        for start in range(0, len(sampled.prompts), microbatch):
            rows = range(start, min(start + microbatch, len(sampled.prompts)))
            sequences = [sampled.prompts[row] + sampled.responses[row] for row in rows]
            width = max(map(len, sequences))
            ids = torch.full((len(rows), width), PAD)
            attention = torch.zeros_like(ids)
            begins = [width - len(sequence) if left_padded else 0 for sequence in sequences]
            for row, (begin, sequence) in enumerate(zip(begins, sequences, strict=True)):
                ids[row, begin : begin + len(sequence)] = torch.tensor(sequence)
                attention[row, begin : begin + len(sequence)] = 1
            logits = model(
                input_ids=ids,
                attention_mask=torch.ones_like(attention) if attend_padding else attention,
                position_ids=torch.arange(width).expand_as(ids),
                use_cache=False,
            ).logits
            for row, begin in enumerate(begins):
                prompt, response = sampled.prompts[rows[row]], sampled.responses[rows[row]]
                first = begin + len(prompt) - 1
                values, entropy = token_scores(
                    logits[row, first : first + len(response)], response, temperature
                )
                logprobs.append(values)
                entropies.append(entropy)
        return Scored(torch.cat(logprobs).numpy(), torch.cat(entropies).numpy())

    def step(
        self,
        sampled: Sampled,
        scored: Scored,
        metadata: Mapping[str, str] | None = None,
        /,
        **extras: NDArray[Any],
    ) -> PushedStep:
        """As a trainer would push it; `extras` add tensors or replace those filled in here."""
        lengths = np.array([len(response) for response in sampled.responses], np.int64)
        prompt_lengths = np.array([len(prompt) for prompt in sampled.prompts], np.int32)
        limits = np.concatenate([[0], np.cumsum(lengths)])
        index = np.arange(limits[-1]) - np.repeat(limits[:-1], lengths)
        tensors: dict[str, NDArray[Any]] = {
            "rollout_logprobs": np.concatenate(sampled.logprobs).astype(np.float32),
            "trainer_logprobs": scored.logprobs,
            "cu_seqlens": limits,
            "mask": np.ones(int(limits[-1]), np.uint8),
            "token_ids": np.concatenate([np.array(ids, np.int32) for ids in sampled.responses]),
            "entropy": scored.entropy,
            "position_ids": (np.repeat(prompt_lengths, lengths) + index).astype(np.int32),
            "prompt_lengths": prompt_lengths,
            "advantages": np.repeat(self.advantages(len(lengths)), lengths).astype(np.float32),
            "behavior_version": np.full(len(lengths), WEIGHTS_VERSION, np.int32),
        }
        return pushed_step(tensors | extras, self.metadata(sampled) | dict(metadata or {}))

    def advantages(self, sequences: int) -> NDArray[np.float64]:
        """[sequences] random rewards, normalised within each group as GRPO does."""
        rng = np.random.default_rng([self.seed, 2])
        rewards = rng.normal(size=sequences)
        for start in range(0, sequences, GROUP):
            group = rewards[start : start + GROUP]
            group -= group.mean()
            if group.size > 1:
                group /= group.std() + 1e-6  # as GRPO: no division by 0
        return rewards

    def metadata(self, sampled: Sampled) -> dict[str, str]:
        sampling = sampled.sampling
        return {
            "model": self.model_folder.name,
            "rollout_dtype": self.rollout_dtype,
            "trainer_dtype": self.trainer_dtype,
            "temperature": str(sampling.temperature),
            "top_p": str(sampling.top_p),
            "top_k": str(sampling.top_k),
            "logprobs_mode": "processed_logprobs" if sampled.processed else "raw_logprobs",
            "weights_version": str(WEIGHTS_VERSION),
        }


def token_scores(
    logits: Tensor, targets: Sequence[int], temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy, float32 [tokens], of logits [tokens, vocabulary]."""
    classes = torch.log_softmax(logits.float() / temperature, dim=-1)
    chosen = classes.gather(1, torch.tensor(targets)[:, None])[:, 0]
    return chosen, -(classes.exp() * classes).sum(-1)


@dataclass(frozen=True, slots=True)
class _Sampler:
    sampling: Sampling
    processed: bool
    generator: torch.Generator

    def draw(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Token [rows] and its reported log-probability, float32 [rows], by the Gumbel-max rule."""
        raw = logits.float()
        kept = truncated(raw, self.sampling)
        noise = torch.empty_like(raw).exponential_(generator=self.generator).log_().neg_()
        chosen = (kept + noise).argmax(-1)
        classes = torch.log_softmax(kept if self.processed else raw, dim=-1)
        return chosen, classes.gather(1, chosen[:, None])[:, 0]


def truncated(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits [rows, vocabulary] after temperature, top-k, top-p and min-p, in vLLM's order."""
    if sampling.temperature <= 0.0:
        raise RequestError(
            f"temperature is {sampling.temperature}; the lab samples.",
            remedy="give a number above 0.",
        )
    kept = logits / sampling.temperature
    if sampling.min_p > 0.0:
        classes = torch.softmax(kept, -1)
        kept = kept.masked_fill(classes < sampling.min_p * classes.amax(-1, True), -torch.inf)
    if sampling.top_k:
        least = kept.topk(min(sampling.top_k, kept.shape[-1])).values[:, -1:]
        kept = kept.masked_fill(kept < least, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, order = kept.sort(-1, descending=True)
        before = torch.softmax(ordered, -1).cumsum(-1) - torch.softmax(ordered, -1)
        outside = torch.zeros_like(kept, dtype=torch.bool)
        outside.scatter_(1, order, before >= sampling.top_p)
        kept = kept.masked_fill(outside, -torch.inf)
    return kept


def _decode(
    model: Any,
    prompts: Prompts,
    lengths: NDArray[np.int64],
    sampler: _Sampler,
    decoding: Decoding,
) -> tuple[list[tuple[int, ...]], list[NDArray[np.float32]]]:
    run = _Run(model, prompts, decoding)
    logits = run.prefill()
    drawn: list[Tensor] = []
    values: list[Tensor] = []
    longest = int(lengths.max())
    for index in range(longest):
        token, value = sampler.draw(logits)
        drawn.append(token)
        values.append(value)
        if index + 1 == longest:
            break
        if decoding.swap_at is not None and index + 1 >= decoding.swap_at:
            run.model = decoding.later_model
        logits = run.append(token)
    tokens, logprobs = torch.stack(drawn, 1), torch.stack(values, 1).numpy()
    return (
        [tuple(tokens[row, :length].tolist()) for row, length in enumerate(lengths)],
        [logprobs[row, :length].copy() for row, length in enumerate(lengths)],
    )


class _Run:
    """One left-padded batch with its cache."""

    def __init__(self, model: Any, prompts: Prompts, decoding: Decoding) -> None:
        self.model = model
        self._decoding = decoding
        width = max(map(len, prompts))
        self._padding = torch.tensor([width - len(prompt) for prompt in prompts])
        self._ids = torch.full((len(prompts), width), PAD)
        self._attention = torch.zeros_like(self._ids)
        for row, prompt in enumerate(prompts):
            self._ids[row, width - len(prompt) :] = torch.tensor(prompt)
            self._attention[row, width - len(prompt) :] = 1
        self._positions = (self._attention.cumsum(-1) - 1).clamp_min(0)
        if decoding.attend_padding:
            self._attention = torch.ones_like(self._attention)
        self._cache: Any = None

    def prefill(self) -> Tensor:
        """Logits of the prompts' last tokens, [rows, vocabulary]."""
        width = self._ids.shape[1]
        if self._decoding.cache_model is None:
            return self._forward(range(width))
        assert self._decoding.cached_tokens is not None, "a cache model needs cached_tokens"
        return self._prefill_behind(torch.from_numpy(self._decoding.cached_tokens.copy()))

    def _prefill_behind(self, cached: Tensor) -> Tensor:
        """With each row's first `cached` tokens from the other model's cache, and the others
        computed on top of it; the last token of a prompt is never cached."""
        width = self._ids.shape[1]
        # First column that each row computes itself; a row without cached tokens all of them.
        begins = torch.where(cached > 0, self._padding + cached, torch.zeros_like(cached))
        begins = begins.clamp_max(width - 1)
        filled = self._decoding.cache_model(
            input_ids=self._ids,
            attention_mask=self._attention,
            position_ids=self._positions,
            use_cache=True,
            logits_to_keep=1,
        ).past_key_values
        borders = sorted({0, *begins.tolist(), width})
        logits = torch.empty(0)
        for first, behind in zip(borders[:-1], borders[1:], strict=True):
            logits = self._forward(range(first, behind))
            for own, other in zip(self._cache.layers, filled.layers, strict=True):
                rows = begins >= behind
                own.keys[rows, :, first:behind] = other.keys[rows, :, first:behind]
                own.values[rows, :, first:behind] = other.values[rows, :, first:behind]
        return logits

    def append(self, token: Tensor) -> Tensor:
        """Logits behind one more token of each row, [rows, vocabulary]."""
        ones = self._attention.new_ones(len(token), 1)
        self._ids = torch.cat([self._ids, token[:, None]], 1)
        self._attention = torch.cat([self._attention, ones], 1)
        self._positions = torch.cat([self._positions, self._positions[:, -1:] + 1], 1)
        width = self._ids.shape[1]
        return self._forward(range(width - 1, width))

    def _forward(self, columns: range) -> Tensor:
        part = slice(columns.start, columns.stop)
        output = self.model(
            input_ids=self._ids[:, part],
            attention_mask=self._attention[:, : columns.stop],
            position_ids=self._positions[:, part],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = output.past_key_values
        if self._decoding.on_cache is not None:
            self._decoding.on_cache(self._cache, self._padding, columns)
        logits: Tensor = output.logits[:, -1]
        return logits


_LOADED: dict[tuple[Path, str], Any] = {}


def _model(folder: Path, dtype: Dtype, fresh: bool) -> Any:
    key = (folder, dtype)
    if key not in _LOADED:
        transformers_logging.disable_progress_bar()
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, TORCH_NAMES[dtype]),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        _LOADED[key] = model.eval().requires_grad_(False)
    return copy.deepcopy(_LOADED[key]) if fresh else _LOADED[key]
