"""Values as sources spell them, under the words of names.NAMES; None for what is not understood."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from driftscope_probes.lint.base import Scalar

_ON: Final = frozenset({"true", "1", "yes", "on", "enabled"})
_OFF: Final = frozenset({"false", "0", "no", "off", "disabled"})
_UNSAID: Final = frozenset({"", "none", "null", "~", "???"})
#: Of shells, Hydra, OmegaConf and Jinja: a value that is only known when it runs.
_UNRESOLVED: Final = ("$", "{{")
#: Words of torch, vLLM, TRL, verl, NeMo-RL, Megatron and TransformerEngine.
_DTYPES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("bf16", "bfloat16"), "bf16"),
    **dict.fromkeys(("fp16", "float16", "half", "f16"), "fp16"),
    **dict.fromkeys(("fp32", "float32", "float", "f32"), "fp32"),
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2", "float8_e4m3fn", "float8_e5m2"), "fp8"),
}
#: More digits than any setting has, and short of the limit at which int() refuses a text.
_LONGEST_NUMBER: Final = 60


def word(value: Any) -> str | None:
    """Lower case; lists and mappings are no word."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    said = str(value).strip().strip("\"'").lower()
    return None if said in _UNSAID or _unresolved(said) else said


def text(value: Any) -> str | None:
    """As written: names of models and paths."""
    if not isinstance(value, str) or value.strip().lower() in _UNSAID:
        return None
    return None if _unresolved(value) else value.strip()


def _unresolved(said: str) -> bool:
    return any(mark in said for mark in _UNRESOLVED)


def switch(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    said = word(value)
    return True if said in _ON else False if said in _OFF else None


def opposite(value: Any) -> bool | None:
    """Of a switch that turns something off."""
    said = switch(value)
    return None if said is None else not said


def there(value: Any) -> bool | None:
    """A mapping, list or text that is not empty turns something on."""
    if value is None or (isinstance(value, str) and word(value) is None):
        return None
    said = switch(value)
    return bool(value) if said is None else said


def number(value: Any) -> float | int | None:
    """ "1e-6" is a text to YAML and a number to people."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        written = value.strip().replace("_", "")
        if not 0 < len(written) <= _LONGEST_NUMBER:
            return None
        try:
            value = int(written)
        except ValueError:
            try:
                value = float(written)
            except ValueError:
                return None
    if not isinstance(value, int | float) or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def dtype(value: Any) -> str | None:
    """bf16, fp16, fp32, fp8; "auto" and others as they are."""
    said = word(value)
    if said is None:
        return None
    said = said.removeprefix("torch.")
    return _DTYPES.get(said, said)


def scalar(value: Any) -> Scalar | None:
    """A value as it is: bool, number or lower-case word."""
    if isinstance(value, bool):
        return value
    found = number(value)
    return word(value) if found is None else found
