"""The typed report of a drill. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from driftscope_probes.diagnosis.drill.course_score import CourseAnswer, CourseScore, score_courses
from driftscope_probes.diagnosis.drill.request import DrillRequest
from driftscope_probes.diagnosis.drill.score import Score


@dataclass(frozen=True, slots=True)
class AnsweredCase:
    """One case, for those who look for what went wrong."""

    file: str  # name of its push file
    cause: str | None
    way: str
    severity: float
    setting: str
    plain: bool  # pushed without what is optional
    answered: str  # a cause, `unexplained`, or a verdict
    first: tuple[str, ...]  # the first three causes
    confidence: float | None  # of the first
    without: str | None  # answered with the detector of this very cause removed


@dataclass(frozen=True, slots=True)
class DrillReport:
    score: Score
    answers: tuple[AnsweredCase, ...]
    courses: tuple[CourseAnswer, ...]
    request: DrillRequest
    environment: Mapping[str, Any]
    seconds: float

    @property
    def course_score(self) -> CourseScore:
        return score_courses(self.courses)

    def to_dict(self) -> dict[str, Any]:
        """What `drill --json` prints."""
        return {
            **self.score.to_dict(),
            "answers": [asdict(answer) for answer in self.answers],
            "runs": {
                **self.course_score.to_dict(),
                "answers": [asdict(answer) for answer in self.courses],
            },
            "request": self.request.model_dump(mode="json"),
            "environment": dict(self.environment),
            "seconds": self.seconds,
        }

    @staticmethod
    def read(given: Mapping[str, Any]) -> DrillReport:
        """What `to_dict` made."""
        answers = tuple(
            AnsweredCase(**{**answer, "first": tuple(answer["first"])})
            for answer in given["answers"]
        )
        courses = tuple(
            CourseAnswer(**{**run, "first": tuple(run["first"]), "excess": tuple(run["excess"])})
            for run in given["runs"]["answers"]
        )
        return DrillReport(
            Score.read(given),
            answers,
            courses,
            DrillRequest(**given["request"]),
            given["environment"],
            given["seconds"],
        )
