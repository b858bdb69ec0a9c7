"""What log-probabilities alone cannot tell, and which door would.

In: what was found. Out: the list for the report. Free of torch.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.explain.server.report import Unknown

IN_PROCESS: Final = (
    "driftscope explain --model M runs the engine here and compares op by op on equal inputs."
)
DUMPS: Final = (
    "driftscope explain --dumps A B compares tensors that the capture function of docs/explain.md "
    "writes inside the server and inside the trainer."
)
ALL_OR_NOTHING: Final = (
    "One differing bit grows to the floor within a few layers: with one of several ops made equal, "
    "the final number hardly moves. Ops cannot be told apart where only final numbers are known; "
    "a set of changes is confirmed all at once or not at all."
)


def unknown_from_outside(*, dtype_declared: str, server_told_cache: bool) -> list[Unknown]:
    unknown = [
        Unknown(what="which op differs", why=ALL_OR_NOTHING, door=f"{IN_PROCESS} {DUMPS}"),
        Unknown(
            what="which layer, and how the difference grows",
            why="Layers add up to one number per token; nothing between them is sent.",
            door=f"{IN_PROCESS} {DUMPS}",
        ),
        Unknown(
            what="which weight tensors differ",
            why="No request reads a weight. Whole folders are tried (--other-model), tensors not.",
            door=IN_PROCESS,
        ),
        Unknown(
            what="which kernel, attention backend and reduction order the server runs",
            why="/v1 tells none of them; started with VLLM_SERVER_DEV_MODE=1 it tells settings, "
            "which driftscope lint --server reads.",
            door=DUMPS,
        ),
        Unknown(
            what="tokens other than those sampled",
            why="The server sends the log-probability of the token that was asked for.",
            door=f"{IN_PROCESS} Add --full-vocab.",
        ),
        Unknown(
            what="the server's dtype",
            why=f"It is not sent; {dtype_declared} is what the request says.",
            door="driftscope lint reads it from a server with VLLM_SERVER_DEV_MODE=1.",
        ),
    ]
    if not server_told_cache:
        unknown.append(
            Unknown(
                what="whether a warm prefix cache was used",
                why="The server does not tell how many tokens came from its cache.",
                door="start it with --enable-prompt-tokens-details.",
            )
        )
    return unknown
