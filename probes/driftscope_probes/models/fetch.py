"""Makes a model ready for use: builds a catalogue model or downloads a Hub model, once.

In: a name. Out: a ModelFolder, or a ModelError. Free of torch, as are the builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from driftscope_probes.errors import ModelError
from driftscope_probes.models import catalogue, hub, smollm2, tiny_random
from driftscope_probes.models.cache import Build, build_once
from driftscope_probes.models.folder import ModelFolder, describe
from driftscope_probes.models.safetensors_file import MasterDtype
from driftscope_probes.progress import ProgressSink, discard

BUILDS: Mapping[str, Build] = MappingProxyType(
    {
        "smollm2-135m": lambda folder, progress: smollm2.build(folder, "bf16", progress),
        "smollm2-135m-fp32": lambda folder, progress: smollm2.build(folder, "fp32", progress),
        "tiny-random-llama": tiny_random.build_llama,
        "tiny-random-moe": tiny_random.build_moe,
    }
)


def fetch(
    name: str,
    *,
    master_dtype: MasterDtype | None = None,
    force: bool = False,
    progress: ProgressSink = discard,
) -> ModelFolder:
    """The catalogue or Hub model `name`, built or downloaded if it is not there yet.

    `master_dtype` picks the sibling of a catalogue model (None: the one named), `force` builds it
    again. Safe to call from several processes at once; raises ModelError.
    """
    model = catalogue.find(name, master_dtype)
    if model is not None:
        made = build_once(
            model.folder, model.recipe, BUILDS[model.name], force=force, progress=progress
        )
        return describe(
            model.folder,
            name=model.name,
            origin="catalogue",
            revision=model.recipe,
            fingerprint=made.fingerprint,
        )
    if not hub.is_hub_id(name):
        raise catalogue.unknown(name)
    if master_dtype is not None:
        raise ModelError(
            f"{name} is a Hub id; a master dtype can be chosen for catalogue models only.",
            remedy="Leave the master dtype out: a Hub model is used as it is stored.",
        )
    path, commit = hub.download(name, progress)
    return describe(path, name=name, origin="hub", revision=commit)
