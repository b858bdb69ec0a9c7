"""What is asked of a place, and the scores that it answers with: what crosses between machines.

Work is JSON. An answer is the bytes of one safetensors file whose metadata hold JSON: nothing is
unpickled, and sizes, names, shapes and dtypes are checked before anything is compared.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.settings import EngineSettings
from driftscope_probes.errors import ProbeError
from driftscope_probes.models.folder import ModelFolder, describe

#: Changes with what a place is asked or answers: an older place says so instead of guessing.
PROTOCOL: Final = "1"
Side = Literal["engine", "trainer"]
#: How tokens get their log-probabilities: given tokens in one pass, or greedy tokens one by one.
Way = Literal["prefill", "greedy", "forward"]
#: Environment, settings and times of one place; tens of KiB in practice.
MOST_FACTS_BYTES: Final = 1024 * 1024
#: Header of a safetensors file, beside the facts: about 100 bytes per tensor.
MOST_HEADER_BYTES: Final = 256 * 1024
_LENGTH_BYTES: Final = 8  # of the header's length, little-endian


class AnswerError(ProbeError):
    """What a place sent is not an answer to what it was asked."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing that every place computes."""

    side: Side
    way: Way
    dtype: str  # of the engine, or a trainer mode

    @property
    def name(self) -> str:
        return f"{self.side}/{self.way}/{self.dtype}"

    @property
    def words(self) -> str:
        return f"{self.side} {self.dtype}" + ("" if self.side == "trainer" else f" {self.way}")


