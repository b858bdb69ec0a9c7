"""Whether two dumps are of the same tokens, and which row of one is which row of the other.

In: two dumps. Out: rows of each, in one order, or why they cannot be compared. Sequences are
matched by their tokens, so an engine may have read them in another order.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from driftscope_probes.explain.dumps.rows import Dump, RowFacts
from driftscope_probes.explain.report import Check


@dataclass(frozen=True, slots=True)
class Aligned:
    left: Tensor  # int64 [rows]
    right: Tensor  # int64 [rows], the same tokens
    facts: RowFacts  # of those rows, in that order
    checks: tuple[Check, ...]
    problem: str | None  # why the two cannot be compared
    remedy: str | None


def aligned(left: Dump, right: Dump) -> Aligned:
    """Tokens where both dumps have them, else the number of rows."""
    a, b = left.facts, right.facts
    checks = [
        Check(
            what="rows",
            equal=a.rows == b.rows,
            says=f"{a.rows} tokens each" if a.rows == b.rows else f"{a.rows} and {b.rows} tokens",
        )
    ]
    if a.rows != b.rows:
        return _unequal(
            a,
            checks,
            f"The dumps hold {a.rows} and {b.rows} tokens.",
            "capture the same sequences on both sides, padding told by attention_mask.",
        )
    if a.tokens is None or b.tokens is None:
        missing = " and ".join(n for n, f in (("A", a), ("B", b)) if f.tokens is None)
        says = f"{missing} holds no tokens: rows are taken to be the same ones in the same order"
        checks.append(Check(what="tokens", equal=True, says=says))
        rows = torch.arange(a.rows)
        return Aligned(rows, rows, a, tuple(checks), None, None)
    return _by_tokens(a, b, a.tokens, b.tokens, checks)


def _by_tokens(
    a: RowFacts, b: RowFacts, tokens_a: Tensor, tokens_b: Tensor, checks: list[Check]
) -> Aligned:
    order = _matched(_sequences(a, tokens_a), _sequences(b, tokens_b))
    if order is None:
        differing = (tokens_a != tokens_b).nonzero().flatten()
        at = int(differing[0]) if len(differing) else 0
        says = (
            f"row {at}: token {int(tokens_a[at])} and token {int(tokens_b[at])}"
            if len(differing)
            else "the same tokens, cut into other sequences"
        )
        checks.append(Check(what="tokens", equal=False, says=says))
        return _unequal(
            a,
            checks,
            f"The dumps are of other tokens: {says}.",
            "read the same sequences on both sides, in one pass each; tokens decoded for several "
            "sequences at once need cu_seqlens.",
        )
    same = bool((order == torch.arange(len(order))).all())
    says = f"{a.rows} equal token ids" + ("" if same else ", sequences in another order")
    checks.append(Check(what="tokens", equal=True, says=says))
    equal = bool((a.positions == b.positions[order]).all())
    where = "" if equal else f"{int((a.positions != b.positions[order]).sum())} rows differ"
    checks.append(Check(what="positions", equal=equal, says=where or "equal"))
    if not equal:
        return _unequal(
            a,
            checks,
            f"The same tokens stand at other positions: {where}.",
            "give both sides the same position ids; left padding shifts them.",
        )
    return Aligned(torch.arange(a.rows), order, a, tuple(checks), None, None)


def _sequences(facts: RowFacts, tokens: Tensor) -> list[tuple[int, tuple[int, ...]]]:
    """First row and tokens of each."""
    bounds = facts.cu_seqlens.tolist()
    return [
        (start, tuple(tokens[start:end].tolist()))
        for start, end in zip(bounds, bounds[1:], strict=False)
    ]


def _matched(
    left: list[tuple[int, tuple[int, ...]]], right: list[tuple[int, tuple[int, ...]]]
) -> Tensor | None:
    """Row of the right for every row of the left; None where a sequence has no equal."""
    waiting = defaultdict(list)
    for start, tokens in right:
        waiting[tokens].append(start)
    rows = []
    for _, tokens in left:
        if not waiting[tokens]:
            return None
        rows.append(torch.arange(len(tokens)) + waiting[tokens].pop(0))
    return torch.cat(rows)


def _unequal(facts: RowFacts, checks: list[Check], problem: str, remedy: str) -> Aligned:
    nothing = torch.empty(0, dtype=torch.int64)
    return Aligned(nothing, nothing, facts, tuple(checks), problem, remedy)
