"""Push one step from plain Python to a running service (DRIFTSCOPE_URL), and read the answer.

`push_now` waits and raises, which suits a script; a trainer calls `push`, which does neither.
"""

from driftscope_client import DriftscopeClient

# One list per response: what the engine and the trainer said about the same sampled tokens.
ROLLOUT = [[-0.51, -1.25, -0.03], [-2.02, -0.4]]
TRAINER = [[-0.50, -1.27, -0.03], [-2.00, -0.41]]


def main() -> None:
    client = DriftscopeClient(run="example-step")
    answer = client.push_now(
        0,
        rollout_logprobs=ROLLOUT,
        trainer_logprobs=TRAINER,
        metadata={"rollout_dtype": "bf16", "trainer_dtype": "bf16"},
    )
    client.finish()
    print("mean |Δ|", answer["comparison"]["abs_diff_mean"], "k3", answer["comparison"]["kl_k3"])
    print("beyond published limits:", [limit["metric"] for limit in answer["crossed_limits"]])


if __name__ == "__main__":
    main()
