"""Routing of an analysed step in words: for the terminal and for the page.

In: `routing` of an analysis. Out: a sentence, names of signs, lines for a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from driftscope_probes.plural import counted
from driftscope_service.numbers.metric_words import UNDEFINED, number, share

#: Of a sign, as the heading of its row.
SIGN_LABELS: Final[Mapping[str, str]] = {
    "repeated_rows": "one row in successive tokens",
    "padding_rows": "rows of padding",
    "shifted_rows": "rows shifted by one token",
    "unrelated_rows": "rows of another token",
    "onset": "flips begin within a sequence",
    "onset_at_border": "they begin at a power of two",
}
_GROUPS: Final = {"agreeing": "agree in all layers", "flipped": "flip in any layer"}


def routing_sentence(routing: Mapping[str, Any]) -> str:
    agreement = routing["agreement"]
    if agreement is None:
        return str(routing["not_compared"])
    if agreement["choices_flipped"] is None:
        return "No unmasked token has a route on both sides."
    layers = counted(len(agreement["layers"]), "layer")
    tokens = counted(agreement["tokens"], "token")
    if not agreement["choices_flipped"]:
        return (
            f"0% of the choices differ: all {tokens} take the same experts in {layers} on both "
            "sides."
        )
    return (
        f"{share(agreement['choices_flipped'])} of the choices differ, and "
        f"{share(agreement['tokens_flipped'])} of {tokens} have at least one that does: "
        f"{number(agreement['flips_per_token'])} of {layers} per token."
    )


def routing_summary(routing: Mapping[str, Any] | None) -> str | None:
    """What the first look at a step says of its routes: flips with what they do to Δ, and signs of
    corruption by name, and what was left out. None without routes, and where there is nothing.
    """
    if routing is None:
        return None
    agreement = routing["agreement"]
    signs = [one for one in routing["integrity"]["signs"] if one["significant"]]
    said = []
    if agreement is not None and agreement["choices_flipped"] == 0:
        said.append(routing_sentence(routing))
    if agreement is not None and agreement["choices_flipped"]:
        with_flip, without = (
            _or_undefined(number, agreement[group]["abs_diff_mean"])
            for group in ("flipped", "agreeing")
        )
        said += [routing_sentence(routing), f"Mean |Δ| {with_flip} with and {without} without one."]
    if agreement is not None and agreement["tokens_without_route"]:
        left_out = agreement["tokens_without_route"]
        said.append(f"Left out: {left_out:,} tokens for which a side recorded no route.")
    if signs:
        said.append(f"Signs of corrupt routes: {', '.join(map(_sign_name, signs))}.")
    return f"Experts: {' '.join(said)}" if said else None


def print_routing(routing: Mapping[str, Any] | None, console: Console) -> None:
    """All of it; nothing for a step without routes."""
    if routing is None:
        return
    console.print()
    console.print(Text("Experts", "bold"))
    lines = [routing_sentence(routing)]
    agreement = routing["agreement"]
    if agreement is not None:
        lines += ["", *_group_lines(agreement), "", *_layer_lines(agreement)]
    lines += ["", *map(_sign_line, routing["integrity"]["signs"])]
    # Not a rich table: it would shrink columns where the room is short.
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _group_lines(agreement: Mapping[str, Any]) -> list[str]:
    tails = [f"ratio > {bound}" for bound in agreement["agreeing"]["tails"]]
    rows = [["tokens that", "tokens", "mean |Δ|", "k3", *tails]]
    for name, label in _GROUPS.items():
        group = agreement[name]
        sizes = [_or_undefined(number, group[one]) for one in ("abs_diff_mean", "kl_k3")]
        beyond = [_or_undefined(share, tail) for tail in group["tails"].values()]
        rows.append([label, f"{group['tokens']:,}", *sizes, *beyond])
    return _aligned(rows)


def _layer_lines(agreement: Mapping[str, Any]) -> list[str]:
    names = ("flipped", "overlap", "reordered")
    rows = [["layer", "flipped", "same experts", "other order"]]
    for layer in agreement["layers"]:
        rows.append([str(layer["layer"]), *(_or_undefined(share, layer[one]) for one in names)])
    return _aligned(rows)


def _sign_name(sign: Mapping[str, Any]) -> str:
    side = "" if sign["side"] == "both" else f" ({sign['side']})"
    return f"{SIGN_LABELS[sign['name']]}{side}"


def _sign_line(sign: Mapping[str, Any]) -> str:
    where = ""
    if sign["sequence"] is not None:
        where = f" First at sequence {sign['sequence']:,}, token {sign['place']:,}."
    said = f"P at most {number(sign['p_value'])}" if sign["significant"] else "Not significant"
    or_else = f" Or {sign['alternative']}." if sign["alternative"] and sign["significant"] else ""
    return f"{_sign_name(sign)}: {sign['detail']}{where} {said}.{or_else}"


def _or_undefined(words: Callable[[float], str], value: float | None) -> str:
    return UNDEFINED if value is None else words(value)


def _aligned(rows: list[list[str]]) -> list[str]:
    """The first column to the left, all others to the right, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    ]
