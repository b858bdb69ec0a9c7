"""The doors of `driftscope explain`: an engine here, a server from outside, two dumps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Final

from driftscope_probes.engines.settings import SamplingSettings
from driftscope_probes.errors import RequestError
from driftscope_probes.explain.request import ExplainTrainer
from driftscope_probes.explain.server.request import MAX_TOKENS, ServerExplainRequest
from driftscope_service.terminal.commands import checked
from driftscope_service.terminal.prompt_file import read_prompts_option

RUNNER: Final = "driftscope_probes.explain.run"
SERVER_RUNNER: Final = "driftscope_probes.explain.server.run"
#: Options that mean the same behind a URL; the others are of an engine that runs here.
OF_A_SERVER: Final = frozenset(
    {
        *ServerExplainRequest.model_fields,
        *SamplingSettings.model_fields,
        *ExplainTrainer.model_fields,
    }
)

#: By name of the field.
ONLY_OF_A_SERVER: Final[Mapping[str, str]] = {
    "server_model": "--server-model",
    "other_models": "--other-model",
    "longest": "--longest",
    "budget_s": "--budget",
}


def server_request(address: str, told: Mapping[str, Any]) -> ServerExplainRequest:
    """`told`: the options that were given; the others keep the defaults of this door.

    Raises RequestError, also where one is given that a server has no use for.
    """
    for name in told:
        if name not in OF_A_SERVER:
            option = f"--{name.replace('_', '-')}"
            raise RequestError(
                f"{option} was given with --engine-server: it is of an engine that runs here.",
                remedy=f"leave {option} out, and start the server as it is to be examined.",
            )
    check = partial(checked, command="explain")
    sides = {
        "sampling": check(SamplingSettings, {"max_tokens": MAX_TOKENS, **told}),
        "trainer": check(ExplainTrainer, told),
    }
    asked = {**told, **sides, "engine_server": address}
    if "prompts" in told:
        asked["prompts"] = read_prompts_option(told["prompts"])
    return check(ServerExplainRequest, asked)


def refuse_with_dumps(given: Collection[str]) -> None:
    """Nothing is run, so nothing can be set."""
    for name in sorted(given):
        option = ONLY_OF_A_SERVER.get(name, f"--{name.replace('_', '-')}")
        raise RequestError(
            f"{option} was given with --dumps: no model is run.",
            remedy=f"leave {option} out; what ran is read from the dumps.",
        )


def refuse_of_a_server(given: Collection[str]) -> None:
    """Options of the other door, where the engine runs here."""
    for name in sorted(given):
        if name in ONLY_OF_A_SERVER:
            raise RequestError(
                f"{ONLY_OF_A_SERVER[name]} was given without --engine-server.",
                remedy=f"give --engine-server URL as well, or leave {ONLY_OF_A_SERVER[name]} out.",
            )
