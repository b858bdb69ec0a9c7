"""The generated models: same bytes, loadable, and with sensible next-token distributions."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from driftscope_probes.models import tiny_random
from driftscope_probes.models.cache import Build
from driftscope_probes.progress import discard

BUILDS: dict[str, Build] = {"llama": tiny_random.build_llama, "moe": tiny_random.build_moe}
# The same on every machine and with every version of the libraries: a change here is a new recipe.
WEIGHTS_SHA256 = {
    "llama": "3a1e2f0a542703485503084c97e9320b9a41ff888e939f72ea45381a5fc7473e",
    "moe": "91be5f4d11f43a5099800ad0b23e44ada6c491615188f1918c0fa2e92694bd97",
}


@pytest.fixture(scope="module", params=["llama", "moe"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def built(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(kind)
    BUILDS[kind](folder, discard)
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_builds_are_the_same_bytes(kind: str, built: Path, tmp_path: Path) -> None:
    BUILDS[kind](tmp_path, discard)
    first = {path.name: sha256(path) for path in built.iterdir()}
    assert first == {path.name: sha256(path) for path in tmp_path.iterdir()}
    assert first["model.safetensors"] == WEIGHTS_SHA256[kind]


def test_every_weight_loads_and_none_is_left_over(built: Path) -> None:
    model, report = AutoModelForCausalLM.from_pretrained(
        built, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(report.values()), report
    assert model.dtype == torch.bfloat16
    assert len(AutoTokenizer.from_pretrained(built)) == model.config.vocab_size


def test_weights_are_exact_in_all_three_dtypes(built: Path) -> None:
    from safetensors.torch import load_file

    for name, weight in load_file(built / "model.safetensors").items():
        assert torch.equal(weight.float(), weight.half().float()), name


def test_next_token_distributions_are_neither_flat_nor_a_peak(built: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(built, dtype=torch.float32)
    ids = torch.randint(0, model.config.vocab_size, (4, 64))
    with torch.no_grad():
        logprobs = model(ids).logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    uniform = math.log(model.config.vocab_size)
    assert 0.3 * uniform < entropy.mean() < 0.75 * uniform
    assert entropy.min() > 0.5
    # The context matters: the same last token after other tokens gives another distribution.
    ids[:, -1] = 5
    with torch.no_grad():
        last = model(ids).logits[:, -1].softmax(-1)
    assert (last[0] - last[1]).abs().sum() > 0.5


def test_chat_and_generation(built: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(built)
    model = AutoModelForCausalLM.from_pretrained(built, dtype=torch.float32)
    chat = [{"role": "user", "content": "hello"}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    inputs = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 8
    assert tokenizer.decode(output[0])


def test_random_weight_depends_on_its_name_alone() -> None:
    first = tiny_random.random_weight("a.weight", (64, 32))
    np.testing.assert_array_equal(first, tiny_random.random_weight("a.weight", (64, 32)))
    other = tiny_random.random_weight("b.weight", (64, 32))
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("name", "deviation"),
    [
        ("model.embed_tokens.weight", 1.0),
        ("model.layers.0.mlp.up_proj.weight", 1 / math.sqrt(128)),
        ("lm_head.weight", tiny_random.LOGIT_GAIN / math.sqrt(128)),
    ],
)
def test_random_weight_has_the_deviation_it_should(name: str, deviation: float) -> None:
    weight = tiny_random.random_weight(name, (500, 128))
    assert weight.std() == pytest.approx(deviation, rel=0.02)
    assert abs(weight.mean()) < 0.02 * deviation
    assert np.abs(weight).max() <= deviation * math.sqrt(3) * 1.001
