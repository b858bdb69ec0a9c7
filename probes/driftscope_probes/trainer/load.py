"""Loads the trainer's model, and finds its output head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from driftscope_probes.device.versions import check_versions
from driftscope_probes.dtypes import TORCH_NAMES, Dtype
from driftscope_probes.errors import ModelError, TrainerError
from driftscope_probes.models.adapter import Adapter
from driftscope_probes.trainer.settings import Attention, TrainerSettings

#: Enough rows that no BLAS takes its path for a single row, few enough to cost nothing.
CHECK_TOKENS = 8


@dataclass(frozen=True, slots=True)
class LanguageModelHead:
    weight: Tensor  # [vocabulary, hidden size]; may be the embedding's own
    bias: Tensor | None  # [vocabulary]


def find_head(model: Any, decoder: nn.Module) -> LanguageModelHead:
    """The head, checked: on given hidden states it has the very bits of the model's own logits.

    Soft-capping, scaling or a multiplier between head and logits would otherwise be lost
    silently, since log-probabilities are computed from hidden states and this weight alone.
    """
    linear = model.get_output_embeddings()
    if not isinstance(linear, nn.Linear) or decoder is model:
        raise _unsupported(model)
    head = LanguageModelHead(linear.weight, linear.bias)
    generator = torch.Generator().manual_seed(0)
    shape = (1, CHECK_TOKENS, head.weight.shape[1])
    hidden = torch.randn(shape, generator=generator).to(head.weight)
    with torch.no_grad():
        ours = F.linear(hidden, head.weight, head.bias)
        theirs = _own_logits(model, decoder, hidden)
    if not torch.allclose(ours, theirs, rtol=0.0, atol=0.0, equal_nan=True):
        raise _unsupported(model)
    return head


def _own_logits(model: Any, decoder: nn.Module, hidden: Tensor) -> Tensor:
    """The model's logits for these hidden states, substituted for its own.

    Its own may have overflowed in FP16, which is to be measured, not refused.
    """

    def replace(_: nn.Module, __: Any, output: Any) -> Any:
        output.last_hidden_state = hidden
        return output

    handle = decoder.register_forward_hook(replace)
    tokens = torch.zeros((1, CHECK_TOKENS), dtype=torch.int64, device=hidden.device)
    try:
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    finally:
        handle.remove()
    return logits


def _unsupported(model: Any) -> TrainerError:
    return TrainerError(
        f"{type(model).__name__} does more than one matrix product between hidden states and "
        "logits (soft-capping, scaling or a head of its own).",
        remedy="use a model whose logits are lm_head(hidden states), as in Llama, Qwen or Mistral.",
    )


#: Lengths of the two sequences of the trial.
NEIGHBOUR, OBSERVED = 7, 9
#: Relative movement of the hidden states. Kept apart they do not move (a mixture's experts, which
#: get other row counts: 3e-7); with the boundary ignored they move by 66 to 124 % (tiny Llama and
#: Qwen3-MoE, SmolLM2, every dtype).
LEAK = 0.05


def check_packing(model: Any, decoder: nn.Module) -> None:
    """Change a packed sequence's neighbour and check whether its hidden states move."""
    with torch.random.fork_rng(), torch.no_grad():
        before, after = (_observed(model, decoder, first) for first in (1, 1 + NEIGHBOUR))
    moved = float((before - after).norm() / before.norm())
    if not moved < LEAK:
        raise TrainerError(
            f"{type(model).__name__} lets packed sequences see each other (hidden states move by "
            f"{moved:.0%} when only the neighbour changes).",
            remedy="set the trainer's batching to padded, or micro_batch to 1.",
        )


def _observed(model: Any, decoder: nn.Module, first: int) -> Tensor:
    """Hidden states of the second of two packed sequences; `first` chooses the neighbour."""
    torch.manual_seed(0)  # the same dropout in both passes
    total = NEIGHBOUR + OBSERVED
    tokens = torch.arange(total)
    tokens[:NEIGHBOUR] = torch.arange(first, first + NEIGHBOUR)
    positions = torch.cat([torch.arange(NEIGHBOUR), torch.arange(OBSERVED)])
    output = decoder(
        input_ids=(tokens % model.config.vocab_size)[None].to(model.device),
        position_ids=positions[None].to(model.device),
        use_cache=False,
    )
    hidden: Tensor = output.last_hidden_state[0, NEIGHBOUR:].double()
    return hidden


@dataclass(frozen=True, slots=True)
class LoadedModel:
    model: Any  # transformers PreTrainedModel
    decoder: nn.Module  # hidden states before the head
    head: LanguageModelHead
    name: str
    weights: Dtype
    attention: Attention
    device: torch.device

    @property
    def vocabulary(self) -> int:
        return int(self.head.weight.shape[0])


def torch_dtype(dtype: Dtype) -> torch.dtype:
    result: torch.dtype = getattr(torch, TORCH_NAMES[dtype])
    return result


def load_model(
    path: str,
    name: str,
    weights: Dtype,
    settings: TrainerSettings,
    adapter: Adapter | None = None,
) -> LoadedModel:
    """Raise ModelError when the folder cannot be loaded, TrainerError when the model does not suit.

    `adapter`: LoRA that is added to its layers.

    A model suits when its logits are one matrix product of its hidden states and, where packing
    is asked for, when packed sequences stay apart.
    """
    check_versions("transformers", "torch")
    # Imported here: a second of start-up that only a real load needs.
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch_dtype(weights),
            attn_implementation=settings.attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"transformers cannot load {name} for training: {error}",
            remedy="give a folder with config.json and *.safetensors of a supported architecture.",
        ) from error
    _refuse_incomplete(name, report)
    if adapter is not None:
        from driftscope_probes.trainer.adapter import apply_adapter

        apply_adapter(model, adapter)
    loaded = _in_training_mode(model, name, weights, settings.attention)
    if settings.batching == "packed" and settings.micro_batch > 1:
        check_packing(loaded.model, loaded.decoder)
    return loaded


def _refuse_incomplete(name: str, report: dict[str, Any]) -> None:
    """transformers fills missing weights with random numbers and only logs it."""
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{name} lacks {len(missing)} weights, the first is {missing[0]}.",
            remedy="fetch the model again; its safetensors files are incomplete.",
        )


def _in_training_mode(model: Any, name: str, weights: Dtype, attention: Attention) -> LoadedModel:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).train()
    model.requires_grad_(True)
    decoder = model.get_decoder()
    used = model.config._attn_implementation
    if used != attention:
        raise TrainerError(
            f"{name} runs with attention {used!r} where {attention!r} was asked for.",
            remedy="choose the other trainer attention: sdpa or eager.",
        )
    head = find_head(model, decoder)
    return LoadedModel(model, decoder, head, name, weights, attention, device)
