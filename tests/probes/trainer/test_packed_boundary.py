from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from driftscope_probes.errors import TrainerError
from driftscope_probes.trainer.load import LoadedModel, check_packing, load_model
from driftscope_probes.trainer.settings import TrainerSettings


class IgnoresPositions(nn.Module):
    """The planted fault: a decoder that sees packed sequences as one."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return self.decoder(input_ids=input_ids, use_cache=False)


@pytest.fixture(params=["llama", "moe"])
def loaded(request: pytest.FixtureRequest, llama_folder: Path, moe_folder: Path) -> LoadedModel:
    folder = {"llama": llama_folder, "moe": moe_folder}[request.param]
    return load_model(str(folder), "tiny", "bf16", TrainerSettings())


def test_transformers_keeps_packed_sequences_apart(loaded: LoadedModel) -> None:
    check_packing(loaded.model, loaded.decoder)


def test_a_leak_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(TrainerError, match="see each other"):
        check_packing(loaded.model, IgnoresPositions(loaded.decoder))


def test_the_random_state_is_left_alone(loaded: LoadedModel) -> None:
    before = torch.get_rng_state()
    check_packing(loaded.model, loaded.decoder)
    assert torch.equal(before, torch.get_rng_state())
