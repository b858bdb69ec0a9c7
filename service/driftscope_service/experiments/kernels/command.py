"""`driftscope kernels …`: which there are, whether a row depends on its batch, how fast they are.

The work is done in a process of its own: the service itself never imports torch.
Exit codes of `check`: 0 none is refuted, 1 a kernel is refuted, whoever wrote it, or a planted
fault was missed, 2 it could not run; of `check --replay`: 1 the difference is there again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from driftscope_probes.crashes import KERNELS_MODULE, explain_kernel_crash
from driftscope_probes.errors import ProbeError
from driftscope_probes.kernels.report import SCHEMA, KernelsCheck
from driftscope_probes.kernels.request import KernelsRequest
from driftscope_service.experiments.keeping import Keep, kept
from driftscope_service.experiments.kernels.markdown import markdown
from driftscope_service.experiments.kernels.terminal import (
    print_kernels,
    print_replay,
    print_speed,
    print_verdicts,
)
from driftscope_service.terminal.commands import (
    COULD_NOT_RUN,
    FOUND,
    Json,
    print_result,
    run_child,
    split,
)

app = typer.Typer(no_args_is_help=True, help="Prove or refute that kernels ignore the batch.")

MOST_THREADS = 64
MOST_ROUNDS = 1000
MOST_SPEC_CHARACTERS = 4096

Target = Annotated[str | None, typer.Option(help="Comma-separated: driftscope, torch, vllm, …")]
Op = Annotated[str | None, typer.Option(help="Comma-separated: linear, rms_norm, …")]
Dtypes = Annotated[str | None, typer.Option("--dtype", help="Comma-separated: fp32, bf16, fp16.")]


@app.callback()
def _kernels() -> None:
    """Prove or refute that the bits of a row do not depend on the batch around it."""


@app.command("list")
def list_(target: Target = None, op: Op = None, json_: Json = False) -> None:
    """The kernels that can be checked, those of installed packages included."""
    result = _run({"action": "list", "targets": split(target), "ops": split(op)})
    print_result(result, json_, print_kernels)


@app.command()
@kept
def check(
    keep: Keep,
    target: Target = None,
    op: Op = None,
    dtype: Dtypes = None,
    threads: Annotated[
        str | None, typer.Option(help="Comma-separated. Default: 1, and 2 where there are cores.")
    ] = None,
    axis: Annotated[
        str | None,
        typer.Option(help="Comma-separated: these axes alone, without proofs: batch_size, …"),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Fewer rows and shapes.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    replay: Annotated[
        str | None, typer.Option(help="The JSON of a counterexample: make its two calls again.")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Write all verdicts as one Markdown table.")
    ] = None,
    json_: Json = False,
) -> None:
    """Look for a row whose bits depend on its batch, its layout, threads …; where possible prove
    that there is none.

    Exits 1 where a kernel is refuted or a planted fault was missed.
    """
    if replay is not None:
        _replay(replay, json_)
        return
    given = {"target": target, "op": op, "dtype": dtype, "threads": threads, "axis": axis}
    request = request_of({**given, "quick": quick, "seed": seed})
    if markdown_file is not None and not markdown_file.resolve().parent.is_dir():
        raise typer.BadParameter(f"{markdown_file}: there is no folder of that name")
    began = datetime.now(UTC)
    result = _run({"action": "check", **request})
    checked = KernelsCheck.read(result)
    if markdown_file is not None:
        # The child has checked it against the kernels that there are.
        asked = KernelsRequest.model_construct(**request)
        text = markdown(checked, asked, datetime.now(UTC).date())
        markdown_file.write_text(text, encoding="utf-8")
    print_result(result, json_, lambda _, console: print_verdicts(checked, console))
    keep(
        {
            "schema_version": SCHEMA,
            "kind": "kernels",
            "created_at": began.isoformat(timespec="seconds"),
            "request": request,
            **result,
        }
    )
    if is_finding(checked):
        raise typer.Exit(FOUND)


def request_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a KernelsRequest, which the child checks against the kernels that there are."""
    return {
        "targets": split(options["target"]),
        "ops": split(options["op"]),
        "dtypes": split(options["dtype"]),
        "threads": _thread_counts(options["threads"]),
        "axes": split(options.get("axis")),
        "quick": options["quick"],
        "seed": options["seed"],
    }


@app.command()
def bench(
    groups: Annotated[
        str | None, typer.Option(help="Comma-separated: linear, rows, token_logprob.")
    ] = None,
    dtype: Dtypes = None,
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS)] = 1,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=MOST_ROUNDS, help="Figures that a median is of.")
    ] = None,
    json_: Json = False,
) -> None:
    """Speed against torch and vLLM, all ways in turns in one process, and memory."""
    result = _run(
        {
            "action": "bench",
            "groups": split(groups),
            "dtypes": split(dtype),
            "threads": threads,
            "rounds": rounds,
        }
    )
    print_result(result, json_, print_speed)


def mount(root: typer.Typer, _probe: typer.Typer) -> None:
    root.add_typer(app, name="kernels")


def is_finding(check: KernelsCheck) -> bool:
    """Whether a kernel is refuted, or the checker is blind."""
    refuted = any(verdict.verdict == "REFUTED" for verdict in check.verdicts)
    return refuted or bool(check.planted.missed)


def _replay(text: str, json_: bool) -> None:
    if len(text) > MOST_SPEC_CHARACTERS:
        raise typer.BadParameter(
            f"the replay has {len(text):,} characters, at most {MOST_SPEC_CHARACTERS:,} are read"
        )
    try:
        spec = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"the replay is not JSON: {error}; quote it with '…'") from error
    if not isinstance(spec, dict):
        raise typer.BadParameter("the replay is not a JSON object; copy the whole command")
    result = _run({"action": "replay", "spec": spec})
    print_result(result, json_, print_replay)
    if result["reproduced"]:
        raise typer.Exit(FOUND)


def _run(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        with tempfile.TemporaryDirectory(prefix="driftscope-") as work:
            return run_child(KERNELS_MODULE, request, Path(work), explain_kernel_crash)
    except ProbeError as error:
        print(f"driftscope: {error}", file=sys.stderr)
        raise typer.Exit(COULD_NOT_RUN) from error


def _thread_counts(text: str | None) -> list[int] | None:
    counts: list[str] | None = split(text)
    if counts is None:
        return None
    if not all(count.isdecimal() and 1 <= int(count) <= MOST_THREADS for count in counts):
        raise typer.BadParameter(f"{text!r}: whole numbers from 1 to {MOST_THREADS}, like 1,2")
    return [int(count) for count in counts]
