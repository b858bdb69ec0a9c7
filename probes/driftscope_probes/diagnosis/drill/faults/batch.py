"""Batch: sequences that share a batch or a pack see what they should not.

In: a lab. Out: injections of attended padding, leaks between packed documents, and edges of chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.damage import sample
from driftscope_probes.diagnosis.drill.lab import Decoding, Lab, Sampled, Scored, token_scores
from driftscope_probes.diagnosis.drill.pool import between, logits_of, pair, rollout, scores
from driftscope_probes.push.pushed_step import PushedStep

# Padding

#: Tokens of the longer prompts: the shorter ones have about 25 and are padded to these.
LEAST_CONTEXT, MOST_CONTEXT = 16, 240


def _uneven(setting: Setting, severity: float) -> Setting:
    """Padding is what the fault is about: the more of it, the more is attended to."""
    return replace(setting, context=round(between(LEAST_CONTEXT, MOST_CONTEXT, severity)))


def _engine_attends(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    uneven = _uneven(setting, severity)
    sampled = sample(lab, uneven, lab.engine(), decoding=Decoding(attend_padding=True))
    return lab.step(sampled, scores(lab, uneven, sampled))


def _trainer_attends(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    sampled = rollout(lab, _uneven(setting, severity))
    scored = lab.score(
        lab.trainer(),
        sampled,
        temperature=_temperature(sampled),
        microbatch=setting.microbatch,
        attend_padding=True,
        left_padded=True,
    )
    return lab.step(sampled, scored)


def _temperature(sampled: Sampled) -> float:
    return sampled.sampling.temperature if sampled.processed else 1.0


# Packs

MOST_PACKED = 8
#: A pack's mask has the square of its tokens: 2^12 squared are 64 MB.
MOST_PACK_TOKENS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Documents one after another. `document`, `index` [tokens]: which one, and where in it."""

    ids: Tensor
    document: Tensor
    index: Tensor


def _packs(sampled: Sampled, size: int) -> Iterator[tuple[list[int], Pack]]:
    """Rows and their pack; fewer than `size` where they would be too long."""
    whole = [
        prompt + response
        for prompt, response in zip(sampled.prompts, sampled.responses, strict=True)
    ]
    rows: list[int] = []
    for row in range(len(whole)):
        together = sum(len(whole[other]) for other in rows) + len(whole[row])
        # Two documents at least: a pack of one has nobody to leak from.
        if len(rows) >= size or (len(rows) > 1 and together > MOST_PACK_TOKENS):
            yield rows, _pack([whole[other] for other in rows])
            rows = []
        rows.append(row)
    yield rows, _pack([whole[other] for other in rows])


def _pack(documents: list[tuple[int, ...]]) -> Pack:
    return Pack(
        torch.tensor([token for document in documents for token in document]),
        torch.cat([torch.full((len(ids),), number) for number, ids in enumerate(documents)]),
        torch.cat([torch.arange(len(ids)) for ids in documents]),
    )


@torch.inference_mode()
def _score_packs(sampled: Sampled, size: int, forward: Callable[[Pack], Tensor]) -> Scored:
    """`forward` gives logits [tokens, vocabulary] of a pack."""
    logprobs: list[Tensor] = []
    entropies: list[Tensor] = []
    for rows, pack in _packs(sampled, size):
        logits = forward(pack)
        for number, row in enumerate(rows):
            begin = int((pack.document == number).nonzero()[0])
            first = begin + len(sampled.prompts[row]) - 1
            response = sampled.responses[row]
            values, entropy = token_scores(
                logits[first : first + len(response)], response, _temperature(sampled)
            )
            logprobs.append(values)
            entropies.append(entropy)
    return Scored(torch.cat(logprobs).numpy(), torch.cat(entropies).numpy())


def _size(severity: float) -> int:
    """Documents of a pack; of two every other one is clean, of eight one in eight."""
    return round(2 + (MOST_PACKED - 2) * severity)


def _causal(model: Any, pack: Pack, bias: Tensor, positions: Tensor) -> Tensor:
    """Logits with `bias` [tokens, tokens] on the attention's scores; −inf where nothing is seen."""
    logits: Tensor = model(
        input_ids=pack.ids[None],
        attention_mask=bias[None, None].to(model.dtype),
        position_ids=positions[None],
        use_cache=False,
    ).logits[0]
    return logits


def _causal_bias(tokens: int) -> Tensor:
    return torch.full((tokens, tokens), -torch.inf).triu(1)


