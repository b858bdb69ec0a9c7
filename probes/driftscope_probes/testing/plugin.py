"""A pytest plugin, by choice: `pytest_plugins = ["driftscope_probes.testing.plugin"]`.

The fixture `logprobs_agree` is assert_logprobs_agree with the rules of `--driftscope-fail-on`, and
what it finds stands in the JUnit report and at the end of the run, of tests that pass as well: how
far they are from failing. No entry point loads it: an environment of a trainer stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.gates import parse_rule
from driftscope_probes.testing.agreement import (
    DEFAULT_RULE,
    Agreement,
    LogprobsDisagree,
    assert_logprobs_agree,
)

OPTION: Final = "--driftscope-fail-on"
PROPERTY: Final = "driftscope"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("driftscope").addoption(
        OPTION,
        action="append",
        metavar="RULE",
        help="rule of the fixture logprobs_agree, e.g. 'kl_k3>1e-3'; repeatable; "
        f"default: {DEFAULT_RULE}",
    )


def pytest_configure(config: pytest.Config) -> None:
    try:
        for text in config.getoption(OPTION) or ():
            parse_rule(text)
    except RequestError as error:
        raise pytest.UsageError(f"{OPTION}: {error.message} {error.remedy}") from None


@pytest.fixture
def logprobs_agree(request: pytest.FixtureRequest) -> Callable[..., Agreement]:
    """assert_logprobs_agree, and a line about it at the end of the run."""
    rules = request.config.getoption(OPTION) or DEFAULT_RULE
    judge = partial(assert_logprobs_agree, fail_on=rules)

    def told(*sides: object, **given: object) -> Agreement:
        __tracebackhide__ = True
        try:
            agreement = judge(*sides, **given)  # type: ignore[arg-type]
        except LogprobsDisagree as error:
            request.node.user_properties.append((PROPERTY, error.agreement.summary))
            raise
        request.node.user_properties.append((PROPERTY, agreement.summary))
        return agreement

    return told


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [
        f"{report.nodeid}: {value}"
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if lines:
        terminalreporter.section("driftscope")
        for line in lines:
            terminalreporter.line(line)
