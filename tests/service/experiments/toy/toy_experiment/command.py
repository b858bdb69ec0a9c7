from __future__ import annotations

import typer


def toy(size: int = 3) -> None:
    """Count to a size."""
    print(list(range(size)))


def mount(_app: typer.Typer, probe: typer.Typer) -> None:
    probe.command()(toy)