def _attention_leak(positions_reset: bool) -> Any:
    def inject(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
        model = lab.trainer()

        def forward(pack: Pack) -> Tensor:
            positions = pack.index if positions_reset else torch.arange(len(pack.ids))
            return _causal(model, pack, _causal_bias(len(pack.ids)), positions)

        sampled = pair(lab, setting).sampled
        return lab.step(sampled, _score_packs(sampled, _size(severity), forward))

    return inject


#: Tokens after which a state that leaked has fallen to 1/e: shorter than a prompt, and long.
SHORT_MEMORY, LONG_MEMORY = 15.0, 400.0


def _memory(severity: float) -> float:
    return float(SHORT_MEMORY * (LONG_MEMORY / SHORT_MEMORY) ** severity)


def _decaying_leak(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """Keys of the document before are seen less and less: exp(−distance / memory) as weight."""
    model, memory = lab.trainer(), _memory(severity)

    def forward(pack: Pack) -> Tensor:
        begin = torch.arange(len(pack.ids)) - pack.index  # where each token's document begins
        key = torch.arange(len(pack.ids))
        before = pack.document[:, None] - pack.document[None, :]
        # Both ways count: from the key to its document's end, from there to the query.
        distance = pack.index[:, None] + (begin[:, None] - key[None, :])
        bias = _causal_bias(len(pack.ids))
        bias = torch.where(before == 1, -distance / memory, bias)
        bias = bias.masked_fill(before > 1, -torch.inf)
        return _causal(model, pack, bias, pack.index)

    sampled = pair(lab, setting).sampled
    return lab.step(sampled, _score_packs(sampled, _size(severity), forward))


#: Tokens at a document's end that make up the state it leaves, and the state's share.
STATE_TOKENS, STATE_SHARE = 16, 0.5


@dataclass(slots=True, eq=False)
class _CarriedState:
    """Behind a layer: what the document before left in a recurrent state, fading away."""

    memory: float
    pack: Pack | None = None

    def __call__(self, _: nn.Module, __: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        assert self.pack is not None, "a pack is set before each forward"
        carried = torch.zeros_like(hidden)
        for number in range(1, int(self.pack.document.max()) + 1):
            last = (self.pack.document == number - 1).nonzero()[-STATE_TOKENS:, 0]
            own = self.pack.document == number
            fading = torch.exp(-self.pack.index[own] / self.memory)[:, None]
            state = hidden[0, last].float().mean(0)
            carried[0, own] = (STATE_SHARE * fading * state).to(hidden.dtype)
        if isinstance(output, tuple):
            return (hidden + carried, *output[1:])
        return hidden + carried


def _state_leak(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """A hybrid model's recurrent layer in the middle starts each document with the state that the
    one before it left; attention keeps them apart."""
    model = lab.trainer(fresh=True)
    layers = list(model.model.layers)
    carried = _CarriedState(_memory(severity))
    layers[len(layers) // 2].register_forward_hook(carried)

    def forward(pack: Pack) -> Tensor:
        carried.pack = pack
        bias = _causal_bias(len(pack.ids))
        apart = pack.document[:, None] != pack.document[None, :]
        return _causal(model, pack, bias.masked_fill(apart, -torch.inf), pack.index)

    sampled = pair(lab, setting).sampled
    return lab.step(sampled, _score_packs(sampled, _size(severity), forward))


# Chunks

MOST_CHUNK, LEAST_CHUNK = 256, 12


def _chunk(severity: float) -> int:
    return round(float(MOST_CHUNK * (LEAST_CHUNK / MOST_CHUNK) ** severity))


def neighbour_row(rows: Tensor, response: tuple[int, ...], step: int, temperature: float) -> Tensor:
    """[len(response)] each token scored by the row `step` places off; at the ends by its own."""
    index = (torch.arange(len(response)) + step).clamp(0, len(response) - 1)
    return token_scores(rows[index], response, temperature)[0]


def _edges_of_engine(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The engine scored the sequences by a chunked prefill; the first token of each chunk got the
    row of the token before it. Chunks count absolute positions."""
    healthy = pair(lab, setting)
    sampled = healthy.sampled
    typical = int(np.median([len(prompt) for prompt in sampled.prompts]))
    chunk = min(_chunk(severity), typical + max(1, setting.max_tokens // 4))
    rows = logits_of(lab, lab.engine(), sampled, setting.microbatch)
    values: list[Any] = []
    for own, prompt, response in zip(rows, sampled.prompts, sampled.responses, strict=True):
        reported = token_scores(own, response, _temperature(sampled))[0]
        wrong = neighbour_row(own, response, -1, _temperature(sampled))
        edge = (torch.arange(len(response)) + len(prompt)) % chunk == 0
        values.append(torch.where(edge, wrong, reported).numpy())
    return lab.step(replace(sampled, logprobs=tuple(values)), healthy.scored)


def _edges_of_trainer(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The trainer's log-softmax runs in chunks over all packed tokens; the last token of a chunk
    gets the row behind it."""
    healthy = pair(lab, setting)
    sampled = healthy.sampled
    chunk = min(_chunk(severity), max(2, healthy.scored.logprobs.size // 4))
    rows = logits_of(lab, lab.trainer(), sampled, setting.microbatch)
    wrong = torch.cat(
        [
            neighbour_row(own, response, 1, _temperature(sampled))
            for own, response in zip(rows, sampled.responses, strict=True)
        ]
    ).numpy()
    edge = np.arange(wrong.size) % chunk == chunk - 1
    logprobs = np.where(edge, wrong, healthy.scored.logprobs)
    return lab.step(sampled, replace(healthy.scored, logprobs=logprobs))


INJECTIONS: tuple[Injection, ...] = (
    Injection(
        "pad_attended", "a", "the engine attends to the padding left of a prompt", _engine_attends
    ),
    Injection(
        "pad_attended",
        "b",
        "the trainer pads on the left and passes no attention mask",
        _trainer_attends,
    ),
    Injection(
        "packed_attention_leak",
        "a",
        "packed documents attend to those before them; positions start anew",
        _attention_leak(positions_reset=True),
    ),
    Injection(
        "packed_attention_leak",
        "b",
        "a pack is treated as one document: attention and positions run through",
        _attention_leak(positions_reset=False),
    ),
    Injection(
        "packed_state_leak",
        "a",
        "keys of the document before fade with the distance, as a state does",
        _decaying_leak,
    ),
    Injection(
        "packed_state_leak",
        "b",
        "a recurrent layer starts with the state of the document before",
        _state_leak,
    ),
    Injection(
        "chunked_prompt_logprobs",
        "a",
        "the first token of each prefill chunk has the row before its own",
        _edges_of_engine,
    ),
    Injection(
        "chunked_prompt_logprobs",
        "b",
        "the last token of each chunk of packed tokens has the row behind its own",
        _edges_of_trainer,
    ),
)
