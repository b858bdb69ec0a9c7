"""The command that runs exactly one case of one axis again. Free of torch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from driftscope_probes.determinism.axis_result import Subject
from driftscope_probes.determinism.onset import Value
from driftscope_probes.determinism.request import DeterminismRequest

_OPTIONS = {
    "attention_split_kv": "--attention-split-kv",
    "prompt_tokens": "--prompt-tokens",
    "max_tokens": "--max-tokens",
    "samples": "--samples",
    "seed": "--seed",
    "server_url": "--server-url",
    "server_model": "--server-model",
}


def replay_command(
    request: DeterminismRequest, subject: Subject, values: Sequence[Value], threads: int
) -> str:
    """`values`: the reference and the one value to compare with it."""
    words = ["driftscope", "probe", "determinism", "--model", request.model]
    words += ["--axes", subject.axis, "--values", ",".join(map(str, values)), "--no-bisect"]
    words += ["--engine", subject.engine, "--engine-dtypes", subject.dtype]
    if subject.kernels != "stock":
        words += ["--kernels", subject.kernels]
    if subject.engine != "vllm-server":
        # Said even where it was not asked for: every core of another machine may be another number.
        words += ["--threads", str(threads)]
    for name, option in _OPTIONS.items():
        given, default = getattr(request, name), DeterminismRequest.model_fields[name].default
        if given != default:
            words += _words(option, given)
    return shlex.join(words)


def _words(option: str, given: object) -> list[str]:
    if isinstance(given, bool):
        return [option if given else option.replace("--", "--no-", 1)]
    if isinstance(given, list | tuple):
        return [option, ",".join(map(str, given))]
    return [option, str(given)]
