"""The store of a data folder, as a command uses it beside a service that may run on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class DataFolders:
    experiments: Sequence[str]  # packages of the kinds that there are

    def __call__(
        self, report: Mapping[str, Any], data_dir: Path | None, folder: Path | None
    ) -> str:
        """The page of the report, in one short transaction. Raises ProbeError, OSError."""
        # Here, since commands start faster without a web framework and a database.
        from driftscope_service.experiments.keeping import origin
        from driftscope_service.experiments.registry import load_kinds
        from driftscope_service.experiments.store import ReportFiles
        from driftscope_service.experiments.submitted import Shelf, submit
        from driftscope_service.service import shared_database
        from driftscope_service.settings import load_settings
        from driftscope_service.store.identity import claim_storage
        from driftscope_service.store.storage.guarded import GuardedStorage
        from driftscope_service.store.storage.opening import open_storage

        settings = load_settings(data_dir=data_dir)
        with shared_database(settings) as database:
            opened = open_storage(settings.storage_url, settings.data_dir)
            storage = GuardedStorage(opened, database)
            claim_storage(database, storage)
            files, kinds = ReportFiles(storage), load_kinds(self.experiments)
            shelf = Shelf(settings.data_dir, database, files, kinds)
            done = submit(report, shelf, origin=origin(), folder=folder)
        return kinds[report["kind"]].report_page(done.report_id)
