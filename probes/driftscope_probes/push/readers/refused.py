"""Files that are not a step, or not in a form that is read: what they hold, and what to do.

In: the opening of a file, or the names in a record. Out: PushError, or None: not one of these.
Nothing is unpickled: a pickle runs whatever code its writer put into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from driftscope_probes.push.readers.base import Opening
from driftscope_probes.push.rules import PushError

PICKLE = b"\x80"
#: Protocol 2 is the oldest that begins with its number, 5 the newest.
PICKLE_PROTOCOLS = (2, 3, 4, 5)
#: What stands first in a pickle of torch.load's older format, and of a plain one, is enough.
MAX_NAMES_BYTES = 2**20
NPY, ARROW_FILE = b"\x93NUMPY", b"ARROW1"
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}

#: slime and miles, --save-debug-train-data: one list entry per response.
SLIME_LINES = """import torch; from safetensors.torch import save_file
d = torch.load("{file}", weights_only=True)["rollout_data"]; cat = lambda n: torch.cat([torch.as_tensor(x) for x in d[n]])
save_file({{"rollout_logprobs": cat("rollout_log_probs"), "trainer_logprobs": cat("log_probs"), "mask": cat("loss_masks"), "cu_seqlens": torch.tensor([0, *d["response_lengths"]]).cumsum(0)}}, "{stem}.safetensors")"""  # noqa: E501
TORCH_LINES = """import torch; from safetensors.torch import save_file
d = torch.load("{file}", weights_only=True)  # two lists with one tensor per response: put their names below
save_file({{"rollout_logprobs": torch.cat(d["…"]), "trainer_logprobs": torch.cat(d["…"]), "cu_seqlens": torch.tensor([0, *map(len, d["…"])]).cumsum(0)}}, "{stem}.safetensors")"""  # noqa: E501


def refused(opening: Opening) -> PushError | None:
    """By content, also where a format was named: its reader would only stumble over it."""
    if opening.safetensors:
        return None
    head = opening.head
    if any(name.endswith("data.pkl") for name in opening.members):
        return _pickle(opening, "a torch pickle (torch.save)")
    if head[:1] == PICKLE and head[1:2] and head[1] in PICKLE_PROTOCOLS:
        return _pickle(opening, "a Python pickle")
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


def _pickle(opening: Opening, kind: str) -> PushError:
    with opening.path.open("rb") as stream:
        slime = b"rollout_log_probs" in stream.read(MAX_NAMES_BYTES)
    lines = (SLIME_LINES if slime else TORCH_LINES).format(
        file=opening.path.name, stem=opening.path.stem
    )
    whose = ", as slime and miles write it (--save-debug-train-data)" if slime else ""
    return PushError(
        f"it is {kind}{whose}; pickles are not read, because reading one runs the code in it.",
        remedy=f"convert it with these three lines of Python, and give {opening.path.stem}"
        f".safetensors:\n{lines}",
    )


TRAINER_TOO = (
    "score the same token ids with the trainer, and write both sides as docs/push-format.md shows; "
    "`driftscope probe paired` does both for a model on disk."
)


def not_a_step(names: Sequence[str], first: Mapping[str, Any]) -> PushError | None:
    """By the names of a record, a JSON object or a table. first: values of it, {} if unknown."""
    held = set(names)
    if isinstance(first.get("choices"), list):
        return _one_side("an answer of an OpenAI-compatible server", _openai_tokens(first))
    if isinstance(first.get("meta_info"), Mapping):
        triples = first["meta_info"].get("output_token_logprobs")
        return _one_side("an answer of SGLang", len(triples) if isinstance(triples, list) else 0)
    if {"input", "output", "score"} <= held:
        return _text_only(
            "verl's rollout_data_dir",
            "actor_rollout_ref.rollout.calculate_log_probs=True in verl, and push the batch with "
            "driftscope_client.adapters.verl.push_batch (docs/client.md, verl).",
        )
    if {"prompt", "completion"} <= held and not any("logp" in name for name in held):
        return _text_only(
            "TRL's log_completions",
            "the push in TRL: mix DriftscopeMixin into the trainer (docs/client.md, TRL); it "
            "records the log-probabilities of both sides.",
        )
    return None


def _openai_tokens(answer: Mapping[str, Any]) -> int:
    tokens = 0
    for choice in answer["choices"]:
        logprobs = choice.get("logprobs") if isinstance(choice, Mapping) else None
        content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
        tokens += len(content) if isinstance(content, list) else 0
    return tokens


def _one_side(what: str, tokens: int) -> PushError:
    held = f"log-probabilities of {tokens:,} tokens" if tokens else "no log-probabilities"
    return PushError(
        f"it is {what}: one side only, the rollout's, with {held}; there is no trainer side to "
        "compare with.",
        remedy=TRAINER_TOO if tokens else f"ask for logprobs; then {TRAINER_TOO}",
    )


def _text_only(what: str, turn_on: str) -> PushError:
    return PushError(
        f"it is a dump of {what}: it holds text and rewards, no log-probabilities.",
        remedy=f"turn on {turn_on}",
    )
