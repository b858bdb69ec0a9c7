"""Real engines, in processes of their own, that find the plugin by its installed entry point."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import driftscope_kernels
from driftscope_kernels.vllm_plugin import rounding

from .models import LEAST_VOCABULARY, family

SCRIPT = Path(__file__).with_name("engine_script.py")
TARGET_TOKENS, CONTEXT, NEW_TOKENS = 150, 256, 10
MOST_OTHERS = 32

RunEngines = Callable[..., list[dict[str, Any]]]
#: One engine, sampling.
ALONE = {
    "dtype": "bfloat16",
    "engine": {"enable_prefix_caching": False},
    "others": (0,),
    "temperature": 1.0,
}


@pytest.fixture
def use_rounding() -> Iterator[None]:
    """The test may change where this process rounds."""
    before = rounding.text_in_use()
    yield
    rounding.use(before)


@pytest.fixture(scope="session")
def plugin_environment() -> dict[str, str]:
    assert driftscope_kernels.__file__ is not None
    kernels = Path(driftscope_kernels.__file__).parents[1]
    return {
        **os.environ,
        "PYTHONPATH": str(kernels),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "INFO",
        "HF_HUB_OFFLINE": "1",
        "TORCHDYNAMO_DISABLE": "1",
    }


@pytest.fixture(scope="session")
def run_engines(
    plugin_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> RunEngines:
    """One process: engines of one model and dtype one after another; a result per variant."""

    def run(
        variants: Sequence[Mapping[str, Any]],
        kernels: str = "invariant",
        threads: int = 1,
        keep: bool = False,
    ) -> list[dict[str, Any]]:
        """Of each variant: model, dtype, engine options, others beside the target, temperature;

        a folder to reload weights from and rounding to read the tokens with, where wanted. `keep`:
        the engines of small models stay until the process ends.
        """
        folder = tmp_path_factory.mktemp("engines")
        request = {
            "context": CONTEXT,
            "max_tokens": NEW_TOKENS,
            "keep": keep,
            "variants": [{"reload": None, "rounding": [], **variant} for variant in variants],
            **prompts(),
        }
        asked, result = folder / "request.json", folder / "result.json"
        asked.write_text(json.dumps(request, default=str))
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(asked), str(result)],
            env=plugin_environment
            | {"DRIFTSCOPE_VLLM_KERNELS": kernels, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        results: list[dict[str, Any]] = json.loads(result.read_text())
        return results

    return run


@pytest.fixture(scope="session")
def reloads(
    tiny_qwen3: Path, tiny_qwen3_updated: Path, tiny_moe: Path, tiny_moe_updated: Path
) -> list[dict[str, Any]]:
    """Variants in pairs: an engine that reloads weights, and one that was started with them.

    The mixture first: engines beside each other share the process groups that the first has made.
    """
    pairs = ((tiny_moe, tiny_moe_updated), (tiny_qwen3, tiny_qwen3_updated))
    return [
        variant
        for old, new in pairs
        for variant in ({**ALONE, "model": old, "reload": new}, {**ALONE, "model": new})
    ]


@pytest.fixture(scope="session")
def of_stock(
    smollm2: Path, reloads: list[dict[str, Any]], run_engines: RunEngines
) -> list[dict[str, Any]]:
    """Stock vLLM, the control of several tests: reloads, then SmolLM2 alone and among others."""
    among = {**ALONE, "model": smollm2, "others": (0, 8, 32)}
    return run_engines([*reloads, among], kernels="stock", keep=True)


def prompts() -> dict[str, Any]:
    """A target longer than a page of the cache (128 tokens), and others."""
    draw = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(3, LEAST_VOCABULARY) for _ in range(count)]

    return {
        "target": tokens(TARGET_TOKENS),
        "others": [tokens(draw.randrange(3, 24)) for _ in range(MOST_OTHERS)],
    }


@pytest.fixture(scope="session")
def target_tokens() -> list[int]:
    found: list[int] = prompts()["target"]
    return found


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dense, tied embeddings, norms of queries and keys."""
    return qwen3(tmp_path_factory.mktemp("qwen3"), seed=0)


@pytest.fixture(scope="session")
def tiny_qwen3_updated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with other weights throughout, the embeddings among them."""
    return qwen3(tmp_path_factory.mktemp("qwen3_updated"), seed=1)


@pytest.fixture(scope="session")
def tiny_moe_updated(tiny_moe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny mixture with the weights of its experts halved."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("moe_updated") / "model"
    shutil.copytree(tiny_moe, folder)
    tensors = load_file(folder / "model.safetensors")
    changed = {name: x * 0.5 if ".experts." in name else x for name, x in tensors.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def qwen3(folder: Path, seed: int) -> Path:
    return family(
        folder,
        "Qwen3",
        seed,
        intermediate_size=256,
        num_hidden_layers=3,
        head_dim=32,
        tie_word_embeddings=True,
    )
