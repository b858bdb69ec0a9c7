"""Reference: a plain float32 forward of a folder's weights, one sequence at a time.

In: a folder, an adapter. Out: log-probabilities that neither batching, dropout, an attention kernel
nor a dtype has touched. It shares no code with the trainer's own forward, so that a fault there
cannot be in both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from driftscope_probes.errors import ModelError
from driftscope_probes.models.adapter import Adapter
from driftscope_probes.trainer.adapter import apply_adapter
from driftscope_probes.trainer.question import Rows


class Reference:
    def __init__(self, folder: Path, adapter: Adapter | None) -> None:
        """Raises ModelError."""
        try:
            # eager: a softmax written out, whatever kernel the trainer chose.
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation="eager",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(
                f"transformers cannot load {folder.name} in float32: {error}",
                remedy="give the weights before they were quantised, as safetensors files.",
            ) from error
        if adapter is not None:
            apply_adapter(self._model, adapter)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device).eval()

    def score(self, prompts: Rows, responses: Rows, temperature: float) -> NDArray[np.float32]:
        """[tokens] nats, packed in the order of the sequences."""
        pairs = zip(prompts, responses, strict=True)
        scored = [self._of_one(*pair, temperature) for pair in pairs if pair[1]]
        return np.concatenate(scored) if scored else np.empty(0, np.float32)

    def _of_one(
        self, prompt: tuple[int, ...], response: tuple[int, ...], temperature: float
    ) -> NDArray[np.float32]:
        ids = torch.tensor([[*prompt, *response]], device=self._device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
            logprobs = torch.log_softmax(logits / temperature, -1)
        chosen = logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0]
        values: NDArray[np.float32] = chosen.cpu().numpy()
        return values
