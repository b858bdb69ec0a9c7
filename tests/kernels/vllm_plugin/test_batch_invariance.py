"""The same prompt alone and among others, through real vLLM: stock differs, ours does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

Result = dict[str, Any]
RunEngines = Callable[..., list[Result]]
Answers = dict[tuple[str, str], dict[str, Result]]

DTYPES = ("bfloat16", "float16", "float32")
OTHERS, FEW = (0, 2, 4, 8, 16, 32), (0, 8)
PLAIN = {"enable_prefix_caching": False}
PREFIX = {"enable_prefix_caching": True}
#: One page of vLLM's cache on CPU: what of the target a hot cache spares.
CACHED_PAGE = 128
#: Chunked prefill is greedy: a seeded request with it makes vLLM 0.32 on CPU fail.
ENGINES: dict[str, dict[str, Any]] = {
    "plain": {"engine": PLAIN, "others": OTHERS, "temperature": 1.0},
    "prefix": {"engine": PREFIX, "others": (0, 8, 32), "temperature": 1.0},
    "greedy": {"engine": PLAIN, "others": FEW, "temperature": 0.0},
    "chunk 64": {
        "engine": PLAIN | {"max_num_batched_tokens": 64},
        "others": FEW,
        "temperature": 0.0,
    },
    "chunk 16": {
        "engine": PREFIX | {"max_num_batched_tokens": 16, "max_num_seqs": 16},
        "others": FEW,
        "temperature": 0.0,
    },
}
TINY = ("tiny_llama", "tiny_qwen3", "tiny_moe")
TINY_ENGINES = ("plain", "greedy", "chunk 16")


def answers(
    run: RunEngines, models: dict[str, Path], engines: Iterable[str], **options: Any
) -> Answers:
    """All in one process: by model and dtype, then by engine."""
    keys = [(model, dtype, name) for model in models for dtype in DTYPES for name in engines]
    variants = [
        {"model": models[model], "dtype": dtype, **ENGINES[name]} for model, dtype, name in keys
    ]
    found: Answers = {}
    for (model, dtype, name), result in zip(keys, run(variants, **options), strict=True):
        found.setdefault((model, dtype), {})[name] = result
    return found


@pytest.fixture(scope="module")
def of_smollm2(smollm2: Path, run_engines: RunEngines) -> Answers:
    return answers(run_engines, {"smollm2": smollm2}, ENGINES)


@pytest.fixture(scope="module")
def of_smollm2_two_threads(smollm2: Path, run_engines: RunEngines) -> Answers:
    return answers(run_engines, {"smollm2": smollm2}, ["prefix"], threads=2)


@pytest.fixture(scope="module")
def of_tiny(tiny_llama: Path, tiny_qwen3: Path, tiny_moe: Path, run_engines: RunEngines) -> Answers:
    models = dict(zip(TINY, (tiny_llama, tiny_qwen3, tiny_moe), strict=True))
    return answers(run_engines, models, TINY_ENGINES)


def assert_one_answer(results: Iterable[Result]) -> None:
    """The target is answered in one way, all digits of its log-probabilities included."""
    found = set()
    for result in results:
        assert not result["coverage"]["uncovered"]
        first = next(iter(result["among"].values()))
        assert result["rescored"] == first["logprobs"], "decode differs from prefill"
        assert all(run["cached"] == CACHED_PAGE for run in result["again"].values())
        runs = [*result["among"].values(), *result["again"].values()]
        found |= {f"{run['tokens']} {run['logprobs']}" for run in runs}
    assert len(found) == 1


def test_stock_bf16_differs(smollm2: Path, run_engines: RunEngines) -> None:
    """The control: without this the other tests would show nothing."""
    asked = {"model": smollm2, "dtype": "bfloat16", **ENGINES["plain"], "others": (0, 2, 8)}
    (result,) = run_engines([asked], kernels="stock")
    alone = result["among"]["0"]
    for others in ("2", "8"):
        assert result["among"][others]["logprobs"] != alone["logprobs"]
    assert result["rescored"] != alone["logprobs"]
    assert result["coverage"]["kernels"] == "stock" and not result["coverage"]["covered"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_smollm2(of_smollm2: Answers, dtype: str) -> None:
    results = of_smollm2["smollm2", dtype]
    assert_one_answer(results[name] for name in ("plain", "prefix"))
    assert_one_answer(results[name] for name in ("greedy", "chunk 64", "chunk 16"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_smollm2_with_two_threads(
    of_smollm2: Answers, of_smollm2_two_threads: Answers, dtype: str
) -> None:
    one, two = of_smollm2["smollm2", dtype], of_smollm2_two_threads["smollm2", dtype]
    assert_one_answer([one["plain"], two["prefix"]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", TINY)
def test_other_models(of_tiny: Answers, model: str, dtype: str) -> None:
    results = of_tiny[model, dtype]
    assert_one_answer([results["plain"]])
    assert_one_answer([results["greedy"], results["chunk 16"]])
    covered = results["plain"]["coverage"]["covered"]
    assert covered["lm_head"] == 1 and covered["Attention"] == 3
    assert covered.get("Experts", 0) == (3 if model == "tiny_moe" else 0)
