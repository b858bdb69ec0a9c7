"""Whether both sides compute the same thing at all: tokens, positions, masks, weights, numbers.

In: both sides and what each was given. Out: what was checked, and every weight and number that
differs. Those are findings; only sides that cannot be laid beside each other are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from time import monotonic
from typing import Final

import numpy as np
import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import (
    EmbeddingParameters,
    Parameters,
    RotaryParameters,
)
from driftscope_probes.errors import ProbeError
from driftscope_probes.explain.numbers_of_ops import Numbers
from driftscope_probes.explain.report import Alignment, Check, WeightDifference
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sides.base import Received, SideName
from driftscope_probes.explain.sites import Site
from driftscope_probes.explain.weight_difference import weight_difference

#: SmolLM2 takes 3 s (bf16, fp32) or 12 s (fp16) on one thread, growing as the parameters times the
#: hidden size: what is left of a large model is named as not compared.
TIME_LIMIT_S: Final = 120.0
#: Tensors in which a low rank is looked for: 0.1 s for one of SmolLM2, 2 s for its head. Where more
#: differ, all do, for one reason.
_DECOMPOSED: Final = 8


#: Ops that a fused kernel of one side may have in one.
HEAD: Final = frozenset({"lm_head", "logprob"})


class NotComparable(ProbeError):
    """The sides were not given the same thing: sequences, vocabulary, layers or widths."""


@dataclass(frozen=True)
class Part:
    """One side, as far as alignment asks."""

    name: SideName
    dtype: torch.dtype
    sites: Sequence[Site]
    parameters: Callable[[Site], Parameters | None]
    received: Received


def align(
    sample: Sample, engine: Part, trainer: Part, time_limit_s: float = TIME_LIMIT_S
) -> Alignment:
    """Raises NotComparable. Weights of one site at a time are in memory."""
    checks = [*_same_input(sample, engine, trainer), *_same_ops(engine, trainer)]
    numbers = Numbers(engine.dtype)
    weights = _Weights(engine.dtype)
    theirs = {site.key for site in trainer.sites}
    end = monotonic() + time_limit_s
    for site in engine.sites:
        if site.key not in theirs:
            continue
        if monotonic() > end:
            weights.unknown.append(f"{site.key} (not within {time_limit_s:g} s)")
            continue
        mine, other = engine.parameters(site), trainer.parameters(site)
        if mine is None or other is None or type(mine) is not type(other):
            unread = [p.name for p, got in ((engine, mine), (trainer, other)) if got is None]
            sides = " and ".join(unread) or "engine and trainer, as one kind of op"
            weights.unknown.append(f"{site.key} (not read from {sides})")
            continue
        numbers.add(site, mine, other)
        weights.add(site, mine, other)
    return Alignment(
        checks=[*checks, *numbers.checks(), weights.check()],
        weights=weights.different,
        weights_compared=weights.compared,
        weights_unknown=weights.unknown,
    )


def _same_input(sample: Sample, engine: Part, trainer: Part) -> Iterator[Check]:
    for part in (engine, trainer):
        got = part.received
        if not np.array_equal(got.lengths, sample.lengths):
            raise _refused(
                f"the {part.name} read sequences of {got.lengths.tolist()} tokens, and the "
                f"sample's have {sample.lengths.tolist()}",
                "look for truncation, or for a mask that hides tokens or shows padding",
            )
        if not np.array_equal(got.tokens, sample.tokens):
            row = int((got.tokens != sample.tokens).argmax())
            sequence, position = sample.place_of(row)
            raise _refused(
                f"the {part.name} read token {got.tokens[row]} where the sample has "
                f"{sample.tokens[row]} (sequence {sequence}, position {position})",
                "hand token ids to both sides, not text",
            )
    rows, sequences = sample.rows, len(sample.lengths)
    yield Check(what="token ids", equal=True, says=f"{rows:,} in {sequences} sequences")
    yield Check(what="padding", equal=True, says="no side's attention sees any")
    mine, other = engine.received.positions, trainer.received.positions
    differ = (mine != other).nonzero()[0]
    if not len(differ):
        yield Check(what="positions", equal=True, says=f"0 to {int(mine.max())}")
        return
    row = int(differ[0])
    sequence, position = sample.place_of(row)
    says = (
        f"engine {mine[row]}, trainer {other[row]} at token {position} of sequence {sequence}; "
        f"{len(differ):,} of {rows:,} tokens differ"
    )
    yield Check(what="positions", equal=False, says=says)


def _same_ops(engine: Part, trainer: Part) -> Iterator[Check]:
    mine, other = (_layers(part.sites) for part in (engine, trainer))
    if mine != other:
        raise _refused(
            f"the engine has {mine} layers and the trainer {other}",
            "compare two models of one architecture",
        )
    yield Check(what="layers", equal=True, says=str(mine))
    keys = [{site.key for site in part.sites} for part in (engine, trainer)]
    alone = sorted(keys[0] ^ keys[1])
    inner = [key for key in alone if key not in HEAD]
    if inner:
        raise _refused(
            f"the {'engine' if inner[0] in keys[0] else 'trainer'} alone has {inner[0]} and "
            f"{len(inner) - 1} more ops",
            "compare two models of one architecture",
        )
    says = f"{len(keys[0] & keys[1])} on both sides"
    if alone:
        says += f"; on one side only: {', '.join(alone[:6])}{' …' if len(alone) > 6 else ''}"
    yield Check(what="ops seen", equal=not alone, says=says)


def _layers(sites: Sequence[Site]) -> int:
    return len({site.layer for site in sites} - {None})


class _Weights:
    """Compared site by site: the trainer's as the engine's dtype has them."""

    def __init__(self, engine_dtype: torch.dtype) -> None:
        self._engine_dtype = engine_dtype
        self.different: list[WeightDifference] = []
        self.unknown: list[str] = []
        self.compared = 0
        self._embedding: Tensor | None = None  # the trainer's, where the engine's is equal
        self._rounded: dict[tuple[str, str], int] = {}  # by coarser side and its dtype

    def add(self, site: Site, engine: Parameters, trainer: Parameters) -> None:
        if isinstance(engine, RotaryParameters):
            return  # its frequencies are numbers, not weights
        for one in fields(engine):
            mine, other = getattr(engine, one.name), getattr(trainer, one.name)
            if isinstance(mine, Tensor) or isinstance(other, Tensor):
                name = f"{site.key}.{one.name}"
                if isinstance(engine, EmbeddingParameters) or site.name == "lm_head":
                    _same_vocabulary(name, mine, other)
                before = len(self.different)
                self._compare(name, mine, other)
                self._tied(site, other, equal=len(self.different) == before)

    def _tied(self, site: Site, trainer: Tensor | None, *, equal: bool) -> None:
        """A head that differs although it is tied to an embedding that does not."""
        if site.kind == "embedding" and equal:
            self._embedding = trainer
        if site.name != "lm_head" or equal or self._embedding is None or trainer is None:
            return
        if trainer.data_ptr() == self._embedding.data_ptr():
            head = self.different.pop()
            says = (
                f"{head.says}; the trainer's is tied to its embedding, and that is equal: the "
                "engine goes on with a copy that it packed before its weights were reloaded"
            )
            self.different.append(head.model_copy(update={"says": says}))

    def _compare(self, name: str, mine: Tensor | None, other: Tensor | None) -> None:
        self.compared += 1
        if mine is None or other is None:
            self.different.append(_one_sided(name, mine, other))
            return
        if mine.shape != other.shape:
            raise _refused(
                f"{name} is {tuple(mine.shape)} in the engine and {tuple(other.shape)} in the "
                "trainer",
                "compare two models of one architecture",
            )
        mine, other = mine.detach().cpu(), other.detach().cpu()
        rounded = other.to(mine.dtype)
        few = len(self.different) < _DECOMPOSED
        difference = weight_difference(name, mine, rounded, decompose=few)
        if difference is None:
            if mine.dtype != other.dtype and not torch.equal(rounded.to(other.dtype), other):
                self._note("engine", mine.dtype)
        elif mine.dtype != other.dtype and torch.equal(mine.to(other.dtype), other):
            self._note("trainer", other.dtype)
        else:
            self.different.append(difference)

    def _note(self, coarse: str, dtype: torch.dtype) -> None:
        key = (coarse, str(dtype).removeprefix("torch."))
        self._rounded[key] = self._rounded.get(key, 0) + 1

    def check(self) -> Check:
        words = [f"{self.compared - len(self.different):,} of {self.compared:,} are equal"]
        for (coarse, dtype), count in self._rounded.items():
            fine = "trainer" if coarse == "engine" else "engine"
            words.append(
                f"in {count:,} the {coarse} holds the {dtype} rounding of the {fine}'s, as it must"
            )
        return Check(what="weights", equal=not self.different, says="; ".join(words))


def _one_sided(name: str, mine: Tensor | None, other: Tensor | None) -> WeightDifference:
    side, only = ("engine", mine) if mine is not None else ("trainer", other)
    assert only is not None
    size = float(only.double().abs().max())
    return WeightDifference(
        tensor=name, equal_fraction=0.0, max_abs=size, says=f"only the {side} has it"
    )


def _same_vocabulary(name: str, mine: Tensor | None, other: Tensor | None) -> None:
    if mine is not None and other is not None and len(mine) != len(other):
        raise _refused(
            f"{name} has {len(mine):,} tokens in the engine and {len(other):,} in the trainer",
            "give both sides the model after its embedding was resized",
        )


def _refused(what: str, remedy: str) -> NotComparable:
    return NotComparable(f"The sides are not comparable: {what}.", remedy=f"{remedy}.")
