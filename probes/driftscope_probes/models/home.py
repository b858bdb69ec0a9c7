"""Where driftscope keeps what it builds and downloads.

In: the environment variable DRIFTSCOPE_HOME. Out: absolute paths; nothing is created here.
"""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "DRIFTSCOPE_HOME"


def home() -> Path:
    """`$DRIFTSCOPE_HOME`, else `~/.cache/driftscope`."""
    given = os.environ.get(HOME_VARIABLE)
    folder = Path(given).expanduser() if given else Path.home() / ".cache" / "driftscope"
    return folder.absolute()


def models_dir() -> Path:
    """The folder with one folder per built model."""
    return home() / "models"
