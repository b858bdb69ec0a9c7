from __future__ import annotations

import math
from typing import Any

import numpy as np

from driftscope_probes.mismatch.frameworks.skyrl import skyrl
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens


def bounded(log_ratio: float) -> float:
    return math.exp(max(-20.0, min(20.0, log_ratio)))


def bounds_of(name: str, ratios: list[float], low: float, high: float) -> dict[str, float]:
    count = len(ratios)
    return {
        f"{name}_over_high_ratio": sum(r > high for r in ratios) / count,
        f"{name}_under_low_ratio": sum(r < low for r in ratios) / count,
        f"{name}_masked_ratio": sum(r < low or r > high for r in ratios) / count,
    }


def test_equals_an_oracle(batches: Any, oracle: Any) -> None:
    for pair, rows in batches:
        diffs = [[trainer - rollout for rollout, trainer in row] for row in rows]
        flat = [d for row in diffs for d in row]
        ratios = [bounded(d) for d in flat]
        width = max(np.diff(pair.cu_seqlens).tolist())
        padded = ratios + [0.0] * (len(rows) * width - len(ratios))
        product = [bounded(math.fsum(row)) for row in diffs]
        geometric = [bounded(math.fsum(row) / max(len(row), 1)) for row in diffs]
        worst = [[bounded(d) for d in row] for row in diffs]
        high = [any(r > 100.0 for r in row) for row in worst]
        low = [any(r < 1e-4 for r in row) for row in worst]
        expected = {
            "rollout_train_logprobs_abs_diff_mean": oracle.mean([abs(d) for d in flat]),
            "rollout_train_logprobs_abs_diff_std": oracle.std([abs(d) for d in flat]),
            "rollout_train_logprobs_abs_diff_max": max(abs(d) for d in flat),
            "rollout_train_logprobs_abs_diff_min": min(abs(d) for d in flat),
            "is_ratio_mean": oracle.mean(ratios),
            "is_ratio_std": oracle.std(padded),
            "is_ratio_max": max(padded),
            "is_ratio_min": min(padded),
            "tis_token_clip_high_ratio": oracle.mean([float(r > 2.0) for r in ratios]),
            "tis_seq_clip_high_ratio": oracle.mean([float(r > 5.0) for r in product]),
            "token_mask_masked_ratio": oracle.mean([float(r < 0.5 or r > 2.0) for r in ratios]),
            "outlier_seq_over_high_ratio": sum(high) / len(rows),
            "outlier_seq_under_low_ratio": sum(low) / len(rows),
            "outlier_seq_masked_ratio": sum(map(max, high, low)) / len(rows),
            **bounds_of("geo_sequence_mask", geometric, 0.99, 1.01),
            **bounds_of("product_sequence_mask", product, 0.5, 2.0),
        }
        with np.errstate(all="ignore"):
            ours = skyrl(unmasked_tokens(pair))
        oracle.agrees(ours, {f"policy/{name}": value for name, value in expected.items()})
