"""What is replaced for a while is afterwards as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
from torch import nn

from driftscope_probes.explain.sides.overrides import Overrides


def test_a_method_of_an_instance_and_a_function_of_a_module_come_back() -> None:
    layer: Any = nn.Identity()
    before, sine = dict(vars(layer)), math.sin
    with pytest.raises(RuntimeError, match="planted"), Overrides() as overrides:
        overrides.wrap(layer, "forward", lambda own: lambda x: own(x) + 1)
        overrides.wrap(layer, "forward", lambda own: lambda x: own(x) * 10)
        overrides.wrap(math, "sin", lambda own: lambda x: -own(x))
        assert layer.forward(1) == 20
        assert math.sin(0.5) < 0
        raise RuntimeError("planted")
    assert vars(layer) == before
    assert math.sin is sine
