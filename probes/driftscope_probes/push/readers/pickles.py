"""Pickles (torch.save, pickle.dump): never read, but named, with three lines that convert them.

In: the opening of a file. Out: PushError. Loading a pickle runs whatever code its writer put into
it; here only its opcodes are walked for the strings among them. Sources of the shapes: slime,
slime/utils/train_dump_utils.py (save_debug_train_data: rollout_id, rank, rollout_data with a list
per response), and slime/ray/rollout.py (--save-debug-rollout-data: samples, the engine's side
alone); miles writes the same two under --dump-details DIR as train_data/ and rollout_data/
(miles/utils/arguments.py); verl, verl/protocol.py (DataProto.save_to_disk: the object itself).
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from typing import IO, Final

from driftscope_probes.push.column_names import COLUMN_OF, ELSEWHERE, shown
from driftscope_probes.push.readers.base import Opening
from driftscope_probes.push.rules import RULES, PushError

PICKLE: Final = b"\x80"
#: Protocol 2 is the oldest that begins with its number, 5 the newest.
PICKLE_PROTOCOLS: Final = (2, 3, 4, 5)
#: The names of a batch stand within it: those behind the values of a list of numbers do not count.
MAX_NAMES_BYTES: Final = 2**20
MAX_NAMES: Final = 4096
#: Longer strings are texts of samples.
MAX_NAME_CHARACTERS: Final = 64
#: What stands among the strings of every torch file.
OF_TORCH: Final = frozenset({"cpu", "storage", "little", ""})

HEADER: Final = """import torch; from safetensors.torch import save_file
d = torch.load("{file}", map_location="cpu", weights_only=True){at}; """
#: One list entry per response.
SLIME_LINES: Final = (
    HEADER
    + """cat = lambda n: torch.cat([torch.as_tensor(x) for x in d[n]])
save_file({{"rollout_logprobs": cat("rollout_log_probs"), "trainer_logprobs": cat("log_probs"), "mask": cat("loss_masks"), "cu_seqlens": torch.tensor([0, *map(len, d["log_probs"])]).cumsum(0)}}, "{stem}.safetensors")"""  # noqa: E501
)
#: Whole tensors, [sequences, longest] with a mask, or a list with one per response.
NAMED_LINES: Final = (
    HEADER
    + """rows = isinstance(d["{rollout}"], list); flat = lambda n: torch.cat([torch.as_tensor(x) for x in d[n]]) if rows else d[n].contiguous()
save_file({{{pairs}, **({{"cu_seqlens": torch.tensor([0, *map(len, d["{rollout}"])]).cumsum(0)}} if rows else {{}})}}, "{stem}.safetensors")"""  # noqa: E501
)
TORCH_LINES: Final = (
    HEADER
    + """a, b = d["…"], d["…"]  # two lists with a tensor per response: the rollout's, then the trainer's
save_file({{"rollout_logprobs": torch.cat(a), "trainer_logprobs": torch.cat(b), "cu_seqlens": torch.tensor([0, *map(len, a)]).cumsum(0)}}, "{stem}.safetensors")"""  # noqa: E501
)
NESTED: Final = ("rollout_data", "batch", "data")


def pickled(file: Opening) -> PushError | None:
    """None where it is no pickle."""
    inside = next((name for name in file.members if name.endswith("data.pkl")), None)
    if inside is not None:
        with zipfile.ZipFile(file.path) as archive, archive.open(inside) as stream:
            return _refused(file, "a torch pickle (torch.save)", names_in(stream))
    head = file.head
    if head[:1] == PICKLE and head[1:2] and head[1] in PICKLE_PROTOCOLS:
        with file.path.open("rb") as raw:
            return _refused(file, "a Python pickle", names_in(raw))
    return None


def names_in(stream: IO[bytes]) -> tuple[str, ...]:
    """Short strings in the order in which they first occur; nothing is built from the pickle."""
    raw = io.BytesIO(stream.read(MAX_NAMES_BYTES))
    found: dict[str, None] = {}
    try:
        for opcode, value, _ in pickletools.genops(raw):
            if isinstance(value, str) and "UNICODE" in opcode.name and len(found) < MAX_NAMES:
                if len(value) <= MAX_NAME_CHARACTERS and value.isprintable():
                    found.setdefault(value)
    except (ValueError, IndexError, EOFError, UnicodeDecodeError):
        pass  # cut off or damaged: what was found until there is enough for a message
    return tuple(found)


def _refused(file: Opening, kind: str, names: tuple[str, ...]) -> PushError:
    where = {"file": file.path.name, "stem": file.path.stem}
    why = "pickles are not read, because reading one runs the code in it."
    if "samples" in names and "rollout_log_probs" in names and "log_probs" not in names:
        return PushError(
            f"it is {kind}, as slime and miles write the engine's samples "
            "(--save-debug-rollout-data, rollout_data/ of --dump-details): one side only, the "
            f"rollout's; and {why}",
            remedy="give the file of --save-debug-train-data, or of train_data/ below "
            "--dump-details: it holds both sides.",
        )
    at = next((f'["{name}"]' for name in NESTED if name in names), "")
    if {"rollout_log_probs", "log_probs", "loss_masks"} <= set(names):
        lines, whose = SLIME_LINES.format(at=at, **where), ", as slime and miles write it "
        whose += "(--save-debug-train-data, train_data/ of --dump-details)"
    else:
        lines, whose = _lines(names, at, where), _held(names)
    return PushError(
        f"it is {kind}{whose}; {why}",
        remedy=f"convert it with these three lines of Python, and give {file.path.stem}"
        f".safetensors:\n{lines}",
    )


def _lines(names: tuple[str, ...], at: str, where: dict[str, str]) -> str:
    found = {}
    for ours, elsewhere in ELSEWHERE.items():
        known = [name for name in (ours, *elsewhere) if name in names]
        if known and RULES[ours].per == "token":
            found[ours] = known[0]
    if not set(COLUMN_OF.values()) <= found.keys():
        return TORCH_LINES.format(at=at, **where)
    pairs = ", ".join(f'"{ours}": flat("{theirs}")' for ours, theirs in found.items())
    return NAMED_LINES.format(at=at, pairs=pairs, rollout=found["rollout_logprobs"], **where)


def _held(names: tuple[str, ...]) -> str:
    keys = [name for name in names if name.isidentifier() and name not in OF_TORCH]
    return f" with the names {shown(keys)}" if keys else ""
