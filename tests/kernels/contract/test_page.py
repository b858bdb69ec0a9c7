from __future__ import annotations

from pathlib import Path

from driftscope_kernels.contract.contract import CONTRACTS
from driftscope_kernels.contract.page import page
from driftscope_kernels.registry import implementations

PAGE = Path(__file__).parents[3] / "docs" / "kernel-contract.md"
BACKWARD = ("_backward", "_weight_grad", "_bias_grad")


def test_the_page_is_what_the_contracts_say() -> None:
    assert PAGE.read_text() == page(), (
        "docs/kernel-contract.md is out of date: run "
        "`python -m driftscope_kernels.contract.page > docs/kernel-contract.md`"
    )


def test_every_forward_op_has_a_contract_and_every_contract_an_op() -> None:
    forward = {one.op for one in implementations() if not one.op.endswith(BACKWARD)}
    assert forward == set(CONTRACTS)
