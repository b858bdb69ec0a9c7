"""Run in a process of its own by the fixture `aligned`: real engines beside transformers models.

    python alignment_script.py REQUEST.json RESULT.json

A request is a list of engines: folder, dtype, the trainer's dtype, and faults to plant one after
another. Of each the alignments come back, the healthy one first, as `alignment.json` has them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from vllm import LLM

from driftscope_probes.explain.alignment import Part, align
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sides.engine_weights import Recovered, engine_parameters
from driftscope_probes.explain.sides.read_tokens import ReadTokens
from driftscope_probes.explain.sides.trainer_weights import trainer_parameters
from driftscope_probes.explain.sites import Place, Site, sites_of

SAMPLE = Sample(prompts=((5, 6, 7), (9, 10)), responses=((8, 9), (11, 12, 13)))
OUTSIDE = ("embedding", "residual_out", "final_norm", "logits", "logprob")
ATTENTION = (
    "residual_in attention_norm q_proj k_proj v_proj q_rotary k_rotary attention o_proj "
    "residual_mid mlp_norm"
).split()
DENSE = ("gate_proj", "up_proj", "activation", "down_proj")
MIXTURE = ("router", "top_k_weights", "top_k_experts", "experts")
EXTRA = {
    "gemma2": ("attention_output_norm", "mlp_output_norm"),
    "qwen3": ("q_norm", "k_norm"),
    "qwen3_moe": ("q_norm", "k_norm"),
}
#: Small engines live on beside each other: ending one takes longer than all that it computed.
KEPT: list[LLM] = []


def sites(config: Any) -> list[Site]:
    names = [*ATTENTION, *(MIXTURE if config.model_type == "qwen3_moe" else DENSE)]
    names += EXTRA.get(config.model_type, ())
    layers = range(config.num_hidden_layers)
    inside = [Place(layer, name) for layer in layers for name in names]
    return sites_of([*(Place(None, name) for name in OUTSIDE), *inside])


def engine(folder: str, dtype: str) -> LLM:
    llm = LLM(
        model=folder, dtype=dtype, max_model_len=64, skip_tokenizer_init=True,
        load_format="safetensors", generation_config="vllm", kv_cache_memory_bytes=64 * 2**20,
        use_tqdm_on_load=False, enforce_eager=True, disable_log_stats=True, max_num_seqs=4,
    )  # fmt: skip
    KEPT.append(llm)
    return llm


def alignment(llm: LLM, trainer: Any, dtype: str) -> dict[str, Any]:
    inputs = ReadTokens(SAMPLE)
    for index in range(len(SAMPLE.prompts)):
        first, count = int(SAMPLE.cu_seqlens[index]), int(SAMPLE.lengths[index])
        rows = slice(first, first + count)
        inputs.add(np.arange(first, first + count), SAMPLE.tokens[rows], SAMPLE.positions[rows])
    recovered, all_sites = Recovered(), sites(trainer.config)

    def of_engine(model: Any) -> dict[str, Any]:
        parts = (
            Part(
                "engine", getattr(torch, dtype), all_sites,
                lambda site: engine_parameters(model, llm.llm_engine.vllm_config, site, recovered),
                inputs.received(),
            ),
            Part(
                "trainer", trainer.dtype, all_sites,
                lambda site: trainer_parameters(trainer, site), inputs.received(),
            ),
        )  # fmt: skip
        return align(SAMPLE, *parts).model_dump()

    found: dict[str, Any] = llm.apply_model(of_engine)[0]
    return found


def one_ulp(trainer: Any, llm: LLM) -> None:
    weight = trainer.model.layers[1].self_attn.q_proj.weight
    weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(torch.inf, dtype=weight.dtype))


def permuted(trainer: Any, llm: LLM) -> None:
    weight = trainer.model.layers[0].mlp.gate_proj.weight
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)) + 64
    weight[64:128] = weight[order]


def merged(trainer: Any, llm: LLM) -> None:
    weight = trainer.model.layers[0].mlp.up_proj.weight
    b = torch.randn((len(weight), 4), generator=torch.Generator().manual_seed(0))
    a = torch.randn((4, weight.shape[1]), generator=torch.Generator().manual_seed(1))
    weight.add_((b @ a * 0.02).to(weight.dtype))


def float8(trainer: Any, llm: LLM) -> None:
    weight = trainer.model.layers[0].mlp.down_proj.weight
    weight.copy_(weight.to(torch.float8_e4m3fn).to(weight.dtype))


def epsilon(trainer: Any, llm: LLM) -> None:
    trainer.model.layers[1].input_layernorm.variance_epsilon = 1e-4


def base(trainer: Any, llm: LLM) -> Callable[[], Any]:
    """The table alone is another: the module still states its own base."""

    def change(model: Any) -> None:
        rotary = model.model.layers[0].self_attn.rotary_emb
        rotary.base = 500.0
        rotary.cos_sin_cache.copy_(rotary._compute_cos_sin_cache())
        rotary.base = 10000.0

    def restore(model: Any) -> None:
        # Engines of one process share the tables.
        rotary = model.model.layers[0].self_attn.rotary_emb
        rotary.cos_sin_cache.copy_(rotary._compute_cos_sin_cache())

    llm.apply_model(change)
    return lambda: llm.apply_model(restore)


def scale(trainer: Any, llm: LLM) -> Callable[[], Any]:
    def change(model: Any, to: float) -> None:
        model.model.layers[1].self_attn.attn.impl.scale = to

    llm.apply_model(lambda model: change(model, 0.5))
    return lambda: llm.apply_model(lambda model: change(model, 32**-0.5))


def without_cap(trainer: Any, llm: LLM) -> None:
    """As transformers loads a Gemma 2 by default: SDPA drops the soft cap."""
    trainer.set_attn_implementation("sdpa")


def stale_head(trainer: Any, llm: LLM) -> None:
    """Both sides take a new embedding; the engine's head stays with the packed old one."""
    weight = trainer.model.embed_tokens.weight
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    weight.add_((0.01 * noise).to(weight.dtype))
    weights = {name: tensor.clone() for name, tensor in trainer.state_dict().items()}
    weights.pop("lm_head.weight")
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights.items())})


#: What they change of the trainer is put back; for the engine they give what puts it back.
FAULTS: dict[str, Callable[[Any, LLM], Callable[[], Any] | None]] = {
    fault.__name__: fault
    for fault in (one_ulp, permuted, merged, float8, epsilon, base, scale, without_cap, stale_head)
}


@contextmanager
def trainer_as_it_was(trainer: Any) -> Iterator[None]:
    before = {name: tensor.clone() for name, tensor in trainer.state_dict().items()}
    norm = trainer.model.layers[1].input_layernorm
    numbers = dict(vars(norm))
    yield
    trainer.load_state_dict(before)
    vars(norm).update(numbers)


@torch.no_grad()
def main(request: Path, result: Path) -> None:
    found = {}
    for asked in json.loads(request.read_text()):
        llm = engine(asked["folder"], asked["dtype"])
        trainer = AutoModelForCausalLM.from_pretrained(
            asked["folder"],
            dtype=asked.get("trainer", asked["dtype"]),
            attn_implementation=asked.get("attention", "eager"),
        )
        found[asked["name"]] = {"healthy": alignment(llm, trainer, asked["dtype"])}
        for name in asked.get("faults", ()):
            with trainer_as_it_was(trainer):
                restore = FAULTS[name](trainer, llm)
                found[asked["name"]][name] = alignment(llm, trainer, asked["dtype"])
                if restore is not None:
                    restore()
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
