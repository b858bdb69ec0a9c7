"""Function: every token comes from another function, and one step cannot always say why.

In: an Examination. Out: how sure that is, and how the causes that look alike share it. What tells
them apart is mostly not in the log-probabilities: adapters and quantisation stand in the metadata,
what has been synced yet in the version, the trainer's own gradient in the advantages.
"""

from __future__ import annotations

from collections.abc import Mapping

from driftscope_probes.diagnosis.examination import Examination, ramp

#: Standard errors of the correlation with the advantage from which the trainer's own gradient is
#: seen in Δ: one in a thousand healthy steps reaches three.
ADVANTAGE_ERRORS = (2.0, 4.0)
#: Of a group's probability: other causes that nobody has described yet.
KNOWN = 0.9
#: In their order on a page.
ALIKE = (
    "stale_engine_weights",
    "dropped_tensor_on_reload",
    "quantized_weights",
    "lora_not_applied",
    "trainer_model_bug",
    "norm_eps",
    "rope_config",
    "rope_parameters_dropped",
    "entropy_sharpening",
    "chat_template_mismatch",
)


def other_function(seen: Examination) -> float:
    """More than rounding, everywhere, and still two proper distributions (E[ρ] = 1)."""
    _, distance = seen.signals.mean_ratio
    # A model that nobody calibrated may be noisier than the prior: its shape has to be off too.
    known = seen.floor.source == "calibrated" or not seen.rounding_shape
    return (
        ramp(seen.moved, 1.8, 3.5)
        * seen.same_everywhere
        * seen.same_token
        * ramp(abs(distance), 12.0, 5.0)
        * ramp(abs(seen.relation.one_sided), 0.98, 0.8)
        * (1.0 if known else 0.0)
    )


def along_gradient(seen: Examination) -> float:
    """0 to 1: how sure Δ follows the advantage."""
    found = seen.signals.advantage_correlation
    return 0.0 if found is None else ramp(found[1], *ADVANTAGE_ERRORS)


def share(seen: Examination, name: str) -> float:
    """What a cause gets of the group's probability when nothing speaks for it in particular."""
    whole = other_function(seen)
    if whole == 0.0:
        return 0.0
    weights = _weights(seen)
    return KNOWN * whole * weights[name] / sum(weights.values())


def _weights(seen: Examination) -> Mapping[str, float]:
    signals, settings = seen.signals, seen.settings
    along = along_gradient(seen)
    gross = ramp(seen.moved, 5.0, 20.0)
    whole_sequences = ramp(signals.sequence_effect or 1.0, 2.0, 5.0)
    same_tokens = ramp(signals.id_effect or 1.0, 2.0, 6.0)
    sure = signals.sure_ratio if signals.sure_ratio is not None else 0.1
    reach = signals.reach or 4.0
    like_rounding = (
        ramp(sure, 0.2, 0.12)
        * ramp(reach, 7.0, 5.0)
        * ramp(signals.kurtosis or 3.0, 150.0, 50.0)
        * ramp(signals.sequence_effect or 1.0, 3.0, 1.5)
        * (1.0 - same_tokens)
    )
    first = settings.weights_version == 0
    later = settings.weights_version is not None and not first
    return {
        # Nothing was synced before the first step; a configuration is wrong from it on.
        "stale_engine_weights": (0.15 if first else 1.0)
        * (1.0 + 4.0 * along + whole_sequences + same_tokens),
        "dropped_tensor_on_reload": (0.15 if first else 1.0)
        * (0.5 + gross + ramp(reach, 4.5, 6.5))
        * (1.0 - 0.7 * along)
        * (1.0 - 0.5 * same_tokens),
        "quantized_weights": (6.0 if settings.quantization else 0.6) * (0.4 + 2.0 * like_rounding),
        "lora_not_applied": 8.0 if settings.adapter else 0.1,
        "trainer_model_bug": (0.3 if later else 1.0) * (0.6 + gross + ramp(reach, 6.5, 4.5)),
        "norm_eps": (0.2 if later else 1.0) * (0.3 + ramp(reach, 6.5, 4.5)) * (1.0 - 0.5 * gross),
        "rope_config": (0.15 if later else 1.0) * (0.4 + ramp(reach, 5.0, 8.0)),
        "entropy_sharpening": (0.6 if later else 0.2) * (0.3 + ramp(reach, 5.0, 8.0)),
        "chat_template_mismatch": (0.15 if later else 0.7) * (0.4 + ramp(reach, 4.5, 6.0)),
    }
