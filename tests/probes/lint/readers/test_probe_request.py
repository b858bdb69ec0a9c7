"""A probe's request as settings: of both sides, and no dtype where a grid has several."""

from __future__ import annotations

from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.lint.names import NAMES
from driftscope_probes.lint.readers.probe_request import FIELDS, settings_of_request
from driftscope_probes.paired.request import PairedRequest


def values(request: PairedRequest | DeterminismRequest) -> dict[str, object]:
    return {one.name: one.value for one in settings_of_request(request.model_dump(mode="json"))}


def test_both_sides_of_a_pair_are_known() -> None:
    told = values(
        PairedRequest.model_validate(
            {
                "model": "m",
                "engine_dtypes": ["bf16"],
                "trainer_dtypes": ["autocast-bf16+fp32-head"],
                "sampling": {"temperature": 0.7, "top_k": 20},
                "engine": {"prefix_caching": True, "chunked_prefill_tokens": 64, "threads": 2},
                "trainer": {"batching": "packed", "micro_batch": 4},
            }
        )
    )
    assert told == {
        "engine.dtype": "bf16",
        "trainer.dtype": "bf16",
        "trainer.master_dtype": "fp32",
        "trainer.fp32_head": True,
        "trainer.attention": "sdpa",
        "trainer.packing": True,
        "trainer.scoring_micro_batch": 4,
        "engine.name": "vllm",
        "engine.logprobs_mode": "raw_logprobs",
        "engine.prefix_caching": True,
        "engine.max_batched_tokens": 64,
        "engine.chunked_prefill": True,
        "engine.eager": True,
        "environment.cpu_threads": 2,
        "sampling.temperature": 0.7,
        "sampling.top_p": 1.0,
        "sampling.top_k": 20,
    }
    assert told.keys() <= NAMES.keys()


def test_a_grid_says_no_dtype() -> None:
    told = values(PairedRequest(model="m"))
    assert not {"engine.dtype", "trainer.dtype", "trainer.fp32_head"} & told.keys()


def test_a_probe_of_the_engine_alone_says_no_trainer() -> None:
    told = values(DeterminismRequest(model="m", engine="hf"))
    assert told == {"engine.dtype": "bf16"}
    assert values(DeterminismRequest(model="m"))["engine.name"] == "vllm"


def test_every_name_is_canonical() -> None:
    assert {name for targets in FIELDS.values() for name, _ in targets} <= NAMES.keys()
