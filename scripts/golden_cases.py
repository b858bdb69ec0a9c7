"""The command lines, requests and pages of a golden run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from golden_inputs import ARROW, JSON, SAFETENSORS, bad_inputs, good_inputs, step
from golden_inputs import safetensors as stored

MODEL = "tiny-random-llama"
NIGHTLY = f"""
name = "golden"
budget_minutes = 10
[[kernels]]
names = ["driftscope/rms_norm/cpu", "driftscope/mean/cpu", "planted/linear/one_row_path"]
dtypes = ["bf16"]
expected = "NOT_REFUTED"
[[engines]]
models = ["{MODEL}"]
engines = ["hf"]
kernels = ["stock"]
dtypes = ["fp32"]
axes = ["batch_size", "run_to_run"]
settings = {{ threads = 1, batch_sizes = [1, 2], max_tokens = 3, prompt_tokens = [4, 7] }}
expected = "equal"
"""
KERNELS_NIGHTLY = NIGHTLY[: NIGHTLY.index("[[engines]]")].replace('"driftscope/mean/cpu", ', "")
BAD_NIGHTLY = NIGHTLY.replace('expected = "equal"', 'expected = "alike"\nunknown = 1')
PAIRED = ["--model", MODEL, "--prompts", "2", "--max-tokens", "6", "--threads", "1"]
SMALL_KERNEL = ["--target", "driftscope", "--dtype", "bf16", "--threads", "1", "--quick"]
GROUPS = ("probe", "kernels", "model", "jobs", "runs", "keys", "db", "demo")
LEAVES: tuple[str, ...] = (
    "serve",
    "analyze",
    "push",
    "nightly",
    "probe paired",
    "probe determinism",
)
LEAVES += ("kernels list", "kernels check", "kernels bench", "model list", "model fetch")
LEAVES += ("jobs list", "jobs show", "jobs logs", "jobs cancel", "runs list", "runs finish")
LEAVES += ("keys create", "keys list", "keys revoke", "db upgrade", "demo load", "floor")


ENGINE_COMMANDS = {
    "paired": ["probe", "paired", *PAIRED, "--engine-dtypes", "bf16", "--json"],
    "paired-hf": ["probe", "paired", *PAIRED, "--engine", "hf", "--engine-dtypes", "fp32"],
    "determinism": ["probe", "determinism", "--model", MODEL, "--engine", "hf", "--threads", "1"],
    "nightly": ["nightly", "--config", "nightly.toml", "--history", "out-nights", "--json"],
    "nightly-list": ["nightly", "--config", "nightly.toml", "--list"],
    "nightly-again": ["nightly", "--config", "kernels.toml", "--history", "out-nights"],
    "check": ["kernels", "check", "--op", "rms_norm", *SMALL_KERNEL, "--json"],
    "check-table": ["kernels", "check", "--op", "mean", *SMALL_KERNEL],
}
ENGINE_COMMANDS["paired"] += ["--trainer-dtypes", "fp32,bf16", "--backward", "--out", "out-paired"]
ENGINE_COMMANDS["paired-hf"] += ["--trainer-dtypes", "fp32", "--no-headroom", "--out", "out-hf"]
ENGINE_COMMANDS["determinism"] += ["--axes", "batch_size,run_to_run", "--batch-sizes", "1,2,3"]
ENGINE_COMMANDS["determinism"] += ["--prompt-tokens", "5,9", "--max-tokens", "4", "--json"]
ENGINE_COMMANDS["determinism"] += ["--out", "out-determinism"]
ENGINE_COMMANDS["check-table"] += ["--markdown", "out-table/table.md"]
CLIENT_COMMANDS = {
    name: name.split()
    for name in (
        "runs list",
        "runs list --json",
        "runs finish drifting",
        "runs finish none",
        "jobs list",
        "jobs show none",
        "push full.safetensors --run pushed --step 1",
        "push full.safetensors --run pushed --step 1 --json",
        "push basic.safetensors --run pushed --step 1",
        "push rank_0.jsonl --run pushed --step 2 --zstd",
        "push bad/lengths.safetensors --run pushed --step 3",
    )
}


def usage_commands() -> dict[str, list[str]]:
    """Help of everything, and wrong usage."""
    wrong = ["", "unknown", *GROUPS, "serve --port many", "serve --port 70000", "serve extra"]
    wrong += ["serve --host example.invalid --port 0", "analyze", "analyze none.safetensors"]
    wrong += ["analyze basic.safetensors --format xml", "analyze basic.safetensors --resamples -1"]
    wrong += ["push basic.safetensors", "push basic.safetensors --run r --step -1"]
    wrong += ["push basic.safetensors --run r --step 1 --url http://127.0.0.1:1"]
    wrong += ["runs list --limit 0", "runs list --url ftp://x", "jobs show", "jobs show 1 --url x"]
    wrong += ["probe paired", "probe paired --model nothing --json", "model fetch nothing"]
    wrong += [f"probe paired --model {MODEL} --engine-dtypes int8", "nightly --budget -1"]
    wrong += [f"probe paired --model {MODEL} --prompts none.txt --trainer-dtypes bf17"]
    wrong += [f"probe paired --model {MODEL} --top-p 2", "nightly --config none.toml"]
    wrong += [f"probe determinism --model {MODEL} --axes none", "nightly --config bad.toml --list"]
    wrong += [f"probe determinism --model {MODEL} --batch-sizes 1,x", "kernels check --op none"]
    wrong += [f"probe determinism --model {MODEL} --axes batch_size --values 0 --engine other"]
    wrong += [
        "kernels check --target none",
        "kernels check --dtype int8",
        "kernels check --seed -1",
    ]
    wrong += [
        "kernels check --replay {}",
        "kernels check --replay text",
        "kernels bench --groups x",
    ]
    wrong += ["keys create --name n --scope x --data-dir keys", "keys create --data-dir keys"]
    wrong += ["keys revoke none --data-dir keys", "keys list --data-dir none"]
    lines = [*(f"{name} --help".strip() for name in ("", *GROUPS, *LEAVES)), *wrong]
    return {line or "no arguments": line.split() for line in lines}


def short_commands() -> dict[str, list[str]]:
    found = {f"usage/{name}": line for name, line in usage_commands().items()}
    return found | {"analyze/" + " ".join(line[1:]): line for line in analyze_commands()}


def analyze_commands() -> Iterator[list[str]]:
    for name in good_inputs():
        for more in ([], ["--json"]):
            yield [
                "analyze",
                name,
                *more,
                "--resamples",
                "50" if name.startswith("long") else "200",
            ]
    for name in bad_inputs():
        yield ["analyze", "bad/" + name]
    yield ["analyze", "basic.safetensors", "--json", "--resamples", "0"]
    yield ["analyze", "unknown.suffix", "--format", "safetensors"]


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    body: Any = None  # bytes as they are, anything else as JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def put(path: str, body: Any) -> Call:
    return Call("PUT", path, body)


def push(run: str, number: int, name: str, body: bytes, query: str = "", **headers: str) -> Call:
    kind = {"arrows": ARROW, "json": JSON}.get(name.rpartition(".")[2], SAFETENSORS)
    path = f"/v1/runs/{run}/steps/{number}/logprobs{query}"
    return Call("POST", path, body, {"content-type": kind} | headers)


NO_NIGHTS: tuple[Any, ...] = ({}, [], {"schema_version": "1"})


def run_requests() -> Iterator[Call]:
    """Runs, pushes and what is asked about them; errors of every kind on the way."""
    good = {name: body for name, body in good_inputs().items() if not name.endswith(".jsonl")}
    fields = {"model": "golden", "framework": "trl", "rollout_dtype": "bf16", "labels": {"a": "b"}}
    yield from (put("/v1/runs/golden", fields), put("/v1/runs/golden", {"engine": "vllm"}))
    for bad in ({"state": "paused"}, {"unknown": 1}, {"labels": {"a": 1}}, {"model": "x" * 2000}):
        yield put("/v1/runs/golden", bad)
    yield put("/v1/runs/none", {"state": "finished"})
    yield Call("PUT", "/v1/runs/golden", b"{", {"content-type": JSON})
    for number, (name, body) in enumerate(good.items()):
        yield push("golden", number, name, body)
    basic, full = good["basic.safetensors"], good["full.safetensors"]
    yield from (push("golden", 0, "a", basic), push("golden", 0, "a", full))
    yield from (push("-bad", 0, "a", basic), push("golden", -1, "a", basic))
    yield push("golden", 90, "a", basic, **{"content-encoding": "gzip"})
    yield push("golden", 90, "a", basic, **{"content-encoding": "zstd"})
    yield push("golden", 90, "a", basic, **{"content-type": "text/plain"})
    for name, body in bad_inputs().items():
        yield push("refused", 1, name, body)
    yield from (push("ranks", 3, "a", basic, f"?shard={shard}&shards=2") for shard in (0, 0))
    yield Call("POST", "/v1/runs/ranks/steps/3/complete")
    yield from (push("ranks", 3, "a", full, q) for q in ("?shard=0&shards=2", "?shard=2&shards=2"))
    yield push("ranks", 3, "a", full, "?shard=1&shards=3")
    yield push("ranks", 3, "a", stored(step(40, [5, 6])), "?shard=1&shards=2")
    yield from [Call("POST", "/v1/runs/ranks/steps/3/complete")] * 2
    yield Call("POST", "/v1/runs/ranks/steps/4/complete")
    for number in range(24):
        tensors = step(100 + number, [30, 50], noise=0.02 if number < 12 else 0.3)
        yield push("drifting", number, "a", stored(tensors))
    yield put("/v1/runs/ranks", {"state": "finished"})
    asked = ["", "?limit=1", "?limit=0", "?cursor=x", "/golden", "/none", "/golden/steps"]
    asked += ["/drifting/steps", "/drifting/steps?after=20&metrics=kl_k3", "/none/steps"]
    asked += ["/golden/steps?metrics=none", "/golden/steps?limit=3", "/golden/steps/5"]
    asked += ["/golden/steps/999", "/golden/steps/x", "/ranks/steps/3"]
    yield from (Call("GET", "/v1/runs" + path) for path in asked)
    paths = ["/", "/healthz", "/readyz", "/openapi.json", "/none", "/problems/none", "/docs"]
    paths += ["/v1/schedules", "/v1/schedules/none", "/v1/nightly?limit=x", "/v1/nightly/none"]
    paths += ["/v1/jobs?state=none", "/v1/jobs/none", "/v1/jobs/none/events", "/v1/jobs/none/logs"]
    paths += ["/v1/reports/none", "/reports/none", "/static/none", "/v1/nightly?limit=2"]
    yield from (Call("GET", path) for path in paths)
    yield from (Call("DELETE", "/v1/runs/golden"), Call("POST", "/v1/jobs/none/cancel"))
    yield Call("GET", "/healthz", None, {"host": "elsewhere.example"})
    yield Call("POST", "/v1/probes/nightly", {}, {"origin": "http://elsewhere.example"})
    nightly = {"cron": "30 3 * * *", "job": {"kind": "nightly"}, "missed": "skip"}
    yield from [put("/v1/schedules/night", nightly)] * 2
    bad_jobs: list[dict[str, Any]] = [
        {"cron": "x"},
        {"job": {"kind": "none"}},
        {"missed": 1},
        {"x": 1},
    ]
    yield from (put("/v1/schedules/night", nightly | bad) for bad in bad_jobs)
    yield from (Call("GET", "/v1/schedules"), *[Call("DELETE", "/v1/schedules/night")] * 2)
    yield from (Call("POST", "/v1/nightly", body) for body in NO_NIGHTS)


SMALL: dict[str, Any] = {
    "model": MODEL,
    "prompts": 2,
    "sampling": {"max_tokens": 4},
    "resamples": 50,
}
SMALL |= {"engine": {"kind": "hf", "threads": 1}, "engine_dtypes": ["fp32"]}
SMALL |= {"trainer_dtypes": ["fp32"], "trainer": {"threads": 1, "headroom": False}}
KERNELS: dict[str, Any] = {
    "targets": ["driftscope"],
    "ops": ["mean"],
    "dtypes": ["bf16"],
    "threads": [1],
}
#: To their ends: one that succeeds, one that fails, one that is cancelled while it waits.
JOBS: tuple[tuple[str, str, Any], ...] = (
    ("good", "kernels", {**KERNELS, "quick": True}),
    ("failing", "kernels", {"targets": ["none"]}),
    ("cancelled", "nightly", None),
)


def refused_jobs() -> Iterator[Call]:
    small = {"model": MODEL, "axes": ["batch_size"], "engine": "hf"}
    paired: list[dict[str, Any]] = [{}, {"model": "none"}, {"model": "/etc"}, SMALL | {"x": 1}]
    paired += [SMALL | {"sampling": {"max_tokens": 0, "top_p": 2}}, SMALL | {"engine_dtypes": []}]
    paired += [SMALL | {"engine": {"kind": "vllm-server"}}, SMALL | {"engine_endpoint": "none"}]
    paired += [SMALL | {"engine": {"server_url": "http://a"}}, SMALL | {"resamples": 10**6}]
    paired += [SMALL | {"trainer": {"threads": 99}}, SMALL | {"prompts": 10**6}]
    kernels: list[dict[str, Any]] = [{"targets": []}, {"ops": ["a b"]}, {"dtypes": []}]
    kernels += [KERNELS | {"threads": [99]}, KERNELS | {"seed": -1}, KERNELS | {"quick": "maybe"}]
    determinism: list[dict[str, Any]] = [{}, small | {"axes": ["none"]}, small | {"runs": 0}]
    determinism += [small | {"batch_sizes": [0]}, small | {"values": [1, 1]}, small | {"x": 1}]
    determinism += [small | {"engine": "none"}, small | {"max_tokens": 10**6}]
    bad: dict[str, list[dict[str, Any]]] = {
        "none": [{}],
        "paired": paired,
        "kernels": kernels,
        "determinism": determinism,
    }
    for kind, bodies in bad.items():
        yield from (Call("POST", f"/v1/probes/{kind}", body) for body in bodies)
    yield Call("POST", "/v1/probes/paired", b"{", {"content-type": JSON})
    yield Call("POST", "/v1/probes/paired", json.dumps({"model": "x" * 2_000_000}).encode())


PAGES: tuple[str, ...] = (
    "/runs",
    "/compare",
    "/probes",
    "/kernels",
    "/nightly",
    "/jobs",
    "/login",
    "/none",
)
PAGES += ("/runs/none", "/runs/golden/steps/999", "/runs?metric=none", "/runs?cursor=x")
PAGES += ("/compare?a=golden&b=drifting", "/compare?a=golden:1&b=golden:2", "/compare?a=none&b=x")
PAGES += ("/compare?a=healthy&b=stale-weights&metric=kl_k3", "/runs/drifting?metric=kl_k3&first=3")
PAGES += ("/compare?a=full&b=golden:x", "/runs/golden/steps/1?sequence=0&at=3&order=max")
PAGES += ("/runs/golden/steps/2?sequence=1", "/kernels?target=torch", "/kernels?at=none")
PAGES += ("/probes?kind=paired", "/probes?kind=none", "/probes/none", "/nightly?nights=0")
PAGES += ("/jobs?state=succeeded", "/jobs/none", "/static/none.css")
GUARDED = ("/v1/runs", "/metrics", "/healthz", "/openapi.json", "/runs", "/login", "/v1/jobs")
