"""What goes wrong between the service, a Ray cluster and its nodes, in words a user can act on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from driftscope_probes.children import Crash
from driftscope_probes.errors import ModelError, ProbeError
from driftscope_service.jobs.executors.base import NodeLost

#: Ray's own words may be a page of them.
MOST_WORDS: Final = 400
#: What Ray writes last in a driver whose own node, or whose head, has gone: it then ends itself.
_LOST = re.compile(r"raylet.*(died|dead|fail|exit)|GCS.*(connect|fail|killed|died)", re.IGNORECASE)
_NO_RAY = re.compile(r"ModuleNotFoundError: No module named '(ray\b[^']*)'")


class ClusterUnreachable(ProbeError):
    """The Ray cluster does not answer."""


class ClusterRefused(ProbeError):
    """The Ray cluster does not let the service in."""


class NodeMismatch(ProbeError):
    """A node has another version of driftscope, Python or Ray than the service, or none."""


class TransferError(ProbeError):
    """A file of a job is too large to go from one machine to another, or has a wrong name."""


class Reported(ProbeError):
    """An error of the probe, passed on as it stands: its class may be unknown here."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(fields["message"], remedy=fields["remedy"])
        self._error = fields["error"]

    def to_dict(self) -> dict[str, str]:
        return {**super().to_dict(), "error": self._error}


@dataclass(frozen=True, slots=True)
class Versions:
    driftscope: str
    python: str  # major.minor


@dataclass(frozen=True, slots=True)
class Node:
    id: str  # as Ray has it
    host: str
    address: str
    versions: Versions

    def __str__(self) -> str:
        return f"node {self.host} ({self.address}, {self.id[:12]})"


def check_versions(node: Node, ours: Versions) -> None:
    """Numbers of another version would look like a drift of the machine."""
    if node.versions != ours:
        theirs = node.versions
        raise NodeMismatch(
            f"{node} has driftscope {theirs.driftscope} with Python {theirs.python}; the service "
            f"has driftscope {ours.driftscope} with Python {ours.python}.",
            remedy="install the same version of driftscope, in the same version of Python, on "
            "every node of the cluster and for the service.",
        )


def no_driftscope(words: str, ours: Versions) -> NodeMismatch:
    return NodeMismatch(
        f"a node of the cluster cannot load driftscope; the service has {ours.driftscope}: "
        f"{shortened(words)}",
        remedy="install driftscope with its extra `ray`, in the service's version, into the "
        "Python that Ray runs in on every node.",
    )


def other_ray(words: str) -> NodeMismatch:
    return NodeMismatch(
        f"the service and the cluster do not fit together: {shortened(words)}",
        remedy="install the cluster's version of Ray, in its version of Python, for the service.",
    )


def no_model(node: Node, paths: list[str]) -> ModelError:
    return ModelError(
        f"{node} has no folder {', '.join(paths)}.",
        remedy="make the operator's model folders available on every node, at the same path; "
        "models of the catalogue need no folder.",
    )


def unreachable(address: str, words: str) -> ClusterUnreachable:
    return ClusterUnreachable(
        f"the Ray cluster at {address} does not answer: {shortened(words)}",
        remedy="check DRIFTSCOPE_RAY_ADDRESS. HOST:PORT needs a node of the cluster on the "
        "service's machine; ray://HOST:10001 does not.",
    )


def refused(address: str) -> ClusterRefused:
    return ClusterRefused(
        f"the Ray cluster at {address} does not accept the service's token.",
        remedy="put the cluster's token, as `ray get-auth-token` prints it, into the file that "
        "DRIFTSCOPE_RAY_TOKEN_FILE names.",
    )


_REASON: Final = "The actor died because"
_AGAIN: Final = "try again; the log of Ray on that node says why it ended."


def lost(node: Node | None, words: str) -> NodeLost:
    where = "a node of the cluster" if node is None else str(node)
    # Before the reason, Ray lists identities of the actor.
    reason = words[max(0, words.find(_REASON)) :]
    return NodeLost(f"{where} was lost: {shortened(reason)}", remedy=_AGAIN)


def silent(node: Node | None, seconds: float) -> NodeLost:
    where = "a node of the cluster" if node is None else str(node)
    return NodeLost(f"{where} has not answered for {seconds:g} s.", remedy=_AGAIN)


def explain_driver_crash(crash: Crash) -> ProbeError:
    """Ray ends the process itself where the node that it is attached to has gone."""
    missing = _NO_RAY.search(crash.log_tail)
    if missing:
        return ClusterUnreachable(
            f"the service cannot use a Ray cluster: the package {missing[1]!r} is not installed.",
            remedy="install driftscope[ray] for the service.",
        )
    if crash.signal_name is None and _LOST.search(crash.last_line):
        return lost(None, crash.last_line)
    how = crash.signal_name or f"exit code {crash.returncode}: {crash.last_line}"
    return ClusterUnreachable(
        f"the process that goes to the cluster ended with {how}",
        remedy="try again; the log holds the end of what that process wrote.",
    )


def shortened(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= MOST_WORDS else line[:MOST_WORDS] + " …"
