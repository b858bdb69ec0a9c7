"""The Helm chart: linted, rendered, read by kubectl's types, and held against the code."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute

from driftscope_service.metrics_page import router
from driftscope_service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/driftscope"
SHARED = (
    "--set", "replicas=3", "--set", "database.existingSecret=pg",
    "--set", "storage.url=s3://bucket/prefix", "--set", "storage.credentialsSecret=s3",
)  # fmt: skip
HOOKED = (
    "--set", "publicUrl=https://driftscope.example.com", "--set", "webhook.existingSecret=hook",
    "--set", "webhook.secretKey=signs",
)  # fmt: skip
MONITORED = ("--set", "serviceMonitor.enabled=true", "--set", "serviceMonitor.keySecret=scrape")
VARIABLES = {PREFIX + name.upper() for name in Settings.model_fields}


def run(*command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)


def rendered(helm: str, *values: str, chart: Path = CHART) -> list[dict[str, Any]]:
    done = run(helm, "template", "trial", str(chart), "--namespace", "rl", *values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


@pytest.mark.parametrize(
    "values", [(), SHARED, MONITORED, HOOKED], ids=["one", "shared", "monitored", "hooked"]
)
def test_helm_finds_nothing_to_say(helm: str, values: tuple[str, ...]) -> None:
    done = run(helm, "lint", "--strict", str(CHART), *values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (("--set", "replicas=2"), "database.existingSecret"),
        (("--set", "replicas=2", "--set", "database.existingSecret=pg"), "storage.url"),
        (("--set", "storage.url=s3://b/p", "--set", "storage.existingClaim=c"), "in one place"),
        (("--set", "serviceMonitor.enabled=true"), "serviceMonitor.keySecret"),
        (("--set", "replica=2"), "replica"),
        (("--set", "storage.url=http://b"), "url"),
        (("--set", "settings.data_dir=/x"), "data_dir"),
        (("--set", "settings.webhook_secret=in-the-open"), "webhook_secret"),
        (("--set", "webhook.existingSecret=hook"), "webhook.secretKey"),
        (("--set", "publicUrl=driftscope.example.com"), "publicUrl"),
    ],
)
def test_values_that_would_not_work_are_refused(
    helm: str, values: tuple[str, ...], word: str
) -> None:
    done = run(helm, "template", "trial", str(CHART), *values)
    assert done.returncode != 0
    assert word in done.stderr


def names(value: object, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{prefix}.{name}"
            yield from names(inner, f"{prefix}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from names(inner, prefix)


def lost_fields(kubectl: str, document: dict[str, Any]) -> set[str]:
    """Fields that kubectl does not know: it reads into its types and writes what it has read."""
    change = ("selector", "a=b") if document["kind"] == "Service" else ("env", "A=b")
    command = (kubectl, "set", change[0], "--local", "-f", "-", change[1], "-o", "json")
    done = run(*command, given=yaml.safe_dump(document))
    assert done.returncode == 0, done.stderr
    return set(names(document)) - set(names(json.loads(done.stdout)))


@pytest.mark.parametrize("values", [(), SHARED], ids=["one", "shared"])
def test_kubernetes_knows_every_field(helm: str, kubectl: str, values: tuple[str, ...]) -> None:
    documents = rendered(helm, *values)
    kinds = [document["kind"] for document in documents]
    assert sorted(set(kinds) - {"PodDisruptionBudget"}) == ["Service", "StatefulSet"]
    # Its fields are few, and no command of kubectl reads it without a cluster.
    budgets = [document for document in documents if document["kind"] == "PodDisruptionBudget"]
    assert [set(budget["spec"]) for budget in budgets] == (
        [{"maxUnavailable", "selector"}] if values else []
    )
    # The command replaces the selector of a Service; its labels are not lost fields.
    for document in documents:
        if document not in budgets:
            lost = lost_fields(kubectl, document)
            replaced = {name for name in lost if name.startswith(".spec.selector.")}
            assert lost - replaced == set(), document["kind"]


@pytest.mark.parametrize("kind", ["StatefulSet", "Service"])
def test_a_misspelt_field_is_seen(helm: str, kubectl: str, kind: str) -> None:
    document = next(d for d in rendered(helm) if d["kind"] == kind)
    inner = document["spec"]["template"]["spec"] if kind == "StatefulSet" else document["spec"]
    inner["enableServiceLink"] = False
    assert any(name.endswith(".enableServiceLink") for name in lost_fields(kubectl, document))


@pytest.mark.parametrize("values", [(), SHARED], ids=["one", "shared"])
def test_containers_are_locked_down(helm: str, values: tuple[str, ...]) -> None:
    pod = of_kind(rendered(helm, *values), "StatefulSet")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsUser"] == 10001 and pod["securityContext"]["runAsNonRoot"]
    for container in (*pod["initContainers"], *pod["containers"]):
        locked = container["securityContext"]
        assert locked["readOnlyRootFilesystem"] and not locked["allowPrivilegeEscalation"]
        assert locked["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]} | {"data"}


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in container["env"]}


@pytest.mark.parametrize("values", [(), SHARED, HOOKED], ids=["one", "shared", "hooked"])
def test_every_variable_is_a_setting(helm: str, values: tuple[str, ...]) -> None:
    pod = of_kind(rendered(helm, *values), "StatefulSet")["spec"]["template"]["spec"]
    # The service refuses variables that it does not know, and so would this pod.
    assert pod["enableServiceLinks"] is False
    for container in (*pod["initContainers"], *pod["containers"]):
        given = environment(container)
        assert set(given) <= VARIABLES
        hosts = json.loads(given["DRIFTSCOPE_ALLOWED_HOSTS"])
        assert hosts[:2] == ["trial-driftscope", "trial-driftscope.rl"]


def test_replicas_share_database_and_storage(helm: str) -> None:
    pod = of_kind(rendered(helm, *SHARED), "StatefulSet")["spec"]["template"]["spec"]
    (service,) = pod["containers"]
    (url,) = (entry for entry in service["env"] if entry["name"] == "DRIFTSCOPE_DATABASE_URL")
    assert url["valueFrom"]["secretKeyRef"] == {"name": "pg", "key": "url"}
    assert environment(service)["DRIFTSCOPE_STORAGE_URL"] == "s3://bucket/prefix"
    assert service["envFrom"] == [{"secretRef": {"name": "s3"}}]


def test_the_webhook_is_told_by_a_secret(helm: str) -> None:
    pod = of_kind(rendered(helm, *HOOKED), "StatefulSet")["spec"]["template"]["spec"]
    (service,) = pod["containers"]
    given = {entry["name"]: entry for entry in service["env"]}
    for name, key in (("DRIFTSCOPE_WEBHOOK_URL", "url"), ("DRIFTSCOPE_WEBHOOK_SECRET", "signs")):
        assert given[name]["valueFrom"]["secretKeyRef"] == {"name": "hook", "key": key}
    assert given["DRIFTSCOPE_WEBHOOK_FORMAT"]["value"] == "json"
    assert given["DRIFTSCOPE_PUBLIC_URL"]["value"] == "https://driftscope.example.com"
    (plain,) = of_kind(rendered(helm), "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert not any("WEBHOOK" in name or "PUBLIC" in name for name in environment(plain))
    chat = ("--set", "webhook.existingSecret=hook", "--set", "webhook.format=slack")
    (slack,) = of_kind(rendered(helm, *chat), "StatefulSet")["spec"]["template"]["spec"][
        "containers"
    ]
    assert "DRIFTSCOPE_WEBHOOK_SECRET" not in environment(slack)


def test_ports_user_and_paths_are_those_of_the_image(helm: str) -> None:
    dockerfile = (ROOT / "service/docker/cpu.Dockerfile").read_text()
    (container,) = of_kind(rendered(helm), "StatefulSet")["spec"]["template"]["spec"]["containers"]
    port = Settings.model_fields["port"].default
    assert container["ports"][0]["containerPort"] == port and f"EXPOSE {port}" in dockerfile
    assert "USER 10001:10001" in dockerfile and "VOLUME /data" in dockerfile
    assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None and chart["appVersion"] == version[1]


def test_the_monitor_finds_one_of_the_two_services_and_sends_a_key(helm: str) -> None:
    documents = rendered(helm, *MONITORED)
    monitor = of_kind(documents, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    found = [
        document["metadata"]["name"]
        for document in documents
        if document["kind"] == "Service" and wanted <= document["metadata"]["labels"].items()
    ]
    assert found == ["trial-driftscope"]
    (endpoint,) = monitor["endpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["authorization"]["credentials"] == {"name": "scrape", "key": "key"}


def test_of_several_replicas_one_tells_what_they_share(helm: str) -> None:
    documents = rendered(helm, *MONITORED, *SHARED)
    process, shared = of_kind(documents, "ServiceMonitor")["spec"]["endpoints"]
    paths = [process.pop("path"), shared.pop("path")]
    assert paths == ["/metrics/process", "/metrics/shared"]
    assert set(paths) <= {route.path for route in router.routes if isinstance(route, APIRoute)}
    (kept,) = shared.pop("relabelings")
    name = of_kind(documents, "StatefulSet")["metadata"]["name"]
    pods = [f"{name}-{number}" for number in range(11)]
    assert kept["action"] == "keep"
    assert [pod for pod in pods if re.fullmatch(kept["regex"], pod)] == [f"{name}-0"]
    assert process == shared and shared["authorization"]["credentials"]["name"] == "scrape"


def test_replicas_of_two_versions_are_never_mixed_by_an_upgrade(helm: str) -> None:
    one = of_kind(rendered(helm), "StatefulSet")["spec"]
    several = of_kind(rendered(helm, *SHARED), "StatefulSet")["spec"]
    assert "updateStrategy" not in one
    assert several["updateStrategy"] == {"type": "OnDelete"}


def test_the_image_has_what_a_bucket_and_a_database_need() -> None:
    pinned = (ROOT / "requirements/cpu.txt").read_text()
    assert all(f"\n{name}==" in pinned for name in ("s3fs", "psycopg", "aiobotocore"))
    gpu = (ROOT / "service/docker/gpu.Dockerfile").read_text()
    assert all(extra in gpu for extra in ("postgres", "s3"))
