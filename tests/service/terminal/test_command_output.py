"""What a long command leaves: a whole folder or none, and the logs of what failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope_probes.errors import ProbeError, RequestError
from driftscope_probes.progress import Progress
from driftscope_service.terminal.commands import output_folder, print_result, progress_bar


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_appears_only_when_all_is_written(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "deep" / "report"
    if exists:
        target.mkdir(parents=True)
    with output_folder(target) as work:
        (work / "report.json").write_text("{}")
        assert not target.exists() or not list(target.iterdir())
    assert [path.name for path in target.iterdir()] == ["report.json"]
    assert list(target.parent.iterdir()) == [target]
    with pytest.raises(RequestError, match="exists already"), output_folder(target):
        pass


def test_a_failure_leaves_nothing_but_its_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTSCOPE_HOME", str(tmp_path / "home"))
    for number in (1, 2):  # the logs of the last one only
        with pytest.raises(ProbeError, match="(?s)broken.*Logs: .*last-failure"):
            with output_folder(tmp_path / "report") as work:
                (work / f"engine{number}").mkdir()
                (work / f"engine{number}" / "log.txt").write_text(f"line {number}")
                raise ProbeError("broken", remedy="mend it.")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    (log,) = (tmp_path / "home" / "logs" / "last-failure").iterdir()
    assert (log.name, log.read_text()) == ("engine2-log.txt", "line 2")


def test_without_a_terminal_a_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as show:
        for stage, fraction in (("a", 0.0), ("a", 0.25), ("b", 0.5), ("b", 1.0)):
            show(Progress(stage, fraction))
    assert capsys.readouterr().err.splitlines() == ["  0% a", " 50% b"]


def test_a_result_is_one_line_of_json_or_what_the_printer_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_result({"ü": 1}, True, lambda result, console: console.print("shown"))
    print_result({"ü": 1}, False, lambda result, console: console.print("shown"))
    assert capsys.readouterr().out == '{"ü": 1}\nshown\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        print_result({"a": float("nan")}, True, lambda result, console: None)
