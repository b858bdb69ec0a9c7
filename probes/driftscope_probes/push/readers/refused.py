"""Files that are not a step, or not in a form that is read: what they hold, and what to do.

In: the opening of a file, or the names in a record. Out: PushError, or None: not one of these.
Sources: verl, verl/trainer/ppo/ray_trainer.py (_write_generations: input, output, gts, score,
step); TRL 1.16, trl/trainer/grpo_trainer.py (log_completions: step, prompt, completion, advantage).
"""

from __future__ import annotations

from collections.abc import Iterable

from driftscope_probes.push.readers.base import Opening
from driftscope_probes.push.readers.pickles import pickled
from driftscope_probes.push.rules import PushError

NPY, ARROW_FILE = b"\x93NUMPY", b"ARROW1"
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


def refused(opening: Opening) -> PushError | None:
    """By content, also where a format was named: its reader would only stumble over it."""
    if opening.safetensors:
        return None
    head = opening.head
    if (pickle := pickled(opening)) is not None:
        return pickle
    if head.startswith(NPY):
        return PushError(
            "it is one numpy array (.npy); a step needs rollout_logprobs, trainer_logprobs and "
            "cu_seqlens.",
            remedy="np.savez(file, rollout_logprobs=…, trainer_logprobs=…, cu_seqlens=…).",
        )
    if head.startswith(ARROW_FILE):
        return PushError(
            "it is an Arrow file; the Arrow stream format is read.",
            remedy="write it with pyarrow.ipc.new_stream, or as Parquet.",
        )
    for magic, name in COMPRESSED.items():
        if head.startswith(magic):
            return PushError(f"it is compressed with {name}.", remedy="unpack it first.")
    return None


def not_a_step(names: Iterable[str]) -> PushError | None:
    """By the names of a record, a JSON object or a table."""
    held = set(names)
    if any("logp" in name or "log_p" in name for name in held):
        return None
    if {"input", "output", "score"} <= held:
        return _text_only(
            "verl's rollout_data_dir",
            "actor_rollout_ref.rollout.calculate_log_probs=True in verl, and push the batch with "
            "driftscope_client.adapters.verl.push_batch (docs/client.md, verl).",
        )
    if {"prompt", "completion"} <= held:
        return _text_only(
            "TRL's log_completions",
            "the push in TRL: mix DriftscopeMixin into the trainer (docs/client.md, TRL); it "
            "records the log-probabilities of both sides.",
        )
    return None


def _text_only(what: str, turn_on: str) -> PushError:
    return PushError(
        f"it is a dump of {what}: it holds text and rewards, no log-probabilities.",
        remedy=f"turn on {turn_on}",
    )
