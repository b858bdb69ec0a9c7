"""What the check started, how long each part took, and what it found: as JSON and as text."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scripts.compose_check.base_images import BaseImage


@dataclass(frozen=True)
class Finding:
    about: str  # the container, or the part of the check
    what: str  # what was to hold
    holds: bool
    seen: str


@dataclass
class Report:
    installed: tuple[str, ...] = ()
    images: list[BaseImage] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    complete: bool = False  # every part was run
    error: str | None = None  # what ended the check before its last part

    @property
    def passed(self) -> bool:
        return (
            self.complete and self.error is None and all(finding.holds for finding in self.findings)
        )

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        print(f"compose-check: {part} …", flush=True)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = round(time.monotonic() - began, 1)
            print(f"compose-check: {part}: {self.seconds[part]:.1f} s", flush=True)

    def say(self, about: str, what: str, holds: bool, seen: object) -> None:
        finding = Finding(about, what, holds, str(seen))
        self.findings.append(finding)
        print(_line(finding), flush=True)

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        document = {"passed": self.passed, **asdict(self)}
        (folder / "report.json").write_text(json.dumps(document, indent=2) + "\n")
        (folder / "report.txt").write_text(self.text())

    def text(self) -> str:
        lines = ["images (Debian's packages stand in for the registry's):"]
        lines += [f"  {image.name}: {image.holds}" for image in self.images]
        lines += [f"installed: {', '.join(self.installed) or 'nothing'}"]
        lines += [f"started: {', '.join(self.started)}", "seconds:"]
        lines += [f"  {seconds:8.1f}  {part}" for part, seconds in self.seconds.items()]
        lines += ["findings:", *map(_line, self.findings)]
        held = sum(finding.holds for finding in self.findings)
        lines.append(f"{held} of {len(self.findings)} hold")
        lines += [f"ended before its last part: {self.error}"] if self.error else []
        return "\n".join(lines) + "\n"


def _line(finding: Finding) -> str:
    mark = "ok  " if finding.holds else "FAIL"
    return f"  {mark} {finding.about}: {finding.what}: {finding.seen[:300]}"
