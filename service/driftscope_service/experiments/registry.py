"""Kinds of probes as readers of a page say them, and where the page of a report is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from driftscope_service.experiments.determinism import job as determinism_job
from driftscope_service.experiments.kernels import job as kernels_job
from driftscope_service.experiments.nightly import job as nightly_job
from driftscope_service.experiments.paired import job as paired_job

#: In the order of the listing.
KINDS: Final[Mapping[str, str]] = {
    paired_job.KIND: "Paired probe",
    determinism_job.KIND: "Determinism probe",
    kernels_job.KIND: "Kernel check",
    nightly_job.KIND: "Nightly check",
}
#: These have a page among ours; the others have the self-contained one.
OWN_PAGE: Final = frozenset([paired_job.KIND, determinism_job.KIND])


def kind_label(kind: str) -> str:
    return KINDS.get(kind, kind)


def report_page(kind: str, report_id: str) -> str:
    return f"/{'probes' if kind in OWN_PAGE else 'reports'}/{report_id}"
