from __future__ import annotations

import typer

from driftscope_service.experiments.keeping import Keep, kept


@kept
def toy(keep: Keep, size: int = 3) -> None:
    """Count to a size."""
    sizes = list(range(size))
    print(sizes)
    report = {"schema_version": "1", "kind": "toy", "created_at": "2026-01-01T00:00:00+00:00"}
    keep({**report, "request": {"size": size}, "sizes": sizes, "environment": {}})


def mount(_app: typer.Typer, probe: typer.Typer) -> None:
    probe.command()(toy)
