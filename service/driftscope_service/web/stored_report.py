"""A report from the store, for the pages that show it. In: its id. Out: its row and its JSON."""

from __future__ import annotations

import json
from typing import Any

from driftscope_service import problem_kinds
from driftscope_service.errors import ServiceError, not_found
from driftscope_service.service import Service
from driftscope_service.store.report_repository import ReportRepository, StoredReport


def stored_report(service: Service, report_id: str) -> tuple[StoredReport, dict[str, Any]]:
    """Raises the errors of /v1/reports/{id}."""
    with service.database.read() as connection:
        stored = ReportRepository(connection).get(report_id)
    if stored is None:
        raise not_found("report", report_id)
    report = report_content(service, stored)
    if report is None:
        raise ServiceError(
            problem_kinds.REPORT_GONE,
            f"{stored.file} is not in the data folder",
            remedy="run the probe again, or bring the folder back from a copy.",
        )
    return stored, report


def report_content(service: Service, stored: StoredReport) -> dict[str, Any] | None:
    """None where its file is gone."""
    try:
        text = service.report_files.path(stored.file).read_bytes()
    except FileNotFoundError:
        return None
    report: dict[str, Any] = json.loads(text)
    return report
