"""`driftscope probe paired`, and the prompts that it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.errors import RequestError
from driftscope_probes.paired.request import MAX_PROMPTS, PairedRequest
from driftscope_probes.prompts import Message, Prompt
from driftscope_probes.trainer.settings import TrainerSettings
from driftscope_service.experiments.paired.html import REPORT_HTML, without_profiles, write_report
from driftscope_service.experiments.paired.terminal import print_report
from driftscope_service.terminal.command_output import default_folder, output_folder, progress_bar

#: Far above any probe's need; a mistaken path to a data set must not fill the memory.
MAX_FILE_BYTES = 64 * 2**20


def read_prompts_option(value: str) -> list[Prompt] | int:
    """A count, or the prompts of a file. Raises RequestError."""
    if value.isdecimal():
        return int(value)
    path = Path(value)
    if not path.is_file():
        raise RequestError(
            f"--prompts {value!r} is neither a number nor a file.",
            remedy="give how many of the shipped prompts to use, or a .txt or .jsonl file.",
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise RequestError(
            f"{path} has {path.stat().st_size} bytes, at most {MAX_FILE_BYTES} are read.",
            remedy=f"give at most {MAX_PROMPTS} prompts.",
        )
    return _parse(path)


def _parse(path: Path) -> list[Prompt]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8: {error}", remedy="save it as UTF-8.") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise RequestError(f"{path} holds no prompt.", remedy="give one prompt per line.")
    if path.suffix != ".jsonl":
        return [line for _, line in numbered]
    return [_parse_json_line(path, number, line) for number, line in numbered]


def _parse_json_line(path: Path, number: int, line: str) -> Prompt:
    try:
        fields = json.loads(line)
        if isinstance(fields, dict) and isinstance(fields.get("prompt"), str):
            return str(fields["prompt"])
        return [Message(**message) for message in fields["messages"]]
    except (ValueError, ValidationError, TypeError, KeyError) as error:
        raise RequestError(
            f"{path} line {number} is no prompt: {error or 'unknown shape'}",
            remedy='write {"prompt": "text"} or {"messages": [{"role": "user", "content": …}]}.',
        ) from error


Settings = TypeVar("Settings", bound=BaseModel)

_SAMPLING, _ENGINE, _TRAINER = "Sampling", "Engine", "Trainer"


def paired(
    model: Annotated[str, typer.Option(help="Catalogue name, local folder or Hub id.")],
    engine_dtypes: Annotated[str, typer.Option(help="Comma-separated.")] = "bf16,fp16,fp32",
    trainer_dtypes: Annotated[
        str,
        typer.Option(
            help="Comma-separated: bf16, fp16, fp32, autocast-bf16, autocast-fp16, each also "
            "with +fp32-head."
        ),
    ] = "bf16,fp16,fp32",
    prompts: Annotated[
        str, typer.Option(help="A .txt or .jsonl file, or how many of the shipped prompts.")
    ] = "8",
    max_tokens: Annotated[int, typer.Option(rich_help_panel=_SAMPLING)] = 64,
    seed: Annotated[int, typer.Option(rich_help_panel=_SAMPLING)] = 0,
    temperature: Annotated[float, typer.Option(rich_help_panel=_SAMPLING)] = 1.0,
    top_p: Annotated[float, typer.Option(rich_help_panel=_SAMPLING)] = 1.0,
    top_k: Annotated[int, typer.Option(help="0: whole vocabulary.", rich_help_panel=_SAMPLING)] = 0,
    ignore_eos: Annotated[bool, typer.Option(rich_help_panel=_SAMPLING)] = True,
    chat_template: Annotated[
        bool | None, typer.Option(help="Default: where the tokenizer has one.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="vllm, vllm-server or hf.", rich_help_panel=_ENGINE)
    ] = "vllm",
    logprobs_mode: Annotated[
        str, typer.Option(help="raw_logprobs or processed_logprobs.", rich_help_panel=_ENGINE)
    ] = "raw_logprobs",
    batch_size: Annotated[int | None, typer.Option(rich_help_panel=_ENGINE)] = None,
    prefix_caching: Annotated[bool | None, typer.Option(rich_help_panel=_ENGINE)] = None,
    chunked_prefill_tokens: Annotated[int | None, typer.Option(rich_help_panel=_ENGINE)] = None,
    compile_: Annotated[
        bool,
        typer.Option("--compile/--enforce-eager", rich_help_panel=_ENGINE),
    ] = False,
    cascade_attention: Annotated[bool | None, typer.Option(rich_help_panel=_ENGINE)] = None,
    attention_split_kv: Annotated[
        bool | None, typer.Option(help="vLLM on CPU.", rich_help_panel=_ENGINE)
    ] = None,
    kv_cache_gib: Annotated[float | None, typer.Option(rich_help_panel=_ENGINE)] = None,
    server_url: Annotated[
        str | None, typer.Option(help="For vllm-server.", rich_help_panel=_ENGINE)
    ] = None,
    server_model: Annotated[
        str | None, typer.Option(help="For vllm-server.", rich_help_panel=_ENGINE)
    ] = None,
    attention: Annotated[
        str, typer.Option(help="sdpa or eager.", rich_help_panel=_TRAINER)
    ] = "sdpa",
    micro_batch: Annotated[int, typer.Option(rich_help_panel=_TRAINER)] = 1,
    batching: Annotated[
        str, typer.Option(help="padded or packed.", rich_help_panel=_TRAINER)
    ] = "padded",
    padding_side: Annotated[str, typer.Option(rich_help_panel=_TRAINER)] = "right",
    backward: Annotated[
        bool, typer.Option(help="Also compare gradient norms.", rich_help_panel=_TRAINER)
    ] = False,
    headroom: Annotated[
        bool, typer.Option(help="Measure the room FP16 leaves.", rich_help_panel=_TRAINER)
    ] = True,
    headroom_sequences: Annotated[int, typer.Option(rich_help_panel=_TRAINER)] = 2,
    threads: Annotated[
        int | None, typer.Option(help="Of engine and trainer. Default: every core.")
    ] = None,
    kernels: Annotated[
        str, typer.Option(help="Of engine and trainer: stock, or batch-invariant ones: invariant.")
    ] = "stock",
    resamples: Annotated[int, typer.Option(help="For the 95 % intervals; 0: none.")] = 2000,
    out: Annotated[Path | None, typer.Option(help="New folder for the report.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Roll out through the engine, score with the trainer, compare every dtype with every mode."""
    sampling = _checked(
        SamplingSettings,
        max_tokens=max_tokens,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        ignore_eos=ignore_eos,
    )
    engine_settings = _checked(
        EngineSettings,
        kind=engine,
        kernels=kernels,
        logprobs_mode=logprobs_mode,
        batch_size=batch_size,
        prefix_caching=prefix_caching,
        chunked_prefill_tokens=chunked_prefill_tokens,
        compile=compile_,
        cascade_attention=cascade_attention,
        attention_split_kv=attention_split_kv,
        threads=threads,
        kv_cache_gib=kv_cache_gib,
        server_url=server_url,
        server_model=server_model,
    )
    trainer_settings = _checked(
        TrainerSettings,
        kernels=kernels,
        attention=attention,
        micro_batch=micro_batch,
        batching=batching,
        padding_side=padding_side,
        threads=threads,
        seed=seed,
        backward=backward,
        headroom=headroom,
        headroom_sequences=headroom_sequences,
    )
    request = _checked(
        PairedRequest,
        model=model,
        prompts=read_prompts_option(prompts),
        chat_template=chat_template,
        engine_dtypes=_split(engine_dtypes),
        trainer_dtypes=_split(trainer_dtypes),
        sampling=sampling,
        engine=engine_settings,
        trainer=trainer_settings,
        resamples=resamples,
    )
    target = out or default_folder(model)
    report = _run(request, target)
    if json_:
        print(json.dumps(without_profiles(report), allow_nan=False, ensure_ascii=False))
        return
    print_report(report, Console(), location=str(target / REPORT_HTML))


def _run(request: PairedRequest, target: Path) -> dict[str, Any]:
    with output_folder(target) as work, progress_bar() as show:
        child = ChildProcess(
            "driftscope_probes.run_probe",
            {"kind": "paired", "request": request.model_dump()},
            work,
            explain_crash=explain_probe_crash,
            on_progress=show,
        )
        report = child.wait()
        write_report(report, work)
    return report


def _checked(kind: type[Settings], /, **fields: Any) -> Settings:
    """Validation errors in the words of the command line."""
    try:
        return kind(**fields)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, fault['loc'])) or kind.__name__}: {fault['msg']}"
            f" (given: {fault['input']!r})"[:500]
            for fault in error.errors()
        ]
        raise RequestError(
            "\n".join(lines), remedy="correct the option; see driftscope probe paired --help."
        ) from error


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def mount(_app: typer.Typer, probe: typer.Typer) -> None:
    probe.command()(paired)
