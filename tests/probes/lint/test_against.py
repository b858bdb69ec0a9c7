"""Two hosts side by side: what can change numerics first, and what one of them does not tell."""

from __future__ import annotations

import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.against import compare_hosts
from driftscope_probes.lint.host import Host, host_of
from driftscope_probes.lint.readers.registry import document


def hosts(**texts: str) -> Host:
    return host_of([document(name.replace("_", "."), text) for name, text in texts.items()])


def test_what_can_change_numerics_comes_first_and_the_rest_is_kept() -> None:
    here = hosts(pip_txt="rich==14.0\ntokenizers==0.21\ntorch==2.9.0\nnumpy==2.3.5\nnew==1")
    there = hosts(pip_txt="rich==15.0\ntokenizers==0.22\ntorch==2.10.0\nnumpy==2.3.5")
    found = compare_hosts(here, there)
    told = [(one.name, one.here, one.there, one.changes) for one in found.differences]
    assert told == [
        ("torch", "2.9.0", "2.10.0", "yes"),
        ("tokenizers", "0.21", "0.22", "perhaps"),
        ("rich", "14.0", "15.0", "no"),
        ("new", "1", None, "no"),
    ]
    assert found.same == 1 and found.untold == ()
    assert found.of("yes")[0].where_there == "pip.txt: torch"


def test_a_kind_that_one_side_does_not_tell_of_is_no_difference() -> None:
    here = hosts(pip_txt="torch==2.9.0", run_env="NCCL_ALGO=Ring\nVLLM_USE_V1=1")
    found = compare_hosts(here, hosts(pip_txt="torch==2.9.0"))
    assert found.differences == () and found.untold == ("environment variables",)


def test_nothing_in_common_is_not_equal() -> None:
    packages, variables = hosts(pip_txt="torch==2.9.0"), hosts(run_env="NCCL_ALGO=Ring")
    with pytest.raises(RequestError, match="versions of packages on one, environment variables on"):
        compare_hosts(packages, variables)


def test_a_switch_is_no_number() -> None:
    found = compare_hosts(hosts(a_json='{"x": 1, "y": 1}'), hosts(b_json='{"x": true, "y": 1.0}'))
    assert [one.name for one in found.differences] == ["x"]


def test_the_same_concept_is_compared_whatever_the_files_call_it() -> None:
    here = hosts(a_sh="vllm serve m --dtype bfloat16 --no-enable-prefix-caching")
    there = hosts(b_yaml="model: m\ndtype: float16\nenable-prefix-caching: true\n")
    found = compare_hosts(here, there)
    told = {one.name: (one.here, one.there) for one in found.of("yes")}
    assert told["engine.dtype"] == ("bf16", "fp16")
    assert found.of("yes")[0].reason.startswith("dtype that the engine computes in")
    assert told["engine.prefix_caching"] == (False, True)
