import pytest

from driftscope_probes.dtypes import parse_mode
from driftscope_probes.progress import Progress
from driftscope_probes.trainer.grid import FORWARD_COST, Workload


def test_the_fraction_follows_the_cost_of_the_mode() -> None:
    seen: list[Progress] = []
    workload = Workload(seen.append)
    bf16, fp16 = parse_mode("bf16"), parse_mode("autocast-fp16")
    workload.plan(bf16, 100, backward=False)
    workload.plan(fp16, 100, backward=False)
    workload.starts("loading")
    workload.done("scoring in bf16", bf16, 100, backward=False)
    workload.done("scoring in autocast-fp16", fp16, 100, backward=False)
    share = FORWARD_COST["bf16"] / (FORWARD_COST["bf16"] + FORWARD_COST["fp16"])
    assert [progress.fraction for progress in seen] == pytest.approx([0.0, share, 1.0])
    assert [progress.stage for progress in seen][1:] == [
        "scoring in bf16",
        "scoring in autocast-fp16",
    ]


def test_a_backward_pass_costs_more() -> None:
    seen: list[Progress] = []
    workload = Workload(seen.append)
    mode = parse_mode("fp32")
    workload.plan(mode, 10, backward=False)
    workload.plan(mode, 10, backward=True)
    workload.done("scoring", mode, 10, backward=False)
    assert seen[0].fraction < 0.5
