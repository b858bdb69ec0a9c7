"""The choice of the executor: what is accepted, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from driftscope_service.jobs.executors.local import LocalExecutor
from driftscope_service.jobs.executors.ray import cluster as ray_cluster
from driftscope_service.jobs.executors.ray.errors import ClusterUnreachable
from driftscope_service.jobs.executors.ray.executor import RayExecutor
from driftscope_service.service import build_service
from driftscope_service.settings import load_settings

pytestmark = pytest.mark.usefixtures("clean_environment")


def chosen(settings: Any) -> Any:
    return build_service(settings).executor.tools.executor


def test_the_executor_is_chosen_by_the_settings(make_settings: Any, tmp_path: Path) -> None:
    assert isinstance(chosen(make_settings()), LocalExecutor)
    token = tmp_path / "token"
    token.write_text("secret")
    given = {"executor": "ray", "ray_address": "head:6379", "ray_token_file": token}
    ray = chosen(make_settings(**given, ray_gpus_per_job=1, ray_resources={"rack": 1}))
    assert isinstance(ray, RayExecutor)
    assert (ray.name, ray.module) == ("ray", "driftscope_probes.run_probe")
    assert (ray.cluster.options.gpus, ray.cluster.options.resources) == (1.0, {"rack": 1.0})
    # The driver reads the token itself.
    assert "secret" not in repr(ray)
    assert ray.cluster._authentication()["RAY_AUTH_TOKEN_PATH"] == str(token.resolve())


def test_the_command_line_names_the_cluster() -> None:
    settings = load_settings({}, executor="ray", ray_address="127.0.0.1:6379")
    assert (settings.executor, settings.ray_address) == ("ray", "127.0.0.1:6379")


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"executor": "slurm"}, "'local' or 'ray'"),
        ({"executor": "ray"}, "needs DRIFTSCOPE_RAY_ADDRESS"),
        ({"executor": "ray", "ray_address": "http://head:8265"}, "is none of HOST:PORT"),
        ({"executor": "ray", "ray_address": "head:6379"}, "DRIFTSCOPE_RAY_TOKEN_FILE"),
        ({"executor": "ray", "ray_address": "ray://10.0.0.1:10001"}, "DRIFTSCOPE_RAY_TOKEN_FILE"),
        ({"executor": "ray", "ray_address": "auto"}, "DRIFTSCOPE_RAY_TOKEN_FILE"),
        ({"ray_token_file": "/nowhere/token"}, "is not a file"),
        ({"ray_resources": {"rack": 0}}, "greater than 0"),
    ],
)
def test_what_is_refused(make_settings: Any, given: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        make_settings(**given)


def test_another_interpreter_is_for_the_local_executor(make_settings: Any) -> None:
    with pytest.raises(ValidationError, match="PROBE_PYTHON"):
        make_settings(executor="ray", ray_address="[::1]:6379", probe_python="/bin/true")


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "ray://localhost:10001", "[::1]:6379"])
def test_on_loopback_a_token_is_not_required(make_settings: Any, address: str) -> None:
    assert make_settings(executor="ray", ray_address=address).ray_address == address


def test_a_network_of_its_own_may_do_without(make_settings: Any) -> None:
    make_settings(executor="ray", ray_address="head:6379", ray_without_token=True)


def test_without_ray_the_service_says_what_to_install(
    make_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda _: None)
    settings = make_settings(executor="ray", ray_address="127.0.0.1:6379")
    with pytest.raises(ClusterUnreachable, match="not installed") as error:
        build_service(settings)
    assert "driftscope[ray]" in error.value.remedy
