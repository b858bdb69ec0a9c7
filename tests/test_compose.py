"""docker-compose.yml and Dockerfiles agree with the code, as far as shows without an engine."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from driftscope_service.settings import PREFIX, Settings, load_settings

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILES = sorted((ROOT / "service/docker").glob("*.Dockerfile"))
NO_PASSWORD = re.compile(r"\$\{[A-Z_]+(:\?[^}]*|:-)\}")


def composed() -> dict[str, Any]:
    loaded = yaml.safe_load(COMPOSE.read_text())
    assert isinstance(loaded, dict)
    return loaded


SERVICES = composed()["services"]


def schema_faults(file: Path) -> str:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_schema_of_the_compose_specification_holds() -> None:
    assert schema_faults(COMPOSE) == ""


@pytest.mark.parametrize("fault", ["condition", "key"])
def test_the_schema_refuses_a_planted_fault(fault: str, tmp_path: Path) -> None:
    broken = copy.deepcopy(composed())
    if fault == "condition":
        broken["services"]["grafana"]["depends_on"]["prometheus"]["condition"] = "service_up"
    else:
        broken["services"]["service"]["read_onyl"] = True
    file = tmp_path / "docker-compose.yml"
    file.write_text(yaml.safe_dump(broken))
    assert schema_faults(file)


def test_the_profiles_are_those_of_the_documentation() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {
        "service": [], "prometheus": [], "grafana": ["grafana"],
        "service-gpu": ["gpu"], "alertmanager": ["alerts"], "postgres": ["postgres"],
    }  # fmt: skip
    documented = (ROOT / "docs/deploy-compose.md").read_text()
    assert all(f"| `{name}` |" in documented for name in ("gpu", "alerts", "postgres", "grafana"))
    # Off by default only where its image cannot be had: who copies the example has it.
    assert "COMPOSE_PROFILES=grafana\n" in (ROOT / ".env.example").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    user, _ = service["user"].split(":")
    assert int(user) != 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"] and service["mem_limit"] and service["init"] is True
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$", service["image"]), "an exact tag"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str) -> None:
    volumes = composed()["volumes"]
    for mount in SERVICES[name].get("volumes", []):
        source, _, _ = mount.partition(":")
        assert (ROOT / source).is_dir() if source.startswith("./") else source in volumes
        assert not source.startswith("./") or mount.endswith(":ro")
    for secret in SERVICES[name].get("secrets", []):
        assert "DRIFTSCOPE_SECRETS_DIR" in composed()["secrets"][secret]["file"]


def passwords(services: dict[str, Any]) -> list[str]:
    """Variables whose value in the file may be one; an address of the own machine has none."""
    return [
        f"{name} {variable}"
        for name, service in services.items()
        for variable, value in service.get("environment", {}).items()
        if variable.endswith(("PASSWORD", "_URL", "KEY", "TOKEN", "SECRET"))
        and str(value) not in ("", "http://127.0.0.1:${GRAFANA_PORT:-3000}")
        and not NO_PASSWORD.fullmatch(str(value))
    ]


def test_no_password_stands_in_the_file() -> None:
    assert passwords(SERVICES) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POSTGRES_PASSWORD", "driftscope"),
        ("POSTGRES_PASSWORD", "${POSTGRES_PASSWORD:-secret}"),
        ("DRIFTSCOPE_DATABASE_URL", "postgresql://driftscope:secret@127.0.0.1/driftscope"),
    ],
)
def test_a_planted_password_is_found(variable: str, value: str) -> None:
    assert passwords({"postgres": {"environment": {variable: value}}}) == [f"postgres {variable}"]


@pytest.mark.parametrize("name", ["service", "service-gpu"])
def test_the_service_reads_the_variables_it_is_given(name: str) -> None:
    given = {
        variable: re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", str(value))
        for variable, value in SERVICES[name]["environment"].items()
    }
    names = {PREFIX + field.upper() for field in Settings.model_fields}
    assert set(given) <= names
    with pytest.MonkeyPatch.context() as environment:
        for variable, value in given.items():
            environment.setenv(variable, value)
        settings = load_settings()
    assert settings.allowed_hosts == ("service", "service-gpu")


@pytest.mark.parametrize("name", ["service", "service-gpu"])
def test_ports_and_data_are_where_the_image_has_them(name: str) -> None:
    service = SERVICES[name]
    dockerfile = (ROOT / service["build"]["dockerfile"]).read_text()
    port = Settings.model_fields["port"].default
    assert service["ports"][0].endswith(f":{port}")
    assert f"EXPOSE {port}" in dockerfile
    assert f":{port}/readyz" in str(service["healthcheck"]["test"])
    assert service["volumes"][0].endswith(":/data") and "VOLUME /data" in dockerfile
    assert f"USER {service['user']}" in dockerfile


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_dockerfiles_copy_what_exists_and_pin_their_base(file: Path) -> None:
    text = file.read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.M))
    bases = set(re.findall(r"^FROM (\S+)", text, re.M)) - stages
    assert bases and all(re.search(r":\d+\.\d+\.\d+-\w+", base) for base in bases)
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources)
    assert "torchvision" not in re.sub(r"^#.*$", "", text, flags=re.M)


def test_the_image_builds_with_the_versions_that_are_tested() -> None:
    dockerfile = (ROOT / "service/docker/cpu.Dockerfile").read_text()
    pinned = (ROOT / "requirements/dev.txt").read_text().splitlines()
    named = re.findall(r"[a-z_-]+==[0-9.]+", dockerfile)
    assert named and set(named) <= set(pinned)


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-replicas.yml"])
def test_promtool_accepts_what_prometheus_mounts(tmp_path: Path, name: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH (Debian package: prometheus)")
    # As in the container, where the folder is /etc/prometheus and the key a file that exists.
    folder = tmp_path / "prometheus"
    shutil.copytree(ROOT / "dashboards/prometheus", folder)
    key = tmp_path / "prometheus_key"
    key.write_text("dsk_test")
    config = folder / name
    text = config.read_text().replace("/etc/prometheus", str(folder))
    config.write_text(text.replace("/run/secrets/prometheus_key", str(key)))
    done = subprocess.run(
        [promtool, "check", "config", str(config)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout


def test_prometheus_scrapes_the_services_by_their_names() -> None:
    config = yaml.safe_load((ROOT / "dashboards/prometheus/prometheus.yml").read_text())
    (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "driftscope")
    (found,) = job["dns_sd_configs"]
    assert job["metrics_path"] == "/metrics"
    assert set(found["names"]) <= set(SERVICES)
    assert found["port"] == Settings.model_fields["port"].default
    (alertmanager,) = config["alerting"]["alertmanagers"]
    assert set(alertmanager["dns_sd_configs"][0]["names"]) <= set(SERVICES)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Datasource(Strict):
    name: str
    uid: str
    type: str
    access: str
    url: str
    isDefault: bool
    editable: bool
    jsonData: dict[str, Any]


class Datasources(Strict):
    apiVersion: int
    datasources: list[Datasource]


class DashboardProvider(Strict):
    name: str
    folder: str
    type: str
    disableDeletion: bool
    allowUiUpdates: bool
    updateIntervalSeconds: int
    options: dict[str, str]


class DashboardProviders(Strict):
    apiVersion: int
    providers: list[DashboardProvider]


def test_grafana_is_provisioned_with_what_is_mounted() -> None:
    folder = ROOT / "dashboards/provisioning"
    sources = Datasources(
        **yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())
    ).datasources
    assert [(source.uid, source.url) for source in sources] == [
        ("prometheus", "http://prometheus:9090")
    ]
    providers = DashboardProviders(
        **yaml.safe_load((folder / "dashboards/driftscope.yaml").read_text())
    ).providers
    mounts = SERVICES["grafana"]["volumes"]
    assert f"./dashboards/grafana:{providers[0].options['path']}:ro" in mounts
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "dashboards/grafana" / Path(home).name).is_file()


def test_alertmanager_reads_secrets_that_are_mounted() -> None:
    text = (ROOT / "dashboards/alertmanager/alertmanager.yml").read_text()
    named = set(re.findall(r"/run/secrets/(\w+)", text))
    assert named == set(SERVICES["alertmanager"]["secrets"])
    config = yaml.safe_load(text)
    receivers = {receiver["name"] for receiver in config["receivers"]}
    routes = [config["route"], *config["route"]["routes"]]
    assert {route["receiver"] for route in routes} <= receivers
