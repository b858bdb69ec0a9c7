from pathlib import Path

from driftscope_probes.nightly.shared_process import FILE, FindingLines, FindingTeller
from driftscope_probes.progress import Progress


def test_each_line_is_read_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    lines = FindingLines(tmp_path)
    assert list(lines.new()) == []
    seen: list[Progress] = []
    with FindingTeller(tmp_path, 2, seen.append) as teller:
        teller.began(0, "first")
        assert list(lines.new()) == [{"began": 0}]
        teller.done(0, "first", {"verdict": "PROVED"})
        teller.began(1, "second")
        assert list(lines.new()) == [{"done": 0, "verdict": "PROVED"}, {"began": 1}]
    with (tmp_path / FILE).open("a", encoding="utf-8") as file:
        file.write('{"done"')
    assert list(lines.new()) == []
    with (tmp_path / FILE).open("a", encoding="utf-8") as file:
        file.write(": 1}\n")
    assert list(lines.new()) == [{"done": 1}]
    assert [(step.stage, step.fraction) for step in seen] == [
        *(("first", 0.0), ("first", 0.5), ("second", 0.5))
    ]
