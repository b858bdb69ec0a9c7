"""Child process of the localisation drill: live pairs, a bug after another, and what is said.

    python -m driftscope_probes.explain.planted.run_planted WORKDIR

request.json: seed, pairs (names of PAIRS; none: all), bugs (names; none: all), healthy (of each
pair). The result is a LocalisationReport.
"""

from __future__ import annotations

import random
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from driftscope_kernels.compare_ops.reasons import ROUNDING
from driftscope_probes.children import child_main
from driftscope_probes.device.environment import environment
from driftscope_probes.dtypes import Dtype
from driftscope_probes.explain.planted.report import Case, LocalisationReport
from driftscope_probes.explain.report import Op, Parts
from driftscope_probes.explain.request import ExplainRequest, Phase
from driftscope_probes.progress import Progress, ProgressSink, discard
from driftscope_probes.prompts import PromptBatch


@dataclass(frozen=True, slots=True)
class Pair:
    family: str
    dtype: Dtype
    phase: Phase

    @property
    def name(self) -> str:
        return f"{self.family} {self.dtype} {self.phase}"


#: A mixture first: vLLM's engines share the process groups that the first of a process has made.
PAIRS: Final = (
    Pair("moe", "bf16", "prefill"),
    Pair("moe", "fp32", "decode"),
    Pair("llama", "bf16", "prefill"),
    Pair("llama", "fp32", "decode"),
    Pair("llama", "fp16", "prefill"),
    Pair("qwen2", "bf16", "decode"),
    Pair("qwen2", "fp32", "prefill"),
    Pair("qwen3", "bf16", "prefill"),
    Pair("qwen3", "fp16", "decode"),
    Pair("mistral", "bf16", "decode"),
    Pair("mistral", "fp32", "prefill"),
    Pair("gemma", "bf16", "prefill"),
    Pair("gemma", "fp32", "decode"),
)
#: A pair that is at fault as it comes: transformers' SDPA drops Gemma 2's soft cap.
CAPPED: Final = Pair("gemma2_capped", "bf16", "prefill")
LAYERS: Final = 2
#: Healthy samples are drawn with seeds from here on, none of them that of the planted ones.
HEALTHY_SEEDS: Final = 100
#: Of prompts: shorter than a tile of any kernel, and longer than Mistral's window.
LENGTHS: Final = (5, 40)
NEW_TOKENS: Final = 6
#: Least token that is no special one, and the vocabulary of the tiny models.
TOKENS: Final = (3, 480)


def run(request: dict[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    started = time.monotonic()
    seed = int(request["seed"])
    wanted = frozenset(request["pairs"])
    pairs = [pair for pair in (*PAIRS, CAPPED) if not wanted or pair.name in wanted]
    cases: list[Case] = []
    for index, pair in enumerate(pairs):
        progress(Progress(pair.name, index / len(pairs)))
        cases += _of_pair(pair, seed, frozenset(request["bugs"]), request["healthy"], workdir)
    return LocalisationReport(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        cases=cases,
        environment=environment(),
        seconds=time.monotonic() - started,
    ).to_dict()


#: Small engines live on beside each other: ending one takes longer than all that it computes.
_KEPT: list[object] = []


def _of_pair(
    pair: Pair, seed: int, bugs: frozenset[str], healthy: int, workdir: Path
) -> list[Case]:
    from driftscope_probes.explain.planted.bugs import BUGS, Live
    from driftscope_probes.explain.planted.families import save
    from driftscope_probes.explain.run_pair import load_sides
    from driftscope_probes.explain.sides.hf_side import HfSide
    from driftscope_probes.explain.sides.vllm_side import VllmSide

    folder = workdir / pair.name.replace(" ", "-")
    save(pair.family, folder)
    asked = _request(pair, seed)
    engine, trainer = load_sides(asked, folder, folder, _prompts(seed), discard)
    assert isinstance(engine, VllmSide) and isinstance(trainer, HfSide)
    live = Live(engine, trainer)
    _KEPT.append(live)
    if pair is CAPPED:
        expected = (0, ["attention"], ["formula"])
        return [_case(live, pair, asked, workdir, nullcontext(), "softcap_dropped", *expected)]
    cases = []
    for number in range(healthy):
        engine.reseed(seed + HEALTHY_SEEDS + number * len(LENGTHS))
        cases.append(_case(live, pair, asked, workdir, nullcontext()))
    engine.reseed(seed)
    for bug in BUGS:
        unfit = bug.families is not None and pair.family not in bug.families
        if unfit or pair.dtype not in bug.dtypes or (bugs and bug.name not in bugs):
            continue
        for layer in range(1 if bug.every_layer else LAYERS):
            outside = bug.name in ("embedding_scale", "stale_head")
            expected_at = None if outside else layer
            sites, reasons = list(bug.sites), [str(reason) for reason in bug.reasons]
            planted = bug.planted(live, layer)
            cases.append(
                _case(live, pair, asked, workdir, planted, bug.name, expected_at, sites, reasons)
            )
    return cases


def _case(
    live: Any,
    pair: Pair,
    asked: ExplainRequest,
    workdir: Path,
    planted: AbstractContextManager[None],
    bug: str | None = None,
    layer: int | None = None,
    sites: list[str] | None = None,
    reasons: list[str] | None = None,
) -> Case:
    from driftscope_probes.explain.run_pair import compare_sides

    started = time.monotonic()
    with planted:
        parts = compare_sides(asked, live.engine, live.trainer, workdir, discard)
    at_fault = _at_fault(parts)
    return Case(
        pair=pair.name,
        bug=bug,
        layer=layer,
        expected_sites=sites or [],
        expected_reasons=reasons or [],
        verdict=parts.verdict,
        first_layer=None if parts.first is None else parts.first.layer,
        first_site=None if parts.first is None else parts.first.site,
        reason=None if at_fault is None else at_fault.reason,
        reasons=[op.reason for op in parts.ops],
        gap=None if parts.gap is None else parts.gap.abs_diff_mean,
        left=None if parts.verified is None else parts.verified.abs_diff_mean_after,
        seconds=time.monotonic() - started,
    )


def _at_fault(parts: Parts) -> Op | None:
    """The row that holds the first op."""
    first = parts.first
    if first is None:
        return None
    rows = [
        op
        for op in parts.ops
        if op.op == first.op
        and first.site in op.sites
        and (first.layer is None or first.layer in op.layers)
    ]
    # The same kind of op may differ by rounding elsewhere.
    return max(
        rows,
        key=lambda op: (op.reason not in ROUNDING, op.beyond_tolerance or 0.0),
        default=None,
    )


def _request(pair: Pair, seed: int) -> ExplainRequest:
    return ExplainRequest.model_validate(
        {
            "model": pair.family,
            "engine_dtype": pair.dtype,
            "trainer_dtype": pair.dtype,
            "phase": pair.phase,
            "backward": False,
            "sampling": {"max_tokens": NEW_TOKENS, "seed": seed},
            "engine": {"threads": 1},
            "trainer": {"threads": 1},
        }
    )


def _prompts(seed: int) -> PromptBatch:
    draw = random.Random(seed)
    return PromptBatch.from_lists([[draw.randint(*TOKENS) for _ in range(n)] for n in LENGTHS])


if __name__ == "__main__":
    child_main(run)
