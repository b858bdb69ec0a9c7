"""A LoRA adapter's folder as PEFT writes it: what it adds to which layers, checked. Free of torch.

What would be computed otherwise than as y + scale · B(A(x)) is refused by its name, not ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from driftscope_probes.errors import ModelError
from driftscope_probes.models.checks import ADAPTER_CONFIG_NAME as CONFIG_NAME
from driftscope_probes.models.folder import sampled_fingerprint
from driftscope_probes.models.json_file import read_json

WEIGHTS_NAME: Final = "adapter_model.safetensors"
#: PEFT's config of a large model that lists every layer by name stays below 1 MB.
CONFIG_LIMIT: Final = 8 * 1024**2
#: Of PEFT's LoraConfig, where the file does not say.
DEFAULT_RANK, DEFAULT_ALPHA = 8, 8.0
_PREFIX: Final = "base_model.model."
_MATRIX: Final = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")
#: Of tensors that change the forward otherwise, what they belong to.
_OTHERS: Final[Mapping[str, str]] = {
    "lora_magnitude_vector": "DoRA (use_dora)",
    "lora_embedding": "an adapted embedding",
    "lora_bias": "a bias of the adapter (lora_bias)",
    "token_adapter": "trained tokens (trainable_token_indices)",
    "trainable_tokens": "trained tokens (trainable_token_indices)",
}
#: They change the base model's weights when they are created, which a plain sum does not undo.
_CHANGE_THE_BASE: Final = ("pissa", "olora", "corda", "loftq")
_MERGE: Final = (
    "give the trainer's own weights as a folder of their own instead: merge_and_unload in the "
    "dtype that the trainer holds them in, then --trainer-model FOLDER."
)


@dataclass(frozen=True, slots=True)
class AdaptedLayer:
    """One layer of the base: y + scale · B(A(x))."""

    module: str  # its name in the base model
    rank: int
    scale: float
    a: str  # names of the tensors; A is [rank, in], B is [out, rank]
    b: str


@dataclass(frozen=True, slots=True)
class Adapter:
    path: Path
    base: str | None  # model that the file names
    dropout: float  # lora_dropout, in training mode only
    layers: tuple[AdaptedLayer, ...]
    fingerprint: str

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS_NAME

    @property
    def ranks(self) -> list[int]:
        return sorted({layer.rank for layer in self.layers})

    def to_dict(self) -> dict[str, Any]:
        """For a report: the folder's path matters only on this machine."""
        return {
            "name": self.path.name,
            "base": self.base,
            "fingerprint": self.fingerprint,
            "layers": len(self.layers),
            "ranks": self.ranks,
            "scales": sorted({layer.scale for layer in self.layers}),
            "dropout": self.dropout,
        }

    def to_json(self) -> dict[str, Any]:
        """For another process."""
        return {**asdict(self), "path": str(self.path)}

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> Adapter:
        layers = tuple(AdaptedLayer(**layer) for layer in fields["layers"])
        return Adapter(**{**fields, "path": Path(fields["path"]), "layers": layers})


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file()


def read_adapter(name: str) -> Adapter:
    """The adapter in the folder `name`. Raises ModelError for what cannot be applied exactly."""
    folder = Path(name).expanduser()
    if not is_adapter(folder):
        raise ModelError(
            f"{name} has no {CONFIG_NAME}: it is not the folder of a LoRA adapter.",
            remedy="give the folder that PEFT's save_pretrained wrote.",
        )
    folder = folder.resolve()
    config = read_json(folder / CONFIG_NAME, CONFIG_LIMIT)
    _refuse_other_kinds(folder, config)
    base = config.get("base_model_name_or_path")
    return Adapter(
        path=folder,
        base=base if isinstance(base, str) and base else None,
        dropout=float(config.get("lora_dropout") or 0.0),
        layers=_layers(folder, config, _shapes(folder)),
        fingerprint=sampled_fingerprint(folder, (folder / WEIGHTS_NAME,)),
    )


