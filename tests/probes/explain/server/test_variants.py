"""What the trainer may be changed to, from its configuration; changed folders and their sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from driftscope_probes.explain.server.alignment import precision_of
from driftscope_probes.explain.server.changed_folder import ChangedFolders, edited
from driftscope_probes.explain.server.request import ServerExplainRequest
from driftscope_probes.explain.server.variants import Other, summed, variants_of

REQUEST = ServerExplainRequest(engine_server="http://127.0.0.1:8000", model="m")
ROTARY = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
WINDOWED: dict[str, Any] = {"sliding_window": 64, "rope_parameters": ROTARY, "rms_norm_eps": 1e-6}


def named(trainer: dict[str, Any], engine: dict[str, Any], **asked: Any) -> dict[str, Any]:
    request = REQUEST.model_copy(update=asked)
    return {one.name: one for one in variants_of(request, trainer, engine, {})}


def test_a_setting_of_the_model_has_its_variants() -> None:
    found = named(WINDOWED, WINDOWED)
    assert {"window ignored", "window 63", "window 65", "rotary scaling off"} <= found.keys()
    assert "rotary base 1e+06" not in found and "norm epsilon 1e-06" not in found
    assert {"rotary base 10000", "norm epsilon 1e-05", "dropout off"} <= found.keys()
    plain = edited(WINDOWED, found["rotary scaling off"].way.config)["rope_parameters"]
    assert plain == {"rope_type": "default", "rope_theta": 1e6}
    assert not [name for name in named({}, {}) if name.startswith(("window", "rotary"))]


def test_modes_and_temperature_follow_the_request() -> None:
    found = named({}, {}, trainer_dtype="fp32")
    assert {"dtype bf16", "dtype fp16", "weights in bf16"} <= found.keys()
    head = [found["dtype bf16"], found["head in float32"]]
    assert summed(head).mode("fp32") == "bf16+fp32-head"
    assert summed([found["head in float32"]]).mode("fp32+fp32-head") == "fp32+fp32-head"
    tempered = REQUEST.sampling.model_copy(update={"temperature": 0.7})
    assert "behind temperature" in named({}, {}, sampling=tempered)
    assert "behind temperature" not in found


def test_each_key_that_differs_is_tried_by_itself() -> None:
    engine = WINDOWED | {"rope_parameters": {**ROTARY, "rope_theta": 5e5}, "sliding_window": None}
    found = named(WINDOWED, engine)
    base = found["config rope_parameters.rope_theta as the engine's"]
    assert base.axis == found["rotary base 10000"].axis
    window = found["config sliding_window as the engine's"]
    assert edited(WINDOWED, summed([base, window]).config) == engine


def test_other_weights_run_under_the_trainers_configuration(tmp_path: Path) -> None:
    """And a change of it is not undone, in whichever order the two were chosen."""
    other = WINDOWED | {"sliding_window": 8}
    found = variants_of(REQUEST, WINDOWED, other, {"x": Other(tmp_path, other)})
    weights = next(one for one in found if one.axis == "weights")
    window = next(one for one in found if one.name == "window 65")
    assert edited(other, weights.way.config) == WINDOWED
    total = summed([window, weights])
    assert total.weights == tmp_path
    assert edited(other, total.config)["sliding_window"] == 65


def test_a_changed_folder_links_the_weights(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(WINDOWED))
    (folder / "model.safetensors").write_bytes(b"weights")
    folders = ChangedFolders(tmp_path / "changed")
    assert folders.of(folder, ()) == folder
    made = folders.of(folder, (("sliding_window", None),))
    assert made == folders.of(folder, (("sliding_window", None),)) != folder
    assert json.loads((made / "config.json").read_text())["sliding_window"] is None
    assert (made / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((folder / "config.json").read_text()) == WINDOWED


def test_lost_decimals_are_said() -> None:
    values = -np.random.default_rng(3).exponential(size=200).astype(np.float32)
    whole = values.astype(np.float64)
    assert precision_of(whole).resolution == 0.0
    # What prints a float32 with the fewest digits that give it back loses nothing.
    shortest = np.array([float(str(value)) for value in values])
    assert precision_of(shortest).resolution == 0.0
    rounded = precision_of(np.round(whole, 4))
    assert rounded.resolution == pytest.approx(1e-4)
    assert "cannot be claimed" in rounded.sentence


def test_requests_that_could_not_be_read_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"http://127\.0\.0\.1:8000"):
        ServerExplainRequest(engine_server="file:///etc/passwd", model="m")
    with pytest.raises(ValidationError, match="temperature 1"):
        ServerExplainRequest(
            engine_server="http://a",
            model="m",
            logprobs_mode="processed_logprobs",
            sampling={"temperature": 0.7},
        )
