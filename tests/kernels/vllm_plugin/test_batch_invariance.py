"""The same prompt alone and among others, through real vLLM: stock differs, ours does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from .models import family

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

Result = dict[str, Any]
RunEngines = Callable[..., list[Result]]
Answers = dict[tuple[str, str], dict[str, Result]]

DTYPES = ("bfloat16", "float16", "float32")
PLAIN = {"enable_prefix_caching": False}
PREFIX = {"enable_prefix_caching": True}
#: One page of vLLM's cache on CPU: what of the target a hot cache spares.
CACHED_PAGE = 128
#: One op at a time on vLLM's rounding points, which the trainer does not share.
FAULTS = [f"transformers,{op}=vllm" for op in ("norm", "rotary", "attention")]
#: Chunked prefill is greedy: a seeded request with it makes vLLM 0.32 on CPU fail.
ENGINES: dict[str, dict[str, Any]] = {
    "plain": {"engine": PLAIN, "others": (0, 2, 8, 32), "temperature": 1.0},
    "prefix": {"engine": PREFIX, "others": (0, 8), "temperature": 1.0},
    "chunk 64": {
        "engine": PLAIN | {"max_num_batched_tokens": 64},
        "others": (0, 8),
        "temperature": 0.0,
    },
    "chunk 16": {
        "engine": PREFIX | {"max_num_batched_tokens": 16, "max_num_seqs": 16},
        "others": (0, 8),
        "temperature": 0.0,
    },
    "few": {"engine": PREFIX, "others": (0, 8), "temperature": 1.0},
    "reread": {"engine": PLAIN, "others": (0, 8), "temperature": 1.0, "rounding": FAULTS},
}
#: The whole matrix in bfloat16, where stock vLLM differs most; of the others what is left of it
#: when two engines have to do.
SMOLLM2 = {
    "bfloat16": ("plain", "prefix", "chunk 64", "chunk 16"),
    "float16": ("prefix", "chunk 16"),
    "float32": ("prefix", "chunk 16"),
}
SEEDED, GREEDY = ("plain", "prefix", "few", "reread"), ("chunk 64", "chunk 16")
FAMILIES = ("qwen2", "mistral")
#: The mixture first: engines beside each other share the process groups that the first has made.
TINY = ("tiny_moe", "tiny_llama", "tiny_qwen3")


def answers(
    run: RunEngines, models: Mapping[str, Path], names: Mapping[str, Iterable[str]], **options: Any
) -> Answers:
    """`names`: engines by dtype. All in one process: by model and dtype, then by engine."""
    keys = [(model, dtype, name) for model in models for dtype in names for name in names[dtype]]
    variants = [
        {"model": models[model], "dtype": dtype, **ENGINES[name]} for model, dtype, name in keys
    ]
    found: Answers = {}
    for (model, dtype, name), result in zip(keys, run(variants, **options), strict=True):
        found.setdefault((model, dtype), {})[name] = result
    return found


@pytest.fixture(scope="module")
def of_smollm2(smollm2: Path, run_engines: RunEngines) -> Answers:
    return answers(run_engines, {"smollm2": smollm2}, SMOLLM2)


@pytest.fixture(scope="module")
def of_smollm2_two_threads(smollm2: Path, run_engines: RunEngines) -> Answers:
    names = dict.fromkeys(DTYPES, ("few",))
    return answers(run_engines, {"smollm2": smollm2}, names, threads=2, keep=True)


@pytest.fixture(scope="module")
def tiny_folders(tiny_moe: Path, tiny_llama: Path, tiny_qwen3: Path) -> dict[str, Path]:
    return dict(zip(TINY, (tiny_moe, tiny_llama, tiny_qwen3), strict=True))


@pytest.fixture(scope="module")
def of_tiny(tiny_folders: dict[str, Path], run_engines: RunEngines) -> Answers:
    names = dict.fromkeys(DTYPES, ("reread", "chunk 16"))
    return answers(run_engines, tiny_folders, names, keep=True)


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Biases of queries, keys and values; a window shorter than the target."""
    return {
        "qwen2": family(tmp_path_factory.mktemp("qwen2"), "Qwen2"),
        "mistral": family(tmp_path_factory.mktemp("mistral"), "Mistral", sliding_window=48),
    }


