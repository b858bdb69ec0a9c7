"""Service: is driftscope itself well? Rate, errors and duration of pushes; jobs; storage."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from driftscope_dashboards import panel
from driftscope_dashboards.board import annotation, board, label_values, row
from driftscope_dashboards.query import Query, now

UID = "driftscope-service"
INSTANCE = 'job="driftscope", instance=~"$instance"'
RATE = "[$__rate_interval]"


def service_board() -> dashboard.Dashboard:
    made = board(
        UID,
        "driftscope: service",
        "Whether the service answers, takes pushes, works off its jobs and has room.",
        variables=[label_values("instance", "Instance", "driftscope_build_info", "instance")],
        annotations=[
            annotation(
                "Alerts",
                'ALERTS{alertname=~"JobQueueStuck|IngestRejecting|DiskLow|ServiceAbsent|'
                'ReplicaMissing", alertstate="firing"}',
                "{{alertname}}",
                "{{instance}}",
                "red",
            ),
            annotation(
                "Starts",
                f"changes(process_start_time_seconds{{{INSTANCE}}}[$__interval]) > 0",
                "Service started",
                "{{instance}}",
                "blue",
            ),
        ],
    )
    for add in (_now, _requests, _ingest, _jobs, _storage):
        made = add(made)
    return made


def _now(made: dashboard.Dashboard) -> dashboard.Dashboard:
    free = f"driftscope_disk_free_bytes{{{INSTANCE}}} / driftscope_disk_size_bytes{{{INSTANCE}}}"
    return (
        made.with_row(row("Now"))
        .with_panel(
            panel.stat_panel(
                "Unreachable",
                "Services that Prometheus cannot scrape. Metric: `up`",
                [now('count(up{job="driftscope"} == 0) or vector(0)')],
                steps=panel.BAD_FROM_ONE,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Active runs",
                "Runs with series of their own. Metric: `driftscope_runs`",
                [now(f'sum(driftscope_runs{{{INSTANCE}, state="active"}})')],
            )
        )
        .with_panel(
            panel.stat_panel(
                "Waiting jobs",
                "Metric: `driftscope_jobs`",
                [now(f'sum(driftscope_jobs{{{INSTANCE}, state="queued"}})')],
            )
        )
        .with_panel(
            panel.stat_panel(
                "Stopped workers",
                "Threads of the service that should run and do not. Metric: `driftscope_worker_up`",
                [now(f"count(driftscope_worker_up{{{INSTANCE}}} == 0) or vector(0)")],
                steps=panel.BAD_FROM_ONE,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Free disk",
                "Of the disk with the data folder. Metric: `driftscope_disk_free_bytes`",
                [now(free)],
                unit="percentunit",
                steps=((None, "red"), (0.05, "yellow"), (0.15, "green")),
                decimals=0,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Version",
                "Metric: `driftscope_build_info`",
                [now(f"driftscope_build_info{{{INSTANCE}}}", "{{version}}")],
            )
        )
    )


def _requests(made: dashboard.Dashboard) -> dashboard.Dashboard:
    requests = f"rate(driftscope_http_requests_total{{{INSTANCE}}}{RATE})"
    buckets = f"rate(driftscope_http_request_duration_seconds_bucket{{{INSTANCE}}}{RATE})"
    return (
        made.with_row(row("Requests"))
        .with_panel(
            panel.plot(
                "Requests per second",
                "By route; `other` is a path that does not exist, or was refused by host, key or "
                "length. Metric: `driftscope_http_requests_total`",
                [Query(f"sum by (route) ({requests})", "{{route}}")],
                unit="reqps",
            )
        )
        .with_panel(
            panel.plot(
                "Answers per second",
                "By class of the status: 4xx is refused, 5xx is a fault of the service or a full "
                "one. Metric: `driftscope_http_requests_total`",
                [Query(f"sum by (status_class) ({requests})", "{{status_class}}")],
                unit="reqps",
            )
        )
        .with_panel(
            panel.plot(
                "Duration of a request",
                "95 % of the requests of a route take at most this. Metric: "
                "`driftscope_http_request_duration_seconds`",
                [Query(f"histogram_quantile(0.95, sum by (le, route) ({buckets}))", "{{route}}")],
                unit="s",
            )
        )
    )


def _ingest(made: dashboard.Dashboard) -> dashboard.Dashboard:
    buckets = f"rate(driftscope_ingest_duration_seconds_bucket{{{INSTANCE}}}{RATE})"
    return (
        made.with_row(row("Pushes"))
        .with_panel(
            panel.plot(
                "Pushes per second",
                "By result. Metric: `driftscope_ingest_requests_total`",
                [
                    Query(
                        "sum by (result) (rate(driftscope_ingest_requests_total"
                        f"{{{INSTANCE}}}{RATE}))",
                        "{{result}}",
                    )
                ],
                unit="reqps",
            )
        )
        .with_panel(
            panel.plot(
                "Refused pushes",
                "By the name of the problem, which the answer explains at /problems/NAME. Metric: "
                "`driftscope_ingest_refused_total`",
                [
                    Query(
                        "sum by (reason) (rate(driftscope_ingest_refused_total"
                        f"{{{INSTANCE}}}{RATE}))",
                        "{{reason}}",
                    )
                ],
                unit="reqps",
            )
        )
        .with_panel(
            panel.plot(
                "Duration of a push",
                "Half and 95 % of the pushes take at most this. Metric: "
                "`driftscope_ingest_duration_seconds`",
                [
                    Query(f"histogram_quantile(0.5, sum by (le) ({buckets}))", "p50"),
                    Query(f"histogram_quantile(0.95, sum by (le) ({buckets}))", "p95"),
                ],
                unit="s",
            )
        )
        .with_panel(
            panel.plot(
                "Bytes received",
                "Metric: `driftscope_ingest_received_bytes_total`",
                [
                    Query(
                        f"sum(rate(driftscope_ingest_received_bytes_total{{{INSTANCE}}}{RATE}))",
                        "received",
                    )
                ],
                unit="Bps",
                width=panel.HALF,
            )
        )
        .with_panel(
            panel.plot(
                "Pushes under way",
                "At the limit further ones are refused with 503, and clients send them again. "
                "Metrics: `driftscope_ingest_in_flight_requests`, "
                "`driftscope_ingest_in_flight_limit_requests`",
                [
                    Query(f"driftscope_ingest_in_flight_requests{{{INSTANCE}}}", "under way"),
                    Query(f"driftscope_ingest_in_flight_limit_requests{{{INSTANCE}}}", "limit"),
                ],
                width=panel.HALF,
            )
        )
    )


def _jobs(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Jobs"))
        .with_panel(
            panel.plot(
                "Waiting and running",
                "Metrics: `driftscope_jobs`, `driftscope_jobs_queued_limit`",
                [
                    Query(f'driftscope_jobs{{{INSTANCE}, state=~"queued|running"}}', "{{state}}"),
                    Query(f"driftscope_jobs_queued_limit{{{INSTANCE}}}", "limit of queued"),
                ],
            )
        )
        .with_panel(
            panel.plot(
                "Finished",
                "Jobs in the table by how they ended. Metric: `driftscope_jobs`",
                [
                    Query(
                        f'driftscope_jobs{{{INSTANCE}, state=~"succeeded|failed|cancelled"}}',
                        "{{state}}",
                    )
                ],
            )
        )
        .with_panel(
            panel.plot(
                "Duration of the last job",
                "Metric: `driftscope_job_last_duration_seconds`",
                [
                    Query(
                        f"driftscope_job_last_duration_seconds{{{INSTANCE}}}", "{{kind}} {{state}}"
                    )
                ],
                unit="s",
            )
        )
    )


def _storage(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Storage and process"))
        .with_panel(
            panel.plot(
                "What the data folder holds",
                "Tokens are kept within their budget; reports and database only grow. Metrics: "
                "`driftscope_storage_bytes`, `driftscope_token_budget_bytes`",
                [
                    Query(f"driftscope_storage_bytes{{{INSTANCE}}}", "{{kind}}"),
                    Query(f"driftscope_token_budget_bytes{{{INSTANCE}}}", "budget of tokens"),
                ],
                unit="bytes",
                logarithmic=True,
            )
        )
        .with_panel(
            panel.plot(
                "Free disk",
                "Below the reserve no push is accepted. Metrics: `driftscope_disk_free_bytes`, "
                "`driftscope_disk_reserved_bytes`",
                [
                    Query(f"driftscope_disk_free_bytes{{{INSTANCE}}}", "free"),
                    Query(f"driftscope_disk_reserved_bytes{{{INSTANCE}}}", "reserve"),
                ],
                unit="bytes",
            )
        )
        .with_panel(
            panel.plot(
                "Memory and scrape",
                "Resident memory of the service's process. Metric: `process_resident_memory_bytes`",
                [Query(f"process_resident_memory_bytes{{{INSTANCE}}}", "resident")],
                unit="bytes",
            )
        )
    )
