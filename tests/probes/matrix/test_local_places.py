"""Places of this machine with the real vLLM: what agrees, what an instruction set changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from driftscope_probes.errors import ProbeError
from driftscope_probes.matrix.places.base import Place, PlaceError
from driftscope_probes.matrix.places.local import LocalPlace
from driftscope_probes.matrix.report import MatrixReport
from driftscope_probes.matrix.request import MatrixRequest
from driftscope_probes.matrix.run import run_matrix
from driftscope_probes.matrix.work import Scores, Subject, Work, pack, unpack
from driftscope_probes.progress import ProgressSink, discard

from .made_up import WORK

PLAIN = {"ATEN_CPU_CAPABILITY": "default"}
"""torch's kernels without vector instructions, which sum in another order."""
FORWARD = Subject("trainer", "forward", "fp32")


@dataclass
class Overheard:
    """Keeps what its place answered."""

    place: LocalPlace
    sent: bytes = b""
    name: str = "here"
    kind: str = "local"
    variables: Mapping[str, str] = field(default_factory=dict)
    beside_others: bool = False
    own_python: bool = False

    def run(self, work: Work, workdir: Path, progress: ProgressSink) -> bytes:
        self.sent = self.place.run(work, workdir, progress)
        return self.sent


@dataclass
class Altered:
    """A planted fault: the answer of another place with one bit of one log-probability turned."""

    of: Overheard
    name: str = "altered"
    kind: str = "local"
    variables: Mapping[str, str] = field(default_factory=dict)
    beside_others: bool = False
    own_python: bool = False

    def run(self, work: Work, workdir: Path, progress: ProgressSink) -> bytes:
        answer = unpack(self.of.sent, work)
        bits = answer.scores[FORWARD].logprobs.view(np.uint32).copy()
        bits[1, 3] ^= 1
        planted = bits.view(np.float32)
        changed = {**answer.scores, FORWARD: Scores(planted, planted)}
        return pack(replace(answer, scores=changed))


@pytest.fixture(scope="module")
def report(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> MatrixReport:
    here = Overheard(LocalPlace("here"))
    plain = LocalPlace("plain", variables=PLAIN)
    places: list[Place] = [here, LocalPlace("here"), plain, Altered(here)]
    request = MatrixRequest(
        model="tiny-random-llama", trainer_dtypes=["fp32"], prompts=4, max_tokens=8, threads=1
    )
    folder = tmp_path_factory.mktemp("places")
    return run_matrix(request, places, folder, discard, tiny_llama)


@pytest.mark.slow
def test_the_same_place_twice_is_equal_and_another_instruction_set_is_not(
    report: MatrixReport,
) -> None:
    assert [place.name for place in report.places] == ["here", "here-2", "plain", "altered"]
    assert report.classes == (("here", "here-2"), ("plain",), ("altered",))
    for subject in report.subjects:
        assert not subject.not_repeatable
        alike = next(one for one in subject.classes if "here" in one)
        assert "here-2" in alike and "plain" not in alike, subject.words


@pytest.mark.slow
def test_the_planted_bit_is_found_where_it_is(report: MatrixReport) -> None:
    for subject in report.subjects:
        pairs = [pair for pair in subject.pairs if pair.second == "altered"]
        if subject.words != "trainer fp32":
            assert "altered" in subject.classes[0] and not pairs
            continue
        first = next(pair for pair in pairs if pair.first == "here").first_difference
        assert first is not None and (first.sequence, first.token) == (1, 3)


@pytest.mark.slow
def test_the_variable_is_shown_to_make_the_difference(report: MatrixReport) -> None:
    assert {fact.name for fact in report.facts} >= {"ATEN_CPU_CAPABILITY"}
    for subject in report.subjects[:2]:
        (own,) = [one for one in subject.goes_with if one.name == "ATEN_CPU_CAPABILITY"]
        assert own.makes_difference is True and "plain" in (own.only_between or ())


def failure(place: LocalPlace, tmp_path: Path, work: Work = WORK) -> ProbeError:
    with pytest.raises(ProbeError) as caught:
        place.run(work, tmp_path / place.name, discard)
    return caught.value


def test_a_place_that_cannot_work_says_why(tmp_path: Path) -> None:
    gone = failure(LocalPlace("gone", Path("/nowhere/python")), tmp_path)
    assert isinstance(gone, PlaceError) and "could not be started" in gone.message
    old = failure(LocalPlace("old"), tmp_path, replace(WORK, protocol="0"))
    assert "speaks version" in old.message
    other = failure(
        LocalPlace("other"), tmp_path, replace(WORK, model="tiny-random-llama", fingerprint="x")
    )
    assert "other weights" in other.message
    bare = failure(LocalPlace("bare", module="driftscope_probes.matrix.absent"), tmp_path)
    assert "lacks a package" in bare.message


def test_a_place_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    found = failure(LocalPlace("slow", module="hangs"), tmp_path, replace(WORK, seconds=1))
    assert found.message == "it gave no answer within 1 s."
