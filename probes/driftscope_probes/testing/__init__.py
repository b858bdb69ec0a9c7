"""For the tests of a trainer, an engine or a kernel: do both sides give the same probabilities?"""

from driftscope_probes.testing.agreement import (
    Agreement,
    LogprobsDisagree,
    assert_logprobs_agree,
)

__all__ = ["Agreement", "LogprobsDisagree", "assert_logprobs_agree"]
