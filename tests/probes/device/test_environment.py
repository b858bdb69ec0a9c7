import json

import pytest

from driftscope_probes.device.environment import environment


def test_it_is_json_and_names_what_runs_here() -> None:
    found = json.loads(json.dumps(environment()))
    assert found["packages"]["numpy"]
    assert found["hardware"]["cores"] >= 1


def test_variables_that_steer_numerics_are_kept_and_secrets_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("VLLM_API_KEY", "hush")
    monkeypatch.setenv("CUDA_SECRET_THING", "hush")
    monkeypatch.setenv("UNRELATED", "x")
    variables = environment()["variables"]
    assert variables["OMP_NUM_THREADS"] == "3"
    assert "hush" not in variables.values()
    assert "UNRELATED" not in variables
