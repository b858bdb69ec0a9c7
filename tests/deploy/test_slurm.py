"""The sbatch template against a real Slurm of two nodes on loopback."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "deploy/slurm/driftscope-array.sbatch"
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
#: Long options of sbatch 22.05 and newer that the template may use.
OPTIONS = {
    "job-name", "array", "nodes", "ntasks", "exclusive", "gpus-per-node", "cpus-per-task", "mem",
    "time", "requeue", "open-mode", "output",
}  # fmt: skip
#: What the two nodes of the test do not have, taken back on the command line.
SMALL = ("--mem=100M", "--cpus-per-task=1", "--gpus-per-node=0", "--array=0-1")
WAIT_SECONDS = 60.0
CONFIGURATION = """\
ClusterName=check
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldPort={controller}
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1 RealMemory=200
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1 RealMemory=200
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
#: In place of driftscope: says how it was called, and makes the folder of the report.
STAND_IN = """\
#!/usr/bin/env bash
echo "$SLURMD_NODENAME: $*" >> "{calls}"
sleep 2
"""


def test_the_script_is_bash_and_its_options_are_known() -> None:
    text = TEMPLATE.read_text()
    done = subprocess.run(["bash", "-n", str(TEMPLATE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    options = re.findall(r"^#SBATCH --([a-z-]+)", text, re.M)
    assert set(options) == OPTIONS and len(options) == len(OPTIONS)


@pytest.mark.parametrize("missing", ["VENV", "MODEL", "REPORTS"])
def test_a_variable_that_was_forgotten_is_named(missing: str, tmp_path: Path) -> None:
    given = {"VENV": "/v", "MODEL": "m", "REPORTS": str(tmp_path)} | {"PATH": os.environ["PATH"]}
    del given[missing]
    done = subprocess.run(["bash", str(TEMPLATE)], env=given, capture_output=True, text=True)
    assert done.returncode != 0 and f"{missing}: " in done.stderr


@dataclass(frozen=True)
class Cluster:
    folder: Path

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), **variables}
        return subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=30
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    absent = [name for name in DAEMONS if _daemon(name) is None]
    if absent or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(DAEMONS)} (Debian: slurmctld slurmd munge)")
    # Sockets have short names only.
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    processes: list[subprocess.Popen[bytes]] = []
    try:
        _configure(folder)
        key, sock = folder / "munge.key", folder / "munge.socket"
        for command in (
            [_daemon("munged"), "--foreground", "--force", f"--key-file={key}", f"--socket={sock}",
             f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
             f"--seed-file={folder}/munged.seed"],
            [_daemon("slurmctld"), "-D"],
            [_daemon("slurmd"), "-D", "-N", "n1"],
            [_daemon("slurmd"), "-D", "-N", "n2"],
        ):  # fmt: skip
            processes.append(_start(folder, [str(part) for part in command]))
            time.sleep(0.5)
        started = Cluster(folder)
        _wait(lambda: started.run("sinfo", "-h", "-t", "idle", "-o", "%D").stdout.strip() == "2",
              lambda: (folder / "daemons.log").read_text())  # fmt: skip
        yield started
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            process.wait(timeout=20)
        shutil.rmtree(folder)


def _configure(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    (folder / "gres.conf").write_text("")
    ports = {"controller": free_port(), "first": free_port(), "second": free_port()}
    text = CONFIGURATION.format(host=socket.gethostname().split(".")[0], folder=folder, **ports)
    (folder / "slurm.conf").write_text(text)


def _start(folder: Path, command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    with (folder / "daemons.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)


def _daemon(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


def _wait(holds, why) -> None:  # type: ignore[no-untyped-def]
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < WAIT_SECONDS, why()
        time.sleep(0.5)


def test_slurm_would_take_it_and_refuses_a_node_that_is_too_small(cluster: Cluster) -> None:
    taken = cluster.run("sbatch", "--test-only", *SMALL, str(TEMPLATE))
    assert taken.returncode == 0 and "to start at" in taken.stderr
    refused = cluster.run("sbatch", "--test-only", *SMALL[1:], str(TEMPLATE))
    assert refused.returncode != 0 and "not available" in refused.stderr


def test_the_array_runs_on_both_nodes(cluster: Cluster) -> None:
    calls, program = cluster.folder / "calls", cluster.folder / "venv/bin/driftscope"
    program.parent.mkdir(parents=True)
    program.write_text(STAND_IN.format(calls=calls))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    given = {"VENV": str(cluster.folder / "venv"), "MODEL": "tiny", "REPORTS": str(cluster.folder)}
    done = cluster.run("sbatch", "--wait", *SMALL, str(TEMPLATE), USER="tester", **given)
    logs = "".join(log.read_text() for log in cluster.folder.glob("driftscope-*.log"))
    assert done.returncode == 0, done.stderr + logs
    lines = sorted(calls.read_text().splitlines())
    assert [line.partition(":")[0] for line in lines] == ["n1", "n2"]
    folder = cluster.folder / "1"
    assert all(f"probe paired --model tiny {'--prompts 16'}" in line for line in lines)
    outs = [re.search(r"--out (\S+) --no-store$", line) for line in lines]
    assert {Path(out[1]).parent for out in outs if out} == {folder}
    assert len({out[1] for out in outs if out}) == 2
