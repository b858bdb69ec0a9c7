"""verl's own functions, loaded from its wheel without its imports; adversarial batches."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from driftscope_probes.tokens import Tokens, checked_tokens


@pytest.fixture(scope="session")
def verl_own(verl_source: ModuleType, verl_wheel: Path) -> Iterator[Any]:
    before = dict(sys.modules)
    try:
        yield verl_source.load(verl_wheel)
    finally:
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] == "verl":
                del sys.modules[name]


def adversarial_batch(seed: int) -> Tokens:
    """Rows of a padded batch as ragged sequences; which difficulty it has follows from the seed."""
    rng = np.random.default_rng(seed)
    kind = seed % 10
    rows = int(rng.integers(1, 9))
    longest = 8192 if seed % 50 == 7 else int(rng.integers(1, 200))
    lengths = rng.integers(1, longest + 1, rows)
    if kind == 1:
        lengths = np.array([1])
    tokens = int(lengths.sum())
    rollout = np.log(rng.beta(3, 1, tokens))
    trainer = np.minimum(rollout + 10.0 ** rng.uniform(-9, 0.5) * rng.normal(size=tokens), 0.0)
    mask = rng.random(tokens) < rng.choice([0.3, 0.9, 1.0])
    if kind == 2:
        mask[:] = False
    mask[int(rng.integers(tokens))] = True
    if kind == 3:
        trainer = rollout.copy()
    if kind == 4:
        trainer[rng.integers(tokens)] -= 10.0 ** rng.uniform(1, 4)
    if kind == 5:
        rollout[rng.integers(tokens)] -= 10.0 ** rng.uniform(1, 4)
    if kind == 6:
        trainer[rng.integers(tokens)] = rng.choice([np.nan, -np.inf])
    if kind == 7:
        rollout[rng.integers(tokens)] = rng.choice([np.nan, -np.inf])
    if kind == 8:
        trainer[:], rollout[:] = -0.5, -0.5 - np.log(2.0)
    if kind == 9:
        mask[: lengths[0]] = rows == 1
        mask[-1] = True
    return checked_tokens(rollout, trainer, np.concatenate([[0], np.cumsum(lengths)]), mask)


@pytest.fixture(scope="session")
def adversarial() -> Callable[[int], Tokens]:
    return adversarial_batch


Rows = list[list[tuple[float, float]]]  # (rollout, trainer) of the unmasked tokens, by sequence


@pytest.fixture(scope="session")
def batches() -> list[tuple[Tokens, Rows]]:
    """Forty batches without NaN and infinity, and the same as plain lists for an oracle."""
    pairs = [adversarial_batch(seed) for seed in range(50) if seed % 10 not in (6, 7)]
    return [(pair, _rows(pair)) for pair in pairs]


def _rows(pair: Tokens) -> Rows:
    rows: Rows = []
    for start, end in zip(pair.cu_seqlens[:-1].tolist(), pair.cu_seqlens[1:].tolist(), strict=True):
        places = [i for i in range(start, end) if pair.mask is None or pair.mask[i]]
        rows.append([(float(pair.rollout[i]), float(pair.trainer[i])) for i in places])
    return rows


# Metrics that are right down to the smallest differences; the others end at float64's rounding.
SMALL = ("k3_kl", "rollout_kl", "kl_error", "divergence_error", "mismatch_kl/all/mean")


class Oracle:
    """Plain Python floats, one loop per number; 60 digits where floats would cancel."""

    @staticmethod
    def exp(value: float) -> float:
        try:
            return math.exp(value)
        except OverflowError:
            return math.inf

    @staticmethod
    def k3(diff: float) -> float:
        with localcontext() as context:
            context.prec, context.Emax = 60, 10**9
            return float(Decimal(diff).exp() - 1 - Decimal(diff))

    @staticmethod
    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values) if math.inf not in values else math.inf

    @staticmethod
    def std(values: list[float]) -> float:
        if len(values) < 2 or math.inf in values:
            return math.nan
        try:
            return statistics.stdev(values)
        except OverflowError:
            return math.nan

    def over_sequences(self, rows: Rows, of_token: Callable[[float, float], float]) -> float:
        """Mean over all rows of token means; a row without tokens gives 0."""
        return self.mean([self.mean([of_token(*t) for t in row]) if row else 0.0 for row in rows])

    @staticmethod
    def agrees(ours: dict[str, float | None], oracle: dict[str, float]) -> None:
        assert set(ours) == set(oracle)
        for name, value in oracle.items():
            if math.isfinite(value):
                absolute = 1e-18 if name.endswith(SMALL) else 1e-15
                assert ours[name] == pytest.approx(value, rel=1e-9, abs=absolute), name
            else:
                assert ours[name] is None, name


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle()
