"""Both sides on the same tokens, and each op of one side on the other's inputs.

In: two sides and a sample. Out: the captured tensors of four passes, and per site how they differ.

Only a comparison on equal inputs tells which op differs: one differing bit early in a model makes
everything behind it differ, and what remains of it at the end says nothing of where it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from driftscope_kernels.compare_ops.equality import NOTHING, Equality, compared
from driftscope_kernels.compare_ops.variant import Inputs
from driftscope_probes.errors import EngineError
from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sides.base import Side
from driftscope_probes.explain.sites import Place, Site, sites_of
from driftscope_probes.explain.store import Store
from driftscope_probes.explain.taps import Capture, EqualInputs

#: Places that have rows only where a token is scored.
SCORED_ONLY: Final = frozenset({"logits", "logprob"})
OnPass = Callable[[str], None]


@dataclass(frozen=True)
class Passes:
    """What four passes of two sides gave; `close` lets the disk go."""

    sample: Sample
    engine: Store  # the engine's own run
    trainer: Store  # the trainer's own run
    trainer_on_engine: Store  # the trainer's ops on the engine's inputs
    engine_on_trainer: Store
    engine_logprobs: NDArray[np.float32]  # of response tokens
    trainer_logprobs: NDArray[np.float32]

    @cached_property
    def sites(self) -> list[Site]:
        """Ops whose tensors were seen on both sides."""
        there = frozenset(self.trainer.places)
        return sites_of([place for place in self.engine.places if place in there])

    def read(self, store: Store, place: Place) -> Tensor:
        """Of the rows of the sample that the place has."""
        if place.name in SCORED_ONLY:
            return store.read_rows(place, torch.from_numpy(self.sample.scored))
        return store.read(place)

    def inputs(self, site: Site, given: Store, like: Store) -> Inputs:
        """The op's inputs as `given` holds them, in the dtypes in which `like` has them."""
        places = site.inputs
        tensors = {name: given.read(place).to(like.dtype(place)) for name, place in places.items()}
        return inputs_of(self.sample, site, tensors)

    def close(self) -> None:
        for store in (self.engine, self.trainer, self.trainer_on_engine, self.engine_on_trainer):
            store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def inputs_of(sample: Sample, site: Site, tensors: Mapping[str, Tensor]) -> Inputs:
    """The sample's rows as one op reads them; of ops behind the layers those that are scored."""
    positions = torch.from_numpy(sample.positions)
    cu_seqlens = torch.from_numpy(sample.cu_seqlens)
    tokens = torch.from_numpy(sample.targets if site.kind == "logprob" else sample.tokens)
    if not scored_only(site):
        return Inputs(tensors, positions, cu_seqlens, tokens)
    rows = torch.from_numpy(sample.scored)
    lengths = torch.tensor([0, *(len(response) for response in sample.responses)])
    return Inputs(
        {name: value[rows] for name, value in tensors.items()},
        positions[rows],
        lengths.cumsum(0),
        tokens[rows],
    )


def scored_only(site: Site) -> bool:
    return any(place.name in SCORED_ONLY for place in site.outputs.values())


def run_passes(
    engine: Side, trainer: Side, sample: Sample, scratch: Path, told: OnPass = lambda _: None
) -> Passes:
    """Raises EngineError where a run through hooks gives other bits, or a side gives no numbers."""
    with ExitStack() as opened:
        stores = [opened.enter_context(Store(sample.rows, scratch)) for _ in range(4)]
        mine, theirs, on_engine, on_trainer = stores
        told("the engine's ops")
        engine_logprobs = _watched(engine, sample, mine)
        told("the trainer's ops")
        trainer_logprobs = _watched(trainer, sample, theirs)
        told("the trainer's ops on the engine's inputs")
        trainer.run(sample, EqualInputs(mine, on_engine))
        told("the engine's ops on the trainer's inputs")
        engine.run(sample, EqualInputs(theirs, on_trainer))
        opened.pop_all()
    return Passes(sample, mine, theirs, on_engine, on_trainer, engine_logprobs, trainer_logprobs)


def _watched(side: Side, sample: Sample, into: Store) -> NDArray[np.float32]:
    plain = side.run(sample, None)
    lost = int((~np.isfinite(plain)).sum())
    if lost:
        raise EngineError(
            f"{lost} of {plain.size} log-probabilities of the {side.name} are no numbers.",
            remedy="look for an overflow first: fp16 ends at 65,504, bf16 and fp32 do not.",
        )
    seen = side.run(sample, Capture(into))
    if plain.tobytes() != seen.tobytes():
        raise EngineError(
            f"the {side.name} gives other log-probabilities while it is watched: at most "
            f"{np.abs(plain - seen).max():.2g} nats apart.",
            remedy="run it on one thread and without other load; a side that does not repeat its "
            "own numbers is what `driftscope probe determinism` examines.",
        )
    return plain


@dataclass(frozen=True, slots=True)
class SiteDifference:
    """Of one op, over its outputs."""

    site: Site
    forward: Equality  # the engine against the trainer on the engine's inputs
    reverse: Equality  # the engine on the trainer's inputs against the trainer
    own: Equality  # the two runs as they are
    first_output: Place | None  # the one that holds `forward.first`


def differences(passes: Passes) -> list[SiteDifference]:
    """In the order in which the ops run."""
    return [_difference(passes, site) for site in passes.sites]


def _difference(passes: Passes, site: Site) -> SiteDifference:
    forward = reverse = own = NOTHING
    first = None
    for place in site.outputs.values():
        mine, theirs = passes.read(passes.engine, place), passes.read(passes.trainer, place)
        one = equality(mine, passes.read(passes.trainer_on_engine, place))
        if one.first is not None and first is None:
            first = place
        forward += one
        reverse += equality(passes.read(passes.engine_on_trainer, place), theirs)
        own += equality(mine, theirs)
    return SiteDifference(site, forward, reverse, own, first)


def equality(left: Tensor, right: Tensor) -> Equality:
    return compared(*in_one_dtype(left, right))


def in_one_dtype(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Both rounded to the coarser of the two; integers as int64."""
    if not left.is_floating_point():
        return left.long(), right.long()
    if left.dtype == right.dtype:
        return left, right
    coarser = max(left.dtype, right.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    return left.to(coarser), right.to(coarser)
