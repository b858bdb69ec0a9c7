"""Build the images, run docker-compose.yml for real, and report: `make compose-check`.

Needs root on Debian; installs podman and what belongs to it, and says so. Containers, volumes and
network are removed at the end, also after Ctrl-C; images stay for the next time.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import httpx
from scripts.compose_check import base_images, build, machine
from scripts.compose_check.client import Client, Unexpected
from scripts.compose_check.containment import check_containment
from scripts.compose_check.engine import CommandFailed, Engine
from scripts.compose_check.passage import check_passage, check_probe
from scripts.compose_check.report import Report
from scripts.compose_check.stack import removed_at_the_end, variables
from scripts.compose_check.survival import check_survival

REPOSITORY = Path(__file__).parents[2]
#: git and the build of the image ignore it.
REPORT = Path("driftscope-reports/compose-check")


def main() -> int:
    given = _arguments()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs without SIGINT
        signal.signal(number, _interrupt)
    if given.why_not:
        print(machine.why_not() or ", ".join(machine.missing().packages) or "nothing is missing")
        return 0
    report = Report()
    folder = Path(tempfile.mkdtemp(prefix="driftscope-compose-check-"))
    try:
        _check(report, folder)
    except (machine.MachineUnfit, CommandFailed, Unexpected, httpx.HTTPError) as error:
        report.error = str(error)
        print(f"compose-check: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        report.error = "interrupted"
    finally:
        report.write(given.report)
        _keep_logs(folder, given.report)
        shutil.rmtree(folder)
    print(report.text())
    print(f"compose-check: report in {given.report}")
    return 0 if report.passed else 1


def _check(report: Report, folder: Path) -> None:
    with report.timed("packages"):
        report.installed = machine.prepare(folder / "packages.log")
    engine = Engine.prepared(REPOSITORY, folder, dict(variables(folder)))
    with report.timed("base images"):
        report.images = base_images.make(engine, folder / "base-images.log")
    with report.timed("our image"):
        build.build(engine, folder / "image.log")
    with removed_at_the_end(engine, folder) as stack:
        with report.timed("start"):
            access = stack.start_all(folder)
        report.started = list(stack.seconds)
        report.seconds |= {f"start {name}": spent for name, spent in stack.seconds.items()}
        client = Client(access)
        with report.timed("containment"):
            check_containment(engine, report)
        with report.timed("push, scrape, alert, webhook"):
            check_passage(stack, client, report)
        with report.timed("paired probe in the container"):
            check_probe(client, report)
        with report.timed("restarts and kills"):
            check_survival(stack, client, report)
    report.complete = True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.compose_check", description=__doc__)
    parser.add_argument("--report", type=Path, default=REPORT, metavar="DIR",
                        help="where report.json, report.txt and the logs go")  # fmt: skip
    parser.add_argument("--why-not", action="store_true",
                        help="only say what keeps the check from running here")  # fmt: skip
    return parser.parse_args()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _keep_logs(folder: Path, report: Path) -> None:
    for log in folder.glob("*.log"):
        shutil.copy(log, report / log.name)


if __name__ == "__main__":
    sys.exit(main())
