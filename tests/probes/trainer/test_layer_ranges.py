import torch
from torch import Tensor, nn

from driftscope_probes.trainer.half_precision_range import LayerRanges

SCALE = 1024.0


class Experts(nn.Module):
    """Holds parameters of its own beside a child, as a mixture's experts do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 2), 3.0))
        self.activation = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(x @ self.weight)
        return result


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.experts = Experts()
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(2) * 10.0)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.experts(torch.relu(self.first(x)) * 2.0)
        return result


def measure(model: nn.Module, x: Tensor) -> LayerRanges:
    with LayerRanges(model, SCALE) as ranges:
        model(x).sum().backward()
        ranges.add_parameter_gradients()
    return ranges


def test_inputs_outputs_and_gradients_of_every_layer() -> None:
    ranges = measure(Model(), torch.tensor([[1.0, -7.0]]))
    layers = {layer.layer: layer for layer in ranges.all()}
    assert list(layers) == ["first", "experts.activation", "experts"]
    assert layers["first"].activation.largest == 70.0
    # 20 is the product between two layers: the output of none, the input of the second.
    assert layers["experts"].activation.largest == 60.0
    assert layers["experts"].activation.values == 1 + 2
    # d sum / d out = 1; d / d weight[i, j] = input i: 20 and 0.
    assert layers["experts"].gradient.largest == 20.0
    assert layers["experts"].scaled_gradient.largest == 20.0 * SCALE
    # Through the second layer (3 + 3), doubled: 12 at the first layer's output.
    assert layers["first"].gradient.values == 1 + 2
    assert layers["first"].gradient.largest == 84.0  # weight gradient: 12 * 7


def test_tied_parameters_count_once_for_the_layer_that_runs_first() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    layers = {layer.layer: layer for layer in measure(model, torch.ones(1, 2)).all()}
    assert layers["0"].gradient.values == 2 + 4
    assert layers["1"].gradient.values == 2


def test_hooks_are_gone_afterwards() -> None:
    model = Model()
    ranges = measure(model, torch.ones(1, 2))
    before = ranges.of("first").activation.values
    model(torch.ones(1, 2))
    assert ranges.of("first").activation.values == before
