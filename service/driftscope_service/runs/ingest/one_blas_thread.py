"""Importing this keeps numpy's BLAS on one thread, if numpy was not imported before.

On arrays of a step's size BLAS wakes a thread for each core. They gain nothing there, and then spin
for tens of milliseconds on cores that other analyses need: six times the processor time in all.
"""

from __future__ import annotations

import os

for _library in ("OPENBLAS", "MKL", "OMP"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
