"""Floors that were measured, kept as one JSON file each and found again by model and dtypes.

In: a folder (DATA_DIR/floors). Out: a Floor for `diagnose`, or None. Free of torch, and cheap: a
search reads the few files that bear the model's name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from driftscope_probes.device.environment import environment
from driftscope_probes.diagnosis.floor import Floor, short_dtype
from driftscope_probes.durable_file import write_whole
from driftscope_probes.errors import ProbeError
from driftscope_probes.floor.report import BASES, FloorReport
from driftscope_probes.record import Record

SCHEMA_VERSION: Final = "1"
#: Where the service keeps its data: its setting `data_dir`.
DATA_VARIABLE, DEFAULT_DATA = "DRIFTSCOPE_DATA_DIR", "driftscope-data"
FOLDER: Final = "floors"
#: A file of ours has under 1 KiB; anything far larger is not one.
MOST_BYTES = 64 * 1024
MOST_NAME = 64  # characters of a model's name within a file name, whose limit is 255 bytes
_log = logging.getLogger("driftscope")


class FloorFileError(ProbeError):
    """A file of floors cannot be read or written."""


class StoredFloor(Record):
    schema_version: str
    model: str
    fingerprint: str | None  # of the weights; None where only the name was known
    rollout_dtype: str
    trainer_dtype: str
    machine: str
    sigma: float = Field(gt=0.0, allow_inf_nan=False)  # nats on the logits
    low: float | None  # of the 95 % interval
    high: float | None
    basis: str
    tokens: int
    sequences: int
    measured_by: Literal["floor", "paired"]
    created_at: str  # ISO 8601, UTC

    def floor(self) -> Floor:
        interval = None if self.low is None or self.high is None else (self.low, self.high)
        return Floor(
            self.sigma,
            "calibrated",
            self.rollout_dtype,
            self.trainer_dtype,
            self.model,
            basis=f"measured on {self.machine}, {self.created_at[:10]}: "
            f"{BASES.get(self.basis, self.basis)}",
            interval=interval,
        )

    @property
    def file_name(self) -> str:
        weights = (self.fingerprint or "unknown").rpartition(":")[2][:12]
        machine = hashlib.sha256(self.machine.encode()).hexdigest()[:8]
        return (
            f"{_file_part(self.model)}--{weights}--{self.rollout_dtype}--{self.trainer_dtype}"
            f"--{machine}--{self.measured_by}.json"
        )


@dataclass(frozen=True, slots=True)
class FloorStore:
    """`folder` need not exist: then there are no floors yet."""

    folder: Path

    def find(
        self,
        model: str | None,
        rollout_dtype: str | None,
        trainer_dtype: str | None,
        *,
        fingerprint: str | None = None,
        here: str | None = None,
    ) -> Floor | None:
        """The floor that fits best, or None: then the prior holds. `here`: as `machine` names the
        one that asks; None: this one.

        A floor of the same weights goes before one of the same name, of this machine before
        another's, of `driftscope floor` before one that a paired probe left, a new one before an
        old one. Names match without their organisation (`org/name` finds `name`). A file that
        cannot be read is logged and passed over.
        """
        rollout, trainer = short_dtype(rollout_dtype), short_dtype(trainer_dtype)
        if model is None or rollout is None or trainer is None or not self.folder.is_dir():
            return None
        paths = sorted(self.folder.glob(f"{_file_part(model)}--*--{rollout}--{trainer}--*.json"))
        floors = [floor for path in paths if (floor := _readable(path)) is not None]
        # A file may have been renamed or edited: what it says counts, not what it is called.
        floors = [
            floor
            for floor in floors
            if (floor.rollout_dtype, floor.trainer_dtype) == (rollout, trainer)
            and _own_name(floor.model) == _own_name(model)
        ]
        if not floors:
            return None
        here = here or machine()
        best = max(
            floors,
            key=lambda floor: (
                fingerprint is not None and floor.fingerprint == fingerprint,
                floor.model.lower() == model.lower(),
                floor.machine == here,
                floor.measured_by == "floor",
                floor.created_at,
            ),
        )
        return best.floor()

    def put(self, floors: Sequence[StoredFloor]) -> None:
        """Each replaces the last one of its model, dtypes, machine and origin.

        Raises FloorFileError where the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for floor in floors:
                write_whole(self.folder / floor.file_name, _text(floor))
        except OSError as error:
            raise FloorFileError(
                f"the floors cannot be stored in {self.folder}: {error.strerror}.",
                remedy=f"set {DATA_VARIABLE} to a folder that this user may write.",
            ) from error

    def all(self) -> tuple[StoredFloor, ...]:
        """In order of file names; unreadable files are logged and passed over."""
        return tuple(_each(sorted(self.folder.glob("*.json"))))


def _each(paths: Sequence[Path]) -> Iterator[StoredFloor]:
    for path in paths:
        floor = _readable(path)
        if floor is not None:
            yield floor


def default_folder() -> Path:
    """DRIFTSCOPE_DATA_DIR/floors, as the service finds it."""
    return Path(os.environ.get(DATA_VARIABLE) or DEFAULT_DATA) / FOLDER


def find_floor(
    folder: Path,
    model: str | None,
    rollout_dtype: str | None,
    trainer_dtype: str | None,
    *,
    here: str | None = None,
) -> Floor | None:
    return FloorStore(folder).find(model, rollout_dtype, trainer_dtype, here=here)


def read_floor(path: Path) -> StoredFloor:
    """Raises FloorFileError that says what is wrong with the file."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        return StoredFloor.read(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise FloorFileError(
            f"{path} holds no floor: {reason}.",
            remedy="remove it and run driftscope floor again; until then the prior is used.",
        ) from error


def _readable(path: Path) -> StoredFloor | None:
    try:
        return read_floor(path)
    except FloorFileError as error:
        _log.warning("%s %s", error.message, error.remedy)
        return None


def stored_floors(report: FloorReport) -> tuple[StoredFloor, ...]:
    """The pairs of a report that found anything at all."""
    return tuple(
        StoredFloor(
            schema_version=SCHEMA_VERSION,
            model=report.model["name"],
            fingerprint=report.model["fingerprint"],
            rollout_dtype=pair.rollout_dtype,
            trainer_dtype=pair.trainer_dtype,
            machine=report.machine,
            sigma=pair.sigma,
            low=pair.low,
            high=pair.high,
            basis=pair.basis,
            tokens=pair.same_side.tokens,
            sequences=pair.same_side.sequences,
            measured_by="floor",
            created_at=report.created_at,
        )
        for pair in report.pairs
        if pair.sigma > 0.0
    )


@cache
def machine() -> str:
    """What chooses the kernels here: the first GPU, or the CPU. Asked once in a process."""
    hardware = environment()["hardware"]
    gpus = hardware.get("gpus")
    return str(gpus[0] if gpus else hardware["cpu"])


def _text(floor: StoredFloor) -> str:
    return json.dumps(floor.to_dict(), allow_nan=False, ensure_ascii=False, indent=1) + "\n"


def _own_name(model: str) -> str:
    """Without organisation, revision or folder, in lower case."""
    return model.rstrip("/").rpartition("/")[2].partition("@")[0].lower()


def _file_part(model: str) -> str:
    """The model's own name, fit for a file name; a digest tells apart what that makes equal."""
    name = _own_name(model)
    safe = re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9._-]", "-", name)).strip("-.")[:MOST_NAME]
    if safe == name:
        return safe
    return f"{safe}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"