def _refuse_other_kinds(folder: Path, config: Mapping[str, Any]) -> None:
    file = folder / CONFIG_NAME
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise ModelError(f"{file} is of the kind {kind}; LORA is applied.", remedy=_MERGE)
    initialised = str(config.get("init_lora_weights", "")).lower()
    refused = {
        "DoRA (use_dora)": config.get("use_dora"),
        f"a bias that is trained (bias {config.get('bias')!r})": config.get("bias", "none")
        not in ("none", None),
        "whole modules that are trained (modules_to_save)": config.get("modules_to_save"),
        "layers that are repeated (layer_replication)": config.get("layer_replication"),
        "activated LoRA (alora_invocation_tokens)": config.get("alora_invocation_tokens"),
        "trained tokens (trainable_token_indices)": config.get("trainable_token_indices"),
        f"a base that its initialisation changed (init_lora_weights {initialised!r})": (
            initialised.startswith(_CHANGE_THE_BASE)
        ),
    }
    for what, there in refused.items():
        if there:
            raise _unsupported(file, what)


def _unsupported(file: Path, what: str) -> ModelError:
    return ModelError(f"{file} has {what}, which is not applied here.", remedy=_MERGE)


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor, by its name."""
    file = folder / WEIGHTS_NAME
    if not file.is_file():
        pickled = "; adapter_model.bin, a pickle, is never loaded" if _pickle(folder) else ""
        raise ModelError(
            f"{folder} has no {WEIGHTS_NAME}{pickled}.",
            remedy="save it with PEFT's save_pretrained, which writes safetensors.",
        )
    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{file} is not a readable safetensors file: {error}",
            remedy="copy or save the adapter again; the file is damaged.",
        ) from error


def _pickle(folder: Path) -> bool:
    return (folder / "adapter_model.bin").is_file()


def _layers(
    folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[AdaptedLayer, ...]:
    file = folder / WEIGHTS_NAME
    names: dict[str, dict[str, str]] = {}
    for name in sorted(shapes):
        match = _MATRIX.fullmatch(name.removeprefix(_PREFIX))
        if match is None:
            what = next((said for part, said in _OTHERS.items() if part in name), None)
            raise _unsupported(file, what or f"the tensor {name}")
        names.setdefault(match["module"], {})[match["side"]] = name
    if not names:
        raise ModelError(f"{file} holds no lora_A and lora_B.", remedy="save the adapter again.")
    return tuple(_layer(file, config, module, of, shapes) for module, of in names.items())


def _layer(
    file: Path,
    config: Mapping[str, Any],
    module: str,
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> AdaptedLayer:
    missing = {"A", "B"} - names.keys()
    if missing:
        raise ModelError(
            f"{file} lacks lora_{missing.pop()} of {module}.",
            remedy="save or copy the adapter again; it is incomplete.",
        )
    a, b = shapes[names["A"]], shapes[names["B"]]
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        raise ModelError(
            f"{file}: lora_A of {module} is {list(a)}, lora_B is {list(b)}; [rank, in] and "
            "[out, rank] are needed.",
            remedy="save the adapter again; its matrices do not belong together.",
        )
    stated = int(_of_pattern(config.get("rank_pattern"), module) or config.get("r", DEFAULT_RANK))
    if stated != a[0]:
        raise ModelError(
            f"{file}: lora_A of {module} has rank {a[0]}, {CONFIG_NAME} says {stated}.",
            remedy="keep the config and the weights of one adapter together.",
        )
    alpha = float(
        _of_pattern(config.get("alpha_pattern"), module) or config.get("lora_alpha", DEFAULT_ALPHA)
    )
    scale = alpha / (math.sqrt(a[0]) if config.get("use_rslora") else a[0])
    return AdaptedLayer(module, a[0], scale, names["A"], names["B"])


def _of_pattern(patterns: Any, module: str) -> Any:
    """What rank_pattern or alpha_pattern says of a module: PEFT matches the end of its name."""
    if not isinstance(patterns, Mapping):
        return None
    found = (v for key, v in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", module))
    return next(found, None)
