"""docs/frameworks.md and docs/integrations.md: each block runs on its framework's batch, and each
test that a cell names is there."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tests.client.adapters.framework_batches import nemo_rl
from tests.client.adapters.framework_batches import slime as slime_batch
from tests.client.adapters.framework_sources import FrameworkSources
from tests.client.adapters.test_verl import data_proto

from driftscope_client import DriftscopeClient
from driftscope_client.adapters import slime

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
TABLE = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
MOST_LINES = 5
NO_SOURCES = FrameworkSources({})
#: Of the tables of integrations.md.
HEADERS, NOT_POSSIBLE = ("framework", "logger"), "–"


def recipe(section: str, language: str = "python") -> str:
    part = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", part, re.DOTALL)
    assert found is not None, section
    return found.group(1)


def openrlhf_batch() -> Any:
    """The names and shapes of class Experience; its own code makes one in test_frameworks.py."""
    import torch

    ones = torch.ones(2, 3)
    return [
        SimpleNamespace(
            sequences=torch.ones(2, 4, dtype=torch.long),
            action_mask=ones,
            rollout_log_probs=-ones,
            action_log_probs=-ones,
            advantages=ones,
        )
    ]


def skyrl_batch() -> Any:
    import torch

    ones = torch.ones(2, 3)
    return {
        "sequences": torch.ones(2, 5, dtype=torch.long),
        "loss_mask": ones,
        "rollout_logprobs": -ones,
        "action_log_probs": -ones,
    }


def areal_batch() -> Any:
    import torch

    ones = torch.ones(1, 4)
    return [
        {"input_ids": ones.long(), "loss_mask": ones, "logprobs": -ones, "prox_logp": -ones}
        for _ in range(2)
    ]


TRAINER = {"self": SimpleNamespace(global_step=7, global_steps=7, args=None, cfg=None, config=None)}
#: Section → what its lines find where they are written.
FOUND: dict[str, Callable[[], dict[str, Any]]] = {
    "verl": lambda: {**TRAINER, "batch": data_proto()},
    "OpenRLHF": lambda: {**TRAINER, "global_step": 7, "experiences": openrlhf_batch()},
    "SkyRL": lambda: {**TRAINER, "training_input": skyrl_batch()},
    "AReaL": lambda: {**TRAINER, "global_step": 7, "rollout_batch": areal_batch()},
    "NeMo-RL": lambda: {"total_steps": 7, "train_data": nemo_rl(NO_SOURCES), "master_config": None},
    "miles": lambda: {
        **TRAINER,
        **{"rollout_id": 7, "rollout_data": slime_batch(NO_SOURCES), "dp_rank": 0, "dp_size": 1},
    },
}


def test_every_section_of_the_page_has_a_block_that_is_run_here() -> None:
    sections = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert set(sections) - {"TRL", "slime", "prime-rl", "A loop of your own"} == set(FOUND)
    rows = re.findall(r"^\| ([\w, -]+) \| (?:\d|main)", PAGE, re.MULTILINE)
    assert {name for row in rows for name in row.split(", ")} | {
        "prime-rl",
        "A loop of your own",
    } == set(sections)


@pytest.mark.parametrize("section", FOUND)
def test_a_block_pushes_one_step_in_five_lines(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    code = recipe(section)
    assert len([line for line in code.splitlines() if line.strip()]) <= MOST_LINES
    stub = serve()
    monkeypatch.setenv("DRIFTSCOPE_URL", stub.url)
    monkeypatch.setenv("DRIFTSCOPE_RUN", "r")
    names = FOUND[section]()
    exec(code, names)
    client: DriftscopeClient = names["client"]
    client.close()
    assert (client.pushes, client.pushed) == (1, 1), client.last_error
    assert "/steps/7/" in stub.requests[-1][0]


def test_trls_block_is_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    code = recipe("TRL")
    assert len([line for line in code.splitlines() if line.strip()]) <= MOST_LINES
    trl = ModuleType("trl")  # importing the real one takes ten seconds; test_trl.py runs it
    trl.GRPOTrainer = type("GRPOTrainer", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trl", trl)
    names: dict[str, Any] = {}
    exec(code, names)
    assert issubclass(names["Trainer"], trl.GRPOTrainer)


def test_slimes_option_names_a_function_that_is_there() -> None:
    (path,) = re.findall(r"--rollout-data-postprocess-path (\S+)", recipe("slime", "sh"))
    assert path == f"{slime.__name__}.{slime.postprocess.__name__}"


def test_the_page_names_the_option_that_each_adapter_asks_for() -> None:
    for option in (
        "actor_rollout_ref.rollout.calculate_log_probs=True",
        "--algo.advantage.is_correction_level token",
        "generator.sampling_params.logprobs=1",
        "actor.use_decoupled_loss=true",
        "actor.recompute_logprob=true",
        "loss_fn.force_on_policy_ratio=false",
        "--get-mismatch-metrics",
    ):
        folder = ROOT / "service" / "driftscope_client" / "adapters"
        said = [path.name for path in folder.glob("*.py") if option in _joined(path)]
        assert option in PAGE and said, option


def _joined(path: Path) -> str:
    """With strings that go over several lines as one."""
    return re.sub(r'"\s*\n\s*"', "", path.read_text(encoding="utf-8"))


def test_every_test_that_the_table_names_is_there() -> None:
    rows = [line.strip("| ").split(" | ") for line in TABLE.splitlines() if line.startswith("| ")]
    cells = [(row[0], cell) for row in rows for cell in row[1:] if row[0] not in HEADERS]
    assert len(cells) > len(FOUND)
    for row, cell in cells:
        named = re.findall(r"`(tests/\S+\.py)::(\w+)`", cell)
        assert named or cell == NOT_POSSIBLE, (row, cell)
        for file, function in named:
            assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), (row, cell)
