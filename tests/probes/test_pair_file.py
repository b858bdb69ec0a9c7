from pathlib import Path

import numpy as np
from safetensors import safe_open

from driftscope_probes.trace import Trace, TraceMeta
from driftscope_probes.trace_file import write_pair


def test_a_pair_is_written_in_the_push_format(tmp_path: Path) -> None:
    def side(meta: TraceMeta, logprobs: list[float]) -> Trace:
        return Trace(
            token_ids=np.array([3, 4], np.int32),
            logprobs=np.array(logprobs, np.float32),
            cu_seqlens=np.array([0, 2], np.int64),
            mask=np.array([True, False]),
            meta=meta,
        )

    settings = {"temperature": 0.7, "top_p": 1.0, "top_k": 0, "logprobs_mode": "raw_logprobs"}
    rollout = side(TraceMeta("rollout", "m", "bf16", "vllm", "0.32", settings), [-1.5, -2.0])
    trainer = side(TraceMeta("trainer", "m", "fp32", "trainer", "5.19"), [-1.25, -2.5])
    write_pair(rollout, trainer, tmp_path / "pair.safetensors")
    with safe_open(tmp_path / "pair.safetensors", framework="numpy") as file:
        metadata = file.metadata()
        assert file.get_tensor("rollout_logprobs").tolist() == [-1.5, -2.0]
        assert file.get_tensor("trainer_logprobs").tolist() == [-1.25, -2.5]
        assert file.get_tensor("cu_seqlens").tolist() == [0, 2]
        assert file.get_tensor("mask").dtype == np.uint8
    assert metadata["schema_version"] == "1"
    assert (metadata["rollout_dtype"], metadata["trainer_dtype"]) == ("bf16", "fp32")
    assert (metadata["temperature"], metadata["logprobs_mode"]) == ("0.7", "raw_logprobs")
