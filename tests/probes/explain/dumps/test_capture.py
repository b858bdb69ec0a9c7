"""The function of docs/capture.md, as it stands there, on a real trainer and a real engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from driftscope_probes.explain.dumps.run import explain_dumps
from driftscope_probes.models.fetch import fetch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
EXAMPLE = ROOT / "examples/capture/capture.py"
LONGEST = 60
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [100, 200, 300, 400, 500, 600, 700, 800]]
ROTARY = (modeling_llama, "apply_rotary_pos_emb", ("q_rotary", "k_rotary"))
ENGINE = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "TORCHDYNAMO_DISABLE": "1",
}
Capture = Callable[..., AbstractContextManager[None]]


def block() -> str:
    page = (ROOT / "docs/capture.md").read_text(encoding="utf-8")
    found = re.search(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def capture() -> Capture:
    names: dict[str, Any] = {}
    exec(compile(block(), "docs/capture.md", "exec"), names)
    found: Capture = names["capture"]
    return found


@pytest.fixture(scope="module")
def folder() -> Path:
    return fetch("tiny-random-llama").path


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def engine(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first` and `second`: the same prompts read twice by vLLM."""
    to = tmp_path_factory.mktemp("engine")
    (to / "prompts.json").write_text(json.dumps(PROMPTS))
    script = Path(__file__).with_name("engine_capture.py")
    (to / "block.py").write_text(block())
    done = subprocess.run(
        [sys.executable, "-P", str(script), str(folder), "bfloat16", str(to), str(to / "block.py")],
        env={**os.environ, **ENGINE},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return to


def trainer_dump(capture: Capture, model: Any, to: Path, **options: Any) -> Path:
    with capture(model, str(to), functions=[ROTARY], **options), torch.no_grad():
        for ids in PROMPTS:
            model(torch.tensor([ids]))
    return to


def hooks_of(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_page_holds_the_example_and_it_is_short() -> None:
    assert block() == EXAMPLE.read_text(encoding="utf-8")
    assert len(block().splitlines()) <= LONGEST
    assert "driftscope" not in re.sub(r"#.*", "", block())


def test_bf16_is_kept_and_the_model_is_as_it_was(
    capture: Capture, model: Any, tmp_path: Path
) -> None:
    trainer_dump(capture, model, tmp_path / "a")
    assert hooks_of(model) == 0
    assert modeling_llama.apply_rotary_pos_emb.__name__ == "apply_rotary_pos_emb"
    files = sorted((tmp_path / "a/rank0").glob("*.safetensors"))
    assert len(files) == len(PROMPTS)
    with safe_open(files[0], framework="pt") as file:
        assert file.get_tensor("1.q_rotary").shape == (1, len(PROMPTS[0]), 128)
        assert file.get_tensor("model.norm.output").dtype == torch.bfloat16
        assert file.get_tensor("input_ids").tolist() == [PROMPTS[0]]


def test_a_failing_run_leaves_no_hook_and_no_file(
    capture: Capture, model: Any, tmp_path: Path
) -> None:
    original = modeling_llama.apply_rotary_pos_emb
    with pytest.raises(IndexError), capture(model, str(tmp_path / "a"), functions=[ROTARY]):
        model(torch.tensor([[10**6]]))
    assert hooks_of(model) == 0
    assert modeling_llama.apply_rotary_pos_emb is original
    assert not list((tmp_path / "a").rglob("*.safetensors"))


def test_recomputation_in_backward_adds_nothing(
    capture: Capture, folder: Path, tmp_path: Path
) -> None:
    trained = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trained.gradient_checkpointing_enable({"use_reentrant": False})
    trained.train()
    with capture(trained, str(tmp_path / "a")):
        for ids in PROMPTS:
            trained(torch.tensor([ids])).logits.sum().backward()
    with capture(trained, str(tmp_path / "b")), torch.no_grad():
        for ids in PROMPTS:
            trained(torch.tensor([ids]))
    report = explain_dumps(tmp_path / "a", tmp_path / "b")
    assert (report.verdict, report.gap, report.uncovered) == ("equal", None, [])
    assert report.alignment.checks[0].says == "17 tokens each"


def test_padding_and_batching_are_no_difference(
    capture: Capture, folder: Path, tmp_path: Path
) -> None:
    """One batch with padding on the left, in the other order, against one sequence at a time."""
    from driftscope_kernels.invariant_mode import invariant_mode

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    short, long = PROMPTS[1], PROMPTS[0]
    ids = torch.tensor([long, [0, *short]])
    mask = torch.tensor([[1] * 9, [0] + [1] * 8])
    positions = torch.tensor([list(range(9)), [0, *range(8)]])
    with invariant_mode(), torch.no_grad():
        with capture(model, str(tmp_path / "batch"), functions=[ROTARY]):
            model(ids, attention_mask=mask, position_ids=positions)
        with capture(model, str(tmp_path / "alone"), functions=[ROTARY]):
            model(torch.tensor([short]))
            model(torch.tensor([long]))
    report = explain_dumps(tmp_path / "batch", tmp_path / "alone")
    says = {check.what: check.says for check in report.alignment.checks}
    assert says["tokens"] == "17 equal token ids, sequences in another order"
    assert report.exit_code in (0, 1)
    linear = [c for c in report.compared if c.op in ("linear", "norm", "residual_norm")]
    assert linear[0].own_inputs_equal_fraction == 1.0


def test_two_runs_of_one_engine_are_equal(engine: Path) -> None:
    report = explain_dumps(engine / "first", engine / "second")
    assert (report.verdict, report.exit_code, report.uncovered) == ("equal", 0, [])
    assert json.loads((engine / "hooks.json").read_text()) == [[0], [0]]


def test_engine_against_trainer_begins_at_the_rotary_embedding(
    engine: Path, capture: Capture, model: Any, tmp_path: Path
) -> None:
    """As the ops recomputed one by one say: vLLM on CPU rounds a bf16 rotation once."""
    report = explain_dumps(engine / "first", trainer_dump(capture, model, tmp_path / "trainer"))
    assert report.exit_code == 1
    assert report.first is not None
    first = report.first
    assert (first.layer, first.op, first.inputs, first.ulp) == (0, "rotary", "equal", 1)
    assert first.position > 0  # position 0 is turned by nothing
    assert [op.op for op in report.ops] == ["rotary", "residual_norm"]
    assert report.uncovered == ["logits: in B alone"]
    relative = [one.relative_difference for one in report.growth]
    assert relative[0] == 0 < relative[1] < relative[2]


@pytest.fixture(autouse=True)
def _one_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RANK", raising=False)
    yield


def test_with_weights_the_reasons_are_named(
    engine: Path, capture: Capture, model: Any, tmp_path: Path
) -> None:
    """The line of the page that writes weights, on one side; the other's are taken to be these."""
    line = re.search(r"`(save_file\(\{f\"weights.*?)`", (ROOT / "docs/capture.md").read_text())
    assert line is not None
    trainer = trainer_dump(capture, model, tmp_path / "trainer")
    code = line[1].replace('"trainer/rank0', f'"{trainer}/rank0')
    exec(code, {"save_file": save_file, "model": model})
    report = explain_dumps(engine / "first", trainer)
    rotary, norm = report.ops
    assert (rotary.reason, norm.reason) == ("rounding_point", "rounding_point")
    assert (rotary.engine.variant, rotary.trainer.variant) == ("float32", "plain")
    assert (norm.engine.variant, norm.trainer.variant) == ("float32_sum", "plain")
    assert rotary.beyond_tolerance == norm.beyond_tolerance == 0
    # Layers behind have no token with equal inputs, so rounding is not said of all that differs.
    assert report.verdict == "unexplained"
    assert "have no token with equal inputs and are not judged" in report.sentence


def test_a_wrong_weight_is_a_fault(
    capture: Capture, folder: Path, model: Any, tmp_path: Path
) -> None:
    other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.no_grad():
        other.model.layers[1].post_attention_layernorm.weight[5] *= 2
    for name, one in (("a", model), ("b", other)):
        trainer_dump(capture, one, tmp_path / name)
        weights = {f"weights.{n}": p.detach().clone() for n, p in one.named_parameters()}
        save_file(weights, tmp_path / name / "rank0/weights.safetensors")
    report = explain_dumps(tmp_path / "a", tmp_path / "b")
    assert report.verdict == "fault"
    assert [(op.op, op.layers, op.reason) for op in report.ops] == [
        ("residual_norm", [1], "weight")
    ]
    (weight,) = report.alignment.weights
    assert weight.tensor == "model.layers.1.post_attention_layernorm.weight"
    assert report.alignment.weights_compared == 30
