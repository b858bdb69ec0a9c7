"""The drill's models: what they are trained on, and what becomes of their distributions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from driftscope_probes.diagnosis.drill import policies
from driftscope_probes.diagnosis.drill.lab import Lab, Sampling
from driftscope_probes.errors import ModelError
from driftscope_probes.models.cache import home
from driftscope_probes.progress import Progress


def test_an_unknown_policy_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ModelError, match="gpt-9 is not a policy") as caught:
        policies.policy_folder("gpt-9")
    assert "tiny-llama" in caught.value.remedy


@pytest.mark.slow
def test_training_lowers_the_loss_and_leaves_a_folder_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fiftieth of the steps: enough to be surer of the text than a random model."""
    monkeypatch.setattr(policies, "STEPS", 10)
    monkeypatch.setattr(policies, "WARM_UP", 2)
    seen: list[Progress] = []
    policies._train(policies.qwen_seed, tmp_path, seen.append)
    losses = [float(one.detail.split()[1]) for one in seen if one.detail.startswith("loss")]
    assert len(losses) == 10 and losses[-1] < losses[0] - 0.5
    model = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert model.config.model_type == "qwen3"
    assert model.config.max_position_embeddings == 4096
    assert float(model.model.rotary_emb.inv_freq[-1]) == pytest.approx(1e6 ** (-15 / 16), rel=1e-6)
    lab = Lab(tmp_path, "fp32", "fp32", 0)
    sampled = lab.roll_out(lab.engine(), lab.prompts(8), Sampling(16), processed=False)
    assert np.concatenate(sampled.logprobs).mean() > -np.log(model.config.vocab_size)


@pytest.mark.parametrize("name", [name for name in policies.POLICIES if name.startswith("tiny")])
def test_a_trained_policy_is_sure_of_some_tokens_and_open_at_others(name: str) -> None:
    """Only where it is built already: training takes minutes."""
    folder = home() / "drill" / name
    if not (folder / "manifest.json").is_file():
        pytest.skip(f"{name} is not built on this machine")
    lab = Lab(folder, "fp32", "fp32", 0)
    sampled = lab.roll_out(lab.engine(), lab.prompts(16), Sampling(32), processed=False)
    probability = np.exp(np.concatenate(sampled.logprobs))
    low, middle, high = np.quantile(probability, (0.1, 0.5, 0.9))
    assert low < 0.25 and 0.3 < middle < 0.99 and high > 0.95
