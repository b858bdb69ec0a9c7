"""Dump: the drill's cases as files of the push format, to look at and to run `analyze` on.

In: a folder, causes, ways and how many settings. Out: one safetensors file per case, named
<cause>__<way>__<severity>__<setting>__<number>.safetensors; files that are there are kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from safetensors.numpy import save_file

from driftscope_probes.diagnosis.drill.case import Case, Injection, Setting
from driftscope_probes.diagnosis.drill.faults import rounding
from driftscope_probes.diagnosis.drill.lab import Lab
from driftscope_probes.diagnosis.drill.policies import policy_folder
from driftscope_probes.diagnosis.drill.registry import INJECTIONS
from driftscope_probes.diagnosis.drill.settings import SETTINGS
from driftscope_probes.push.pushed_step import PushedStep

HEALTHY = "healthy"  # in file names, for a case without a cause


@dataclass(frozen=True, slots=True)
class Planned:
    injection: Injection
    setting: Setting
    severity: float
    number: int

    @property
    def file_name(self) -> str:
        cause = self.injection.cause or HEALTHY
        return (
            f"{cause}__{self.injection.way}__{self.severity:.2f}__{self.setting.name}"
            f"__{self.number}.safetensors"
        )

    def inject(self) -> Case:
        seed = crc32(self.file_name.encode())
        setting = self.setting
        lab = Lab(
            policy_folder(setting.model), setting.rollout_dtype, setting.trainer_dtype, setting.seed
        )
        rng = np.random.default_rng(seed)
        step = self.injection.inject(lab, self.severity, rng, setting)
        return Case(
            self.injection.cause,
            self.injection.way,
            self.severity,
            setting.name,
            step,
            self.injection.description,
        )


def plan(injections: Sequence[Injection], settings: Sequence[Setting]) -> Iterator[Planned]:
    """Every injection once in every setting that it can run in, at severities spread from 0 to 1:
    the golden ratio spreads any number of them evenly."""
    golden = (5**0.5 - 1) / 2
    for setting in settings:
        for injection in injections:
            if not injection.fits(setting):
                continue
            phase = crc32(f"{injection.cause} {injection.way}".encode()) / 2**32
            severity = (setting.seed * golden + phase) % 1.0
            yield Planned(injection, setting, round(severity, 2), setting.seed)


def save_step(step: PushedStep, path: Path) -> None:
    tensors = {
        name: tensor.astype(np.uint8) if tensor.dtype == np.bool_ else np.ascontiguousarray(tensor)
        for name, tensor in step.tensors().items()
    }
    save_file(tensors, path, dict(step.metadata))


def dump(planned: Iterable[Planned], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in planned:
        path = folder / item.file_name
        if path.exists():
            continue
        begun = time.perf_counter()
        save_step(item.inject().step, path)
        print(f"{time.perf_counter() - begun:6.1f} s  {path.name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--causes", default="", help="comma-separated; default all")
    parser.add_argument("--ways", default="a,b")
    parser.add_argument("--n", type=int, default=len(SETTINGS), help="settings to go through")
    parser.add_argument("--first", type=int, default=0, help="setting to begin with")
    parser.add_argument("--models", default="", help="comma-separated; default all")
    parser.add_argument("--most-length", type=int, default=2**20, help="response tokens")
    given = parser.parse_args()
    causes, ways = given.causes.split(","), given.ways.split(",")
    injections = [
        injection
        for injection in INJECTIONS
        if injection.way in ways and (causes == [""] or (injection.cause or HEALTHY) in causes)
    ]
    # The cheapest first: someone waits for the first of each cause.
    cheapest = sorted(SETTINGS[given.first :], key=lambda one: one.sequences * one.max_tokens)
    settings = [
        setting
        for setting in cheapest
        if (not given.models or setting.model in given.models.split(","))
        and setting.max_tokens <= given.most_length
    ][: given.n]
    faults = [injection for injection in injections if injection.cause is not None]
    dump(plan(faults, settings), given.folder)
    dump(_healthy(injections, given.models, given.n, given.first), given.folder)


def _healthy(
    injections: Sequence[Injection], models: str, count: int, first: int
) -> Iterator[Planned]:
    """Healthy pairs have settings of their own, many more than the faults."""
    chosen = [injection for injection in injections if injection in rounding.INJECTIONS]
    settings = [
        setting
        for setting in rounding.HEALTHY_SETTINGS
        if not models or setting.model in models.split(",")
    ]
    return plan(chosen, settings[first : first + count])


if __name__ == "__main__":
    main()
