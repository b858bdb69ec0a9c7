"""The one error of a push: what was wrong with the data, and what the sender should do.

Messages name no path: the service hands them to clients that must not learn where files lie.
"""

from __future__ import annotations

from driftscope_probes.errors import ProbeError


class PushError(ProbeError):
    """Pushed data is malformed, inconsistent or larger than a limit."""
