"""What the service allows on top of PairedRequest: sizes and resources."""

from __future__ import annotations

from driftscope_service.jobs.operator_limit import at_most
from driftscope_service.jobs.paired_job import PairedProbeRequest
from driftscope_service.settings import Settings


def check_paired(request: PairedProbeRequest, settings: Settings) -> None:
    """Raises InvalidField, which names the setting that an operator can raise."""
    _check_size(request, settings)
    _check_resources(request, settings)


def _check_size(request: PairedProbeRequest, settings: Settings) -> None:
    prompts = request.prompts if isinstance(request.prompts, int) else len(request.prompts)
    tokens = prompts * request.sampling.max_tokens
    at_most(
        "/sampling/max_tokens",
        f"{prompts} prompts × {request.sampling.max_tokens} tokens = {tokens}",
        tokens,
        settings.max_response_tokens,
        "DRIFTSCOPE_MAX_RESPONSE_TOKENS",
    )
    at_most(
        "/resamples",
        str(request.resamples),
        request.resamples,
        settings.max_resamples,
        "DRIFTSCOPE_MAX_RESAMPLES",
    )


def _check_resources(request: PairedProbeRequest, settings: Settings) -> None:
    for side, threads in (
        ("engine", request.engine.threads),
        ("trainer", request.trainer.threads),
    ):
        at_most(
            f"/{side}/threads",
            str(threads),
            threads or 0,
            settings.threads_allowed,
            "DRIFTSCOPE_MAX_THREADS",
        )
    cache = request.engine.kv_cache_gib
    at_most(
        "/engine/kv_cache_gib",
        str(cache),
        cache or 0.0,
        settings.max_kv_cache_gib,
        "DRIFTSCOPE_MAX_KV_CACHE_GIB",
    )
