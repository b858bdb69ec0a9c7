"""One tree under test: its command, run as a user runs it, and where its answers are written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import golden_normal as normal

TIMEOUT_S = 600.0
#: Runs every line of lines.json in a fork. The first one, unforked, loads what an analysis needs.
FORKS = """
import contextlib, gc, io, json, os, sys
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    sys.argv[1:] = ["analyze", "basic.safetensors"]
    START
gc.freeze()
for number, line in enumerate(json.load(open("lines.json"))):
    child = os.fork()
    if child == 0:
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT), descriptor)
        sys.argv[1:] = line
        try:
            START
        except SystemExit as ended:
            sys.stdout.flush()
            os._exit(ended.code or 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    open(f"{number}.code", "w").write(str(code))
"""


@dataclass(frozen=True, slots=True)
class Run:
    out: Path
    work: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]
    places: Mapping[str, str]

    def write(self, name: str, content: str) -> None:
        path = self.out / f"{re.sub(r'[^A-Za-z0-9/_.,=<>-]+', '_', name)[:200]}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        while path.exists():  # of two nights, or of two services
            path = path.with_name("again-" + path.name)
        path.write_text(content)

    def tell(self, name: str, line: Sequence[str], code: int, out: str, err: str) -> None:
        out, err = normal.maybe_json(out, self.places), normal.text(err, self.places)
        told = normal.text(" ".join(line), self.places)
        self.write(f"cli/{name}", f"$ driftscope {told}\nexit {code}\n{out}--\n{err}")

    def cli(self, name: str, line: Sequence[str], **variables: str) -> str:
        """The answer is written; standard output is returned as it came."""
        environment = {**self.environment, **variables}
        command, folder = [*self.command, *line], self.work
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        self.tell(name, line, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def short_commands(self, lines: Mapping[str, Sequence[str]]) -> None:
        """Forks of one process that has imported the command: a fresh one costs a second each."""
        (self.work / "lines.json").write_text(json.dumps(list(lines.values())))
        run = [*self.command[:2], FORKS.replace("START", self.command[2])]
        subprocess.run(run, cwd=self.work, env=self.environment, check=True, timeout=TIMEOUT_S)
        for number, (name, line) in enumerate(lines.items()):
            told = [(self.work / f"{number}.{part}").read_text() for part in ("out", "err", "code")]
            self.tell(name, line, int(told[2]), told[0], told[1])


def new_run(out: Path, tree: Path, work: Path) -> Run:
    """The tree says itself where its roots are and what the command is."""
    project = tomllib.loads((tree / "pyproject.toml").read_text())
    module, function = project["project"]["scripts"]["driftscope"].split(":")
    start = f"import sys; sys.argv[0] = 'driftscope'; from {module} import {function}; "
    roots = project["tool"]["pytest"]["ini_options"]["pythonpath"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DRIFTSCOPE_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join(str(tree / root) for root in roots),
        "DRIFTSCOPE_HOME": str(work / "home"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
        "TZ": "UTC",
    }
    (work / "home").mkdir()
    # Kernels are compiled once per source, not once per golden run.
    kernels = Path.home() / ".cache" / "driftscope" / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    (work / "home" / "kernels").symlink_to(kernels)
    places = {str(work): "<work>", str(tree): "<tree>", str(Path.home()): "<home>"}
    command = (sys.executable, "-c", f"{start}sys.exit({function}())")
    return Run(out, work, command, environment, places)
