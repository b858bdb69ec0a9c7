"""Folders of `.pt` files, which are refused: unpickling runs whatever the file says.

SGLang's dumper (`python/sglang/srt/debug_utils/dumper.py`) writes one file per tensor, named
`step=0___rank=0___dump_index=12___name=…___recompute_status=….pt`, a pickled dict of `value` and
`meta`; msprobe under PyTorch pickles tensors into `dump_tensor_data/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from driftscope_probes.errors import RequestError

PICKLED: Final = frozenset({".pt", ".pth", ".bin", ".pkl", ".pickle"})
#: Every file of SGLang's dumper has it in its name.
SGLANG_MARK: Final = "___dump_index="
CONVERTER: Final = "examples/capture/pt_to_safetensors.py"


def refuse_pickled(folder: Path, pickled: Sequence[Path]) -> RequestError:
    """The error to raise for a folder whose tensors are pickled."""
    if any(SGLANG_MARK in path.name for path in pickled):
        whose = "SGLang's dumper"
    elif any(path.parent.name == "dump_tensor_data" for path in pickled):
        whose = "msprobe"
    else:
        whose = "somebody"
    return RequestError(
        f"{folder} holds {len(pickled)} files such as {pickled[0].name} that {whose} wrote with "
        "pickle. Reading them would run code from the files, so they are not read.",
        remedy=f"convert your own dump once: python {CONVERTER} {folder} OUT, and give OUT "
        "(docs/capture.md).",
    )
