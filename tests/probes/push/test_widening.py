"""Every 16-bit pattern there is, against torch."""

import numpy as np
import torch

from driftscope_probes.push.conversion import widened

PATTERNS = np.arange(2**16, dtype=np.uint16)


def test_every_bfloat16_keeps_its_bits() -> None:
    expected = torch.from_numpy(PATTERNS.view(np.int16)).view(torch.bfloat16).float().numpy()
    widened_bits = widened(PATTERNS, "BF16").view(np.uint32)
    np.testing.assert_array_equal(widened_bits, expected.view(np.uint32))


def test_every_float16_keeps_its_value() -> None:
    expected = torch.from_numpy(PATTERNS.view(np.float16)).float().numpy()
    result = widened(PATTERNS.view(np.float16), "F16")
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


def test_float32_is_not_copied() -> None:
    values = np.array([-0.0, np.nan], np.float32)
    assert widened(values, "F32") is values
