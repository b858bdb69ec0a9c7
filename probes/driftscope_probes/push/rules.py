"""What the push format allows: sizes, tensors, metadata; PushError says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np

from driftscope_probes.errors import ProbeError

#: 512 sequences × 8,192 tokens, a large step of one trainer, eight times over.
MAX_TOKENS = 2**25
#: Every response of a large step is far longer than 32 tokens.
MAX_SEQUENCES = 2**20
#: The whole file is read into memory; 4M tokens with experts of 48 layers × 8 need 1.7 GB.
MAX_FILE_BYTES = 2 * 2**30
#: Twenty tensors and their metadata need about 3 KiB. In Arrow: each message's header.
MAX_HEADER_BYTES = 256 * 2**10
#: Frameworks note a handful of settings; the header limit would allow ten thousand.
MAX_METADATA_ENTRIES = 64
#: A model name or a version, not a document.
MAX_METADATA_CHARACTERS = 1024
#: The one entry that is a list: four hundred names of environments with 40 characters each.
MAX_ENVIRONMENTS_CHARACTERS = 16 * 2**10
#: JSON takes 50 bytes per token in the file and ten times that while it is parsed: this is about
#: 300,000 tokens. Larger steps belong in safetensors.
MAX_JSON_BYTES = 16 * 2**20
#: prime-rl writes about 350 bytes per token, one sequence per line: up to 190,000 tokens.
MAX_EXPORT_LINE_BYTES = 64 * 2**20
#: Read line by line, so that the tokens limit memory; this only stops reading a wrong file.
MAX_EXPORT_BYTES = 16 * 2**30
#: Log-probabilities hardly shrink (1.3 times); a padded step that is nine tenths padding shrinks
#: tenfold, one with a single long response in 128 perhaps a hundredfold.
MAX_ZSTD_RATIO = 200.0
#: Writers make batches of thousands of rows: this is one batch per 256 sequences at worst.
MAX_ARROW_BATCHES = 4096
#: The shards of a step are joined in memory, side by side with the whole: twice a file's limit.
MAX_JOINED_BYTES = 4 * 2**30


class PushError(ProbeError):
    """Pushed data is malformed, inconsistent or larger than a limit."""


class UnknownColumns(PushError):
    """Its columns are not under names that are known: the user can say which is which."""


SCHEMA_VERSION = "1"


@dataclass(frozen=True, slots=True)
class TensorRule:
    dtypes: tuple[str, ...]  # safetensors names
    #: limit: sequences + 1 values; prompt: one for each token of the prompts, one after another
    per: Literal["token", "sequence", "limit", "prompt"]
    inner_dimensions: int = 0  # after the one (padded: two) that count tokens
    converted: tuple[str, ...] = ()  # read as well, checked, into one of `dtypes`

    @property
    def accepted(self) -> tuple[str, ...]:
        return self.dtypes + self.converted


#: What torch and numpy make of integers and floats by default; the client converts the same.
_INTEGERS = ("I64", "I16", "U16", "U8", "I8")
_LOGPROBS = TensorRule(("F32", "F16", "BF16"), "token", converted=("F64",))
_FLOATS = TensorRule(("F32",), "token", converted=("F64", "F16", "BF16"))
_IDS = TensorRule(("I32",), "token", converted=_INTEGERS)
_PER_SEQUENCE = TensorRule(("I32",), "sequence", converted=_INTEGERS)
_PER_PROMPT_TOKEN = TensorRule(("I32",), "prompt", converted=_INTEGERS)
_FLAGS = TensorRule(("U8", "BOOL"), "token", converted=("I64", "I32", "I8", "F32", "BF16"))
#: The signed ones hold −1 as well, where no route was captured.
_EXPERTS = TensorRule(("U8", "I16", "U16", "I32"), "token", 2, converted=("I64",))

RULES: Mapping[str, TensorRule] = {
    "rollout_logprobs": _LOGPROBS,
    "trainer_logprobs": _LOGPROBS,
    "cu_seqlens": TensorRule(("I32", "I64"), "limit"),
    "mask": _FLAGS,
    "token_ids": _IDS,
    "rollout_token_ids": _IDS,
    "advantages": _FLOATS,
    "entropy": _FLOATS,
    "position_ids": _IDS,
    "turn_ids": _IDS,
    "behavior_version": _PER_SEQUENCE,
    "token_behavior_version": _IDS,
    "rank": _PER_SEQUENCE,
    "replica": _PER_SEQUENCE,
    "cached_tokens": _PER_SEQUENCE,
    "prompt_lengths": _PER_SEQUENCE,
    "prompt_token_ids": _PER_PROMPT_TOKEN,
    "environment": _PER_SEQUENCE,
    "routed_experts": _EXPERTS,
    "trainer_routed_experts": _EXPERTS,
}
REQUIRED = ("rollout_logprobs", "trainer_logprobs")

#: How a stored dtype is read. numpy has no bfloat16: its bits are read. A stored bool may be any
#: byte: it is read as a number and checked, because numpy takes only 0 and 1 for booleans.
STORED_AS: Mapping[str, np.dtype[np.generic]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
}


#: What else the columns are called by those who write them.
NAMES_ELSEWHERE: Mapping[str, str] = {
    "rollout_log_probs": "rollout_logprobs",
    "generation_logprobs": "rollout_logprobs",
    "inference_logprobs": "rollout_logprobs",
    "sampling_per_token_logps": "rollout_logprobs",
    "old_log_probs": "trainer_logprobs",
    "old_per_token_logps": "trainer_logprobs",
    "prev_logprobs": "trainer_logprobs",
    "log_probs": "trainer_logprobs",
    "response_mask": "mask",
    "loss_mask": "mask",
    "completion_mask": "mask",
    "responses": "token_ids",
    "completion_ids": "token_ids",
}


def rename_remedy(name: str) -> str:
    """What to do about a column that the format does not know."""
    if name in NAMES_ELSEWHERE:
        return f"call it {NAMES_ELSEWHERE[name]}, if that is what it holds."
    close = get_close_matches(name, RULES)
    if close:
        return f"call it {close[0]}, or drop it; docs/push-format.md says what each one holds."
    return "drop it, or put what describes the step into the metadata."


#: The metadata entry that names what `environment` counts through.
ENVIRONMENTS = "environments"


def environment_names(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """In the order in which `environment` counts them; None where the metadata do not say."""
    listed = metadata.get(ENVIRONMENTS)
    if listed is None:
        return None
    return tuple(name.strip() for name in listed.split(",")) if listed.strip() else ()


def checked_metadata(given: object) -> dict[str, str]:
    """Raises PushError. Without a schema_version it is version 1; later ones have to say so."""
    if not isinstance(given, dict):
        raise PushError(
            f"the metadata is a JSON {type(given).__name__}, accepted is an object of strings.",
            remedy='write {"model": "…", "framework": "…"}.',
        )
    if len(given) > MAX_METADATA_ENTRIES:
        raise PushError(
            f"the metadata has {len(given)} entries, accepted are {MAX_METADATA_ENTRIES}.",
            remedy="keep what describes the step; docs/push-format.md lists the names.",
        )
    for name, value in given.items():
        if not isinstance(value, str):
            raise PushError(
                f"metadata {name[:80]!r} is a {type(value).__name__}, accepted are strings.",
                remedy=f"write str({name[:80]}).",
            )
        most = MAX_ENVIRONMENTS_CHARACTERS if name == ENVIRONMENTS else MAX_METADATA_CHARACTERS
        if len(name) > MAX_METADATA_CHARACTERS or len(value) > most:
            raise PushError(
                f"metadata {name[:80]!r} is longer than {most} characters.",
                remedy="shorten it: names and versions are enough.",
            )
        if not (name + value).isprintable():
            raise PushError(
                f"metadata {name[:80]!r} holds control characters: {value[:80]!r}.",
                remedy="write plain text in one line.",
            )
    metadata = {"schema_version": SCHEMA_VERSION, **given}
    if metadata["schema_version"] != SCHEMA_VERSION:
        raise PushError(
            f"schema_version is {metadata['schema_version']!r}, this program reads "
            f"{SCHEMA_VERSION!r}.",
            remedy="write version 1, or update driftscope.",
        )
    return metadata
