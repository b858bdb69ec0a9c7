"""prime-rl: its TOML, all sides in one file or one file per side.

In: a Document. Out: Settings. Keys are those of packages/prime-rl-configs as of October 2026 and
of the layouts before it ([orchestrator.sampling], [inference.model]).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from driftscope_probes.lint.base import Scalar, Setting, Settings
from driftscope_probes.lint.readers.base import Document, Key, leaves, settings_of
from driftscope_probes.lint.readers.trainer_values import named, rank, targets_head
from driftscope_probes.lint.readers.values import dtype, number, switch, word
from driftscope_probes.lint.readers.vllm_arguments import passed_on

_KEYS: Final[Mapping[str, Key]] = {
    "trainer.model.attn": Key("trainer.attention", word),
    "trainer.model.optimization_dtype": Key("trainer.master_dtype", dtype),
    "trainer.model.fp8": Key("trainer.quantization", named("fp8")),
    "trainer.model.quantization.type": Key("trainer.quantization", word),
    "trainer.model.ep": Key("trainer.expert_parallel", number),
    "trainer.model.cp": Key("trainer.context_parallel", number),
    "trainer.model.lora.rank": Key("trainer.lora_rank", rank),
    "trainer.model.lora.alpha": Key("trainer.lora_alpha", number),
    "trainer.model.lora.dropout": Key("trainer.lora_dropout", number),
    "trainer.model.lora.target_modules": Key("trainer.lora_targets_head", targets_head),
    "trainer.enable_router_replay": Key("trainer.router_replay", switch),
    "trainer.loss.dppo_mask_low": Key("trainer.clip_low", number),
    "trainer.loss.dppo_mask_high": Key("trainer.clip_high", number),
    "orchestrator.max_off_policy_steps": Key("trainer.staleness", number),
    "inference.parallel.tp": Key("engine.tensor_parallel", number),
    "inference.model.dtype": Key("engine.dtype", dtype),
    "inference.model.enforce_eager": Key("engine.eager", switch),
    "inference.enable_prefix_caching": Key("engine.prefix_caching", switch),
    "inference.enable_fp32_lm_head": Key("engine.fp32_head", switch),
    "inference.enable_return_routed_experts": Key("engine.returns_routes", switch),
    "inference.enable_lora": Key("engine.lora", switch),
    **{
        f"{place}.{key}": Key(f"sampling.{key}", number)
        for sampling in ("orchestrator.train.sampling", "orchestrator.sampling")
        for place in (sampling, f"{sampling}.extra_body")
        for key in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    },
}
#: Tables at the top that only one side's own file has, and that side.
_OWN_FILES: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    ("orchestrator", frozenset({"max_off_policy_steps", "oversampling_factor", "batch_size"})),
    ("inference", frozenset({"parallel", "enable_fp32_lm_head", "enable_return_routed_experts"})),
    ("trainer", frozenset({"optim", "enable_router_replay", "weight_broadcast"})),
)
_SIDES: Final = frozenset({"trainer", "orchestrator", "inference"})
#: Of a file of one side's own: what else it must hold, since "optim" alone is anybody's.
_MARKS: Final = frozenset({"model", "env", "train", "sampling", "server", "vllm", "client"})


class PrimeRl:
    reads = "prime-rl's TOML"

    def recognises(self, document: Document) -> bool:
        other = document.name.lower().endswith((".yaml", ".yml", ".json"))
        return not other and _side(document.table) is not None

    def read(self, document: Document) -> Settings:
        side = _side(document.table) or ""
        # What the file itself calls a key is what a finding has to name.
        pairs = {f"{side}{key}": (key, value) for key, value in leaves(document.table)}
        keys = {key: _KEYS[whole] for whole, (key, _) in pairs.items() if whole in _KEYS}
        found = Settings()
        for place in ("inference.vllm.", "inference.vllm_extra."):
            written = dict(pairs.values())
            found += passed_on(written, place.removeprefix(side), document)
        found += settings_of(((key, value) for key, value in pairs.values()), keys, document)
        return found + Settings(tuple(_derived(pairs, document)))


def _side(table: Mapping[str, Any]) -> str | None:
    """ "" for a file with all sides, "trainer." for a file of one; None: not prime-rl's."""
    whole = [side for side in _SIDES if isinstance(table.get(side), Mapping)]
    if len(whole) >= 2 or (len(whole) == 1 and "orchestrator" in whole):
        return ""
    if whole or not _MARKS & table.keys():
        return None
    return next((f"{side}." for side, own in _OWN_FILES if own & table.keys()), None)


def _derived(pairs: Mapping[str, tuple[str, Any]], document: Document) -> Iterator[Setting]:
    def setting(name: str, value: Scalar, whole: str) -> Setting:
        return Setting(name, value, document.where(pairs[whole][0]))

    first: dict[str, str] = {}
    for whole in pairs:
        first.setdefault(whole.partition(".")[0], whole)
    if sides := _SIDES & first.keys():
        yield setting("trainer.framework", "prime-rl", first[min(sides)])
    if "inference" in first:
        yield setting("engine.name", "vllm", first["inference"])
