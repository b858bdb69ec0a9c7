"""Every format that is read, and which of them a file is in. A new one is one row here.

In: a path and, where the user named one, a format. Out: its reader, or PushError with what was
found and what is accepted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.readers import nemo_rl, prime_rl
from driftscope_probes.push.readers.answers import is_openai, is_sglang, read_answers
from driftscope_probes.push.readers.base import (
    Opening,
    StepFormat,
    StepReader,
)
from driftscope_probes.push.readers.json_file import read_json_step
from driftscope_probes.push.readers.npz import SUFFIX, read_npy, read_npz
from driftscope_probes.push.readers.records import read_json_lines
from driftscope_probes.push.readers.refused import NPY, not_a_step, refused
from driftscope_probes.push.rules import PushError, UnknownColumns
from driftscope_probes.push.safetensors_step import read_safetensors_step

#: An encapsulated Arrow message begins with it.
CONTINUATION: Final = b"\xff\xff\xff\xff"
PARQUET: Final = b"PAR1"
MAX_SHOWN_NAMES: Final = 12


def _read_arrow(path: Path, columns: ColumnNames) -> PushedStep:
    # Imported here: the library takes 50 ms to load, which other formats need not wait for.
    from driftscope_probes.push.arrow_step import read_arrow_step

    return read_arrow_step(path, columns)


def _read_parquet(path: Path, columns: ColumnNames) -> PushedStep:
    from driftscope_probes.push.readers.parquet import read_parquet_step

    return read_parquet_step(path, columns)


def _read_csv(path: Path, columns: ColumnNames) -> PushedStep:
    from driftscope_probes.push.readers.csv_table import read_csv

    return read_csv(path, columns)


def _is_prime_rl(file: Opening, columns: ColumnNames) -> bool:
    first = file.first_line
    return not columns.given and first is not None and prime_rl.recognised(first)


def _is_nemo_rl(file: Opening, columns: ColumnNames) -> bool:
    first = file.first_line
    return not columns.given and first is not None and nemo_rl.recognised(first)


def _is_records(file: Opening, columns: ColumnNames) -> bool:
    return file.first_line is not None and columns.knows(file.first_line)


def _is_npz(file: Opening, _: ColumnNames) -> bool:
    return any(name.endswith(SUFFIX) for name in file.members)


def _is_csv(file: Opening, _: ColumnNames) -> bool:
    return file.first_row is not None


READERS: Final[tuple[StepReader, ...]] = (
    StepReader(
        "safetensors",
        (".safetensors",),
        lambda file, _: file.safetensors,
        read_safetensors_step,
        "safetensors",
    ),
    StepReader(
        "arrow",
        (".arrows",),
        lambda file, _: file.head.startswith(CONTINUATION),
        _read_arrow,
        "an Arrow stream",
    ),
    StepReader(
        "parquet",
        (".parquet",),
        lambda file, _: file.head.startswith(PARQUET),
        _read_parquet,
        "Parquet with a list column per tensor",
    ),
    StepReader("npz", (".npz",), _is_npz, read_npz, "a numpy archive (np.savez)"),
    StepReader(
        "openai",
        (),
        lambda file, _: is_openai(file.first_answer),
        read_answers,
        "an OpenAI-compatible server's answer, one side",
    ),
    StepReader(
        "sglang",
        (),
        lambda file, _: is_sglang(file.first_answer),
        read_answers,
        "SGLang's, one side",
    ),
    StepReader(
        "prime-rl",
        (),
        _is_prime_rl,
        lambda path, _: prime_rl.read_prime_rl_export(path),
        "prime-rl's token_exports/rank_R.jsonl",
    ),
    StepReader(
        "nemo-rl",
        (),
        _is_nemo_rl,
        lambda path, _: nemo_rl.read_nemo_rl(path),
        "NeMo-RL's train_data_stepN.jsonl",
    ),
    StepReader(
        "jsonl", (), _is_records, read_json_lines, "JSON lines with rollout_logprobs per sequence"
    ),
    StepReader(
        "json",
        (".json",),
        lambda file, _: file.json and file.first_line is None,
        read_json_step,
        "JSON",
    ),
    StepReader("csv", (".csv", ".tsv"), _is_csv, _read_csv, "CSV with one token per row"),
)
#: Numbers without a name, which are enough for one side.
ONE_ARRAY: Final = StepReader("npz", (), lambda *_: False, read_npy, "one numpy array (.npy)")
BY_FORMAT: Final = {reader.step_format: reader for reader in READERS}
ACCEPTED: Final = ", ".join(f"{one.holds} ({one.step_format})" for one in READERS)
SEE: Final = (
    "say which column is which, --columns rollout_logprobs=NAME,trainer_logprobs=NAME; "
    "docs/files.md shows each format, --format names one."
)


def reader_of(
    path: Path, step_format: StepFormat | None = None, columns: ColumnNames = AS_THEY_ARE
) -> StepReader:
    """Raises PushError, and OSError where the file cannot be read."""
    # Also rejects pipes and devices, which have no size and may never end.
    if not path.is_file():
        raise PushError("there is no such file.", remedy="give the file of one step.")
    file = Opening.of(path)
    if columns.side is not None and file.head.startswith(NPY):
        return ONE_ARRAY
    if (reason := refused(file)) is not None:
        raise reason
    if step_format is not None:
        return BY_FORMAT[step_format]
    # By the content; where it tells nothing, the reader that the name promises says what is wrong.
    found = next((one for one in READERS if one.recognises(file, columns)), None)
    named = next((one for one in READERS if path.suffix in one.suffixes), None)
    if found is not None or (named is not None and file.first_line is None):
        return cast(StepReader, found or named)
    raise _unknown(file)


def _unknown(file: Opening) -> PushError:
    if file.first_line is not None:
        if (other := not_a_step(file.first_line)) is not None:
            return other
        names = ", ".join(list(file.first_line)[:MAX_SHOWN_NAMES])
        return UnknownColumns(
            f"each of its lines is a JSON object with {names[:400] or 'no name'}, which is none "
            f"of the formats: {ACCEPTED}.",
            remedy=f"give both sides' log-probabilities; {SEE}",
        )
    if not file.head:
        return PushError("it is empty.", remedy="write both sides' log-probabilities into it.")
    suffix = (
        f"its suffix {file.path.suffix[:80]!r} names no format, and " if file.path.suffix else ""
    )
    return PushError(
        f"{suffix}it begins with {file.head[:16]!r}, which is none of the formats: {ACCEPTED}.",
        remedy=f"convert it; {SEE}",
    )