@pytest.fixture(scope="module")
def of_families(families: dict[str, Path], run_engines: RunEngines) -> Answers:
    return answers(run_engines, families, {"bfloat16": ("few",)}, keep=True)


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


def assert_invariant(results: Mapping[str, Result]) -> None:
    seeded = [results[name] for name in SEEDED if name in results]
    greedy = [results[name] for name in GREEDY if name in results]
    assert_one_answer(seeded)
    assert_one_answer(greedy)
    # Without chunks, and without sampling either.
    for result in seeded:
        for other in greedy:
            assert result["greedy"]["logprobs"] == other["among"]["0"]["logprobs"]


@pytest.mark.avx512
def test_stock_bf16_differs(of_stock: list[Result]) -> None:
    """The control: without this the other tests would show nothing.

    From which batch on depends on the CPU: from 3 on AMD's, from 5 on with AMX.
    """
    result = of_stock[-1]
    alone = result["among"]["0"]
    for others in ("8", "32"):
        assert result["among"][others]["logprobs"] != alone["logprobs"]
    assert result["rescored"] != alone["logprobs"]
    assert result["coverage"]["kernels"] == "stock" and not result["coverage"]["covered"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_smollm2(of_smollm2: Answers, dtype: str) -> None:
    assert_invariant(of_smollm2["smollm2", dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_smollm2_with_two_threads(
    of_smollm2: Answers, of_smollm2_two_threads: Answers, dtype: str
) -> None:
    one, two = of_smollm2["smollm2", dtype], of_smollm2_two_threads["smollm2", dtype]
    assert_one_answer([one["prefix"], two["few"]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", TINY)
def test_other_models(of_tiny: Answers, model: str, dtype: str) -> None:
    results = of_tiny[model, dtype]
    assert_invariant(results)
    coverage = results["reread"]["coverage"]
    assert coverage["covered"]["lm_head"] == 1 and coverage["covered"]["Attention"] == 3
    assert coverage["covered"].get("Experts", 0) == (3 if model == "tiny_moe" else 0)
    assert coverage["rounding"] == "transformers"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", TINY)
def test_a_trainer_in_invariant_mode_has_the_same_bits(
    of_tiny: Answers,
    tiny_folders: dict[str, Path],
    target_tokens: list[int],
    model: str,
    dtype: str,
) -> None:
    result = of_tiny[model, dtype]["reread"]
    sampled = result["among"]["0"]
    trained = scored_by_trainer(tiny_folders[model], dtype, target_tokens, sampled["tokens"])
    assert sampled["logprobs"] == trained
    # In float32 the dtype rounds nothing: the norm and attention have no choice there.
    seen = [fault for fault in FAULTS if result["rescored_with"][fault] != trained]
    assert seen == (["transformers,rotary=vllm"] if dtype == "float32" else FAULTS)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_have_the_trainers_bits(
    of_families: Answers, families: dict[str, Path], target_tokens: list[int], family: str
) -> None:
    result = of_families[family, "bfloat16"]["few"]
    sampled = result["among"]["0"]
    tokens = sampled["tokens"]
    assert not result["coverage"]["uncovered"]
    assert sampled["logprobs"] == scored_by_trainer(
        families[family], "bfloat16", target_tokens, tokens
    )


def scored_by_trainer(
    folder: Path, dtype: str, target: list[int], tokens: list[int]
) -> list[float]:
    """Log-probabilities of `tokens` after the target, by transformers in invariant mode."""
    import torch
    from transformers import AutoModelForCausalLM

    from driftscope_kernels import ops
    from driftscope_kernels.invariant_mode import invariant_mode
    from driftscope_kernels.options import TRANSFORMERS

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).train()
    ids = torch.tensor([*target, *tokens])
    with torch.no_grad(), invariant_mode():
        hidden = model.get_decoder()(input_ids=ids[None], use_cache=False).last_hidden_state[0]
        result = ops.token_logprob(
            hidden[-len(tokens) - 1 : -1],
            model.lm_head.weight,
            ids[-len(tokens) :],
            options=TRANSFORMERS.logprob,
        )
    found: list[float] = result.logprob.tolist()
    return found
