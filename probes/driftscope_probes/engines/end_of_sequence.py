"""Which tokens end a response, from the model's own files.

Engines are given token ids and load no tokenizer, so that they cannot know by themselves.
"""

from __future__ import annotations

import json
from pathlib import Path

from driftscope_probes.errors import RequestError

#: In transformers' order: what generation uses goes before what the architecture says.
FILES = ("generation_config.json", "config.json")


def end_of_sequence_ids(model_path: Path) -> list[int]:
    """Raise RequestError for a model that names no end-of-sequence token."""
    for name in FILES:
        file = model_path / name
        if not file.exists():
            continue
        found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        if found is not None:
            return [found] if isinstance(found, int) else list(found)
    raise RequestError(
        f"neither {' nor '.join(FILES)} of the model names an end-of-sequence token.",
        remedy="let responses run to --max-tokens (--ignore-eos).",
    )