@dataclass(frozen=True, slots=True)
class Work:
    protocol: str
    model: str  # name or folder, as the place finds it
    fingerprint: str  # of the weights that it must find there
    engine: EngineSettings
    engine_dtypes: tuple[Dtype, ...]
    trainer_dtypes: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    responses: tuple[tuple[int, ...], ...] | None  # None: the place samples them
    max_tokens: int
    seed: int
    seconds: int  # after which the place is given up

    def subjects(self) -> Iterator[Subject]:
        for dtype in self.engine_dtypes:
            yield Subject("engine", "prefill", dtype)
            yield Subject("engine", "greedy", dtype)
        for mode in self.trainer_dtypes:
            yield Subject("trainer", "forward", mode)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.prompts), self.max_tokens

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "engine": self.engine.model_dump()}

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Work:
        """Raises AnswerError for the work of another version."""
        if fields.get("protocol") != PROTOCOL:
            raise AnswerError(
                f"this place speaks version {PROTOCOL} of the matrix probe, it was asked in "
                f"version {fields.get('protocol')}.",
                remedy="install the same version of driftscope at every place.",
            )
        assert all(dtype in get_args(Dtype) for dtype in fields["engine_dtypes"])
        responses = fields["responses"]
        return Work(
            **{
                **fields,
                "engine": EngineSettings(**fields["engine"]),
                "engine_dtypes": tuple(fields["engine_dtypes"]),
                "trainer_dtypes": tuple(fields["trainer_dtypes"]),
                "prompts": tuple(map(tuple, fields["prompts"])),
                "responses": None if responses is None else tuple(map(tuple, responses)),
            }
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one subject, twice: what a place does not give again says nothing about another place."""

    logprobs: NDArray[np.float32]  # [prompts, max_tokens], nats
    again: NDArray[np.float32]
    tokens: NDArray[np.int32] | None = None  # greedy only: those that were decoded
    tokens_again: NDArray[np.int32] | None = None

    @property
    def repeats(self) -> bool:
        return same_bits(self.logprobs, self.again) and (
            self.tokens is None
            or self.tokens_again is None
            or np.array_equal(self.tokens, self.tokens_again)
        )


@dataclass(frozen=True, slots=True)
class Answer:
    responses: NDArray[np.int32]  # [prompts, max_tokens]: those that were scored
    scores: Mapping[Subject, Scores]
    facts: Mapping[str, Any]  # environment, settings, timing (s): JSON


def digest_of(model: ModelFolder) -> str:
    """Of its files, whether it was found by name or by folder."""
    return describe(model.path, name=model.name, origin="folder").fingerprint


def same_bits(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """NaN included."""
    return bool(np.array_equal(first.view(np.uint32), second.view(np.uint32)))


def pack(answer: Answer) -> bytes:
    tensors = {"responses": answer.responses}
    for subject, scores in answer.scores.items():
        tensors |= {f"{subject.name}/{name}": array for name, array in _arrays(scores).items()}
    facts = json.dumps(dict(answer.facts), allow_nan=False)
    return save(tensors, metadata={"protocol": PROTOCOL, "facts": facts})


def _arrays(scores: Scores) -> dict[str, NDArray[Any]]:
    every = {name: getattr(scores, name) for name in Scores.__slots__}
    return {name: array for name, array in every.items() if array is not None}


def most_bytes(work: Work) -> int:
    """No honest answer is longer."""
    arrays = 1 + 4 * len(list(work.subjects()))
    return MOST_HEADER_BYTES + MOST_FACTS_BYTES + 4 * arrays * work.shape[0] * work.shape[1]


def unpack(sent: bytes, work: Work) -> Answer:
    """Raises AnswerError."""
    if len(sent) > most_bytes(work):
        raise _malformed(f"it has {len(sent)} bytes, at most {most_bytes(work)} are accepted")
    facts = _facts(sent)
    try:
        tensors = load(sent)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _malformed(str(error)) from error
    scores = {}
    for subject in work.subjects():
        wanted: tuple[str, ...] = ("logprobs", "again")
        if subject.way == "greedy":
            wanted = (*wanted, "tokens", "tokens_again")
        found = {name: _taken(tensors, f"{subject.name}/{name}", work) for name in wanted}
        scores[subject] = Scores(**cast(dict[str, Any], found))
    responses = cast(NDArray[np.int32], _taken(tensors, "responses", work))
    if tensors:
        raise _malformed(f"it holds {min(tensors)[:80]!r}, which nobody asked for")
    return Answer(responses, scores, facts)


def _taken(tensors: dict[str, NDArray[Any]], name: str, work: Work) -> NDArray[Any]:
    tensor = tensors.pop(name, None)
    if tensor is None:
        raise _malformed(f"{name} is missing")
    last = name.rpartition("/")[2]
    dtype = np.float32 if last in ("logprobs", "again") else np.int32
    if tensor.dtype != dtype or tensor.shape != work.shape:
        raise _malformed(
            f"{name} is {tensor.dtype} {list(tensor.shape)}, not {np.dtype(dtype)} "
            f"{list(work.shape)}"
        )
    return tensor


def _facts(sent: bytes) -> dict[str, Any]:
    length = int.from_bytes(sent[:_LENGTH_BYTES], "little")
    if not 0 < length <= min(len(sent) - _LENGTH_BYTES, MOST_HEADER_BYTES + MOST_FACTS_BYTES):
        raise _malformed(f"its header has {length} bytes")
    try:
        header = json.loads(sent[_LENGTH_BYTES : _LENGTH_BYTES + length])
        facts = json.loads(header["__metadata__"]["facts"])
        _check_facts(facts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _malformed(f"its facts cannot be read: {error!r:.200}") from error
    assert isinstance(facts, dict)
    return facts


def _check_facts(facts: Any) -> None:
    """Raises TypeError, KeyError: what the report is made of has to be what it seems."""
    environment = facts["environment"]
    if not all(isinstance(environment[name], dict) for name in _ENVIRONMENT):
        raise TypeError("environment")
    if not all(isinstance(environment[name], str) for name in ("python", "platform")):
        raise TypeError("python, platform")
    if not isinstance(environment["hardware"].get("gpus", []), list):
        raise TypeError("gpus")
    if not all(isinstance(note, str) for note in facts["notes"]):
        raise TypeError("notes")
    seconds = facts["timing"].values()
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in seconds):
        raise TypeError("timing")


#: Parts of an environment that are compared.
_ENVIRONMENT: Final = ("packages", "hardware", "variables", "libraries", "kernel_packages")


def _malformed(why: str) -> AnswerError:
    return AnswerError(
        f"the place's answer is not accepted: {why}.",
        remedy="install the same version of driftscope at every place.",
    )
