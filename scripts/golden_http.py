"""A service under test: requests and pages, and its answers as text."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import golden_cases as cases
import golden_normal as normal
import httpx
from golden_tree import TIMEOUT_S, Run

#: Of each kind of link so many are followed; all pages of a kind come from one template.
LINKS_PER_KIND = 2


def tell(answer: httpx.Response, run: Run) -> tuple[str, list[str]]:
    """Status, headers and body of an answer, and the paths that stand in it."""
    kind, links = answer.headers.get("content-type", ""), list[str]()
    if kind.startswith("text/html"):
        body, links = normal.page(answer.text, run.places)
    elif "version=0.0.4" in kind or "openmetrics" in kind:
        body = normal.metrics(answer.text, run.places)
    elif answer.request.url.path.startswith("/static/"):
        body = "<asset>\n"
    else:
        body = normal.maybe_json(answer.text, run.places)
    headers = [
        normal.text(f"{name}: {value}\n", run.places)
        for name, value in sorted(answer.headers.items())
        if name not in normal.HEADERS_LEFT_OUT
    ]
    asked = normal.text(
        f"{answer.request.method} {answer.request.url.raw_path.decode()}", run.places
    )
    return f"{asked}\n{answer.status_code}\n{''.join(headers)}\n{body}", links


def ask(client: httpx.Client, call: cases.Call) -> httpx.Response:
    if isinstance(call.body, bytes) or call.body is None:
        return client.request(call.method, call.path, content=call.body, headers=call.headers)
    return client.request(call.method, call.path, json=call.body, headers=call.headers)


@contextmanager
def served(run: Run, **variables: str) -> Iterator[httpx.Client]:
    """A service on a free port; nothing is asked before the caller does, since all is counted."""
    log = run.work / "serve.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*run.command, "serve", "--port", "0", "--data-dir", "data"],
            cwd=run.work,
            env={**run.environment, **variables},
            stderr=stream,
        )
    try:
        while (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())) is None:
            if process.poll() is not None:
                raise RuntimeError(f"no service: {log.read_text()}")
            time.sleep(0.05)
        with httpx.Client(base_url=found.group(), timeout=TIMEOUT_S) as client:
            yield client
    finally:
        process.terminate()
        code = process.wait(TIMEOUT_S)
    run.write("http/exit", f"{code}\n")


def service(run: Run) -> None:
    run.cli("service/upgrade", ["db", "upgrade", "--data-dir", "data"])
    run.cli("service/upgrade-again", ["db", "upgrade", "--data-dir", "data"])
    run.cli("service/demo", ["demo", "load", "--data-dir", "data"])
    run.cli("service/demo-again", ["demo", "load", "--data-dir", "data"])
    with served(run, DRIFTSCOPE_NIGHTLY_CONFIG="nightly.toml") as client:
        requests(run, client, "api", [*cases.run_requests(), *cases.refused_jobs()])
        requests(run, client, "after-pushes", [cases.Call("GET", "/metrics")])
        address = {"DRIFTSCOPE_URL": str(client.base_url)}
        for name, arguments in cases.CLIENT_COMMANDS.items():
            run.cli(f"client/{name}", arguments, **address)
        jobs(run, client)
        crawl(run, client, cases.PAGES)
        run.cli("client/jobs-list", ["jobs", "list", "--json"], **address)
        requests(run, client, "end", [cases.Call("GET", p) for p in ("/v1/jobs", "/metrics")])
    keys = {}
    for scope in ("read", "ingest", "admin"):
        arguments = ["keys", "create", "--name", scope, "--scope", scope, "--data-dir", "data"]
        keys[scope] = run.cli(f"keys/{scope}", arguments).strip()
    run.cli("keys/list", ["keys", "list", "--data-dir", "data"])
    with served(run, DRIFTSCOPE_REQUIRE_KEYS="1") as client:
        for name, key in {"none": "", "wrong": "dsk_wrong", **keys}.items():
            bearer = {"authorization": f"Bearer {key}"} if key else {}
            calls = [cases.Call("GET", path, None, bearer) for path in cases.GUARDED]
            calls += [cases.Call("PUT", "/v1/runs/guarded", {}, bearer)]
            calls += [cases.Call("POST", "/v1/probes/kernels", {"x": 1}, bearer)]
            requests(run, client, f"keys-{name}", calls)


def requests(run: Run, client: httpx.Client, group: str, calls: Sequence[cases.Call]) -> None:
    for number, call in enumerate(calls):
        told, _ = tell(ask(client, call), run)
        path = normal.text(call.path, run.places)
        run.write(f"http/{group}/{number:03}-{call.method}{path.replace('/', '-')}", told)


def jobs(run: Run, client: httpx.Client) -> None:
    links = []
    for name, kind, body in cases.JOBS:
        answer = ask(client, cases.Call("POST", f"/v1/probes/{kind}", body))
        run.write(f"http/jobs/{name}-accepted", tell(answer, run)[0])
        links.append((name, answer.json()["links"]))
    run.write("http/jobs/cancel", tell(client.post(links[-1][1]["cancel"]), run)[0])
    for name, found in links:
        # One request that lasts until the job has ended, so that their number is always the same.
        client.get(found["events"]).raise_for_status()
        ended = client.get(found["self"])
        asked = {part: path for part, path in ended.json()["links"].items() if path}
        for part, path in asked.items():
            answer = client.request("POST" if part == "cancel" else "GET", path)
            run.write(f"http/jobs/{name}-{part}", tell(answer, run)[0])


def crawl(run: Run, client: httpx.Client, paths: Sequence[str]) -> None:
    """Every page, and a few of each kind of link that stands in them: plots, files, assets."""
    waiting, seen, kinds = list(paths), set[str](), dict[str, int]()
    for path in waiting:
        kind = re.sub(
            r"=[^&]*|\d+", "", normal.text(urlsplit(path)._replace(fragment="").geturl(), {})
        )
        if path in seen or (path not in paths and kinds.get(kind, 0) >= LINKS_PER_KIND):
            continue
        if path.startswith(("//", "/metrics", "/openapi.json", "/logout")):
            continue
        seen.add(path)
        kinds[kind] = kinds.get(kind, 0) + 1
        told, links = tell(client.get(path, headers={"accept": "text/html"}), run)
        # Not numbered: a page more must not rename all others.
        name = normal.text(path[1:], run.places).replace("/", "-")
        run.write(f"http/pages/{name}", told)
        waiting += links
