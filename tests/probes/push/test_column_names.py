"""Which column is which: own names, a framework's, or as told; a slip is never left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from driftscope_probes.push import PushError, read_step
from driftscope_probes.push.column_names import (
    BESIDE,
    ELSEWHERE,
    ColumnNames,
    parse_columns,
    shown,
)
from driftscope_probes.push.rules import NAMES_ELSEWHERE, RULES, UnknownColumns

ACCEPTED = tuple(RULES)
LISTS = {"gen_logp": [[-0.5, -1.0], [-2.0]], "old_logp": [[-0.75, -1.5], [-2.5]]}
FLAT: dict[str, Any] = {
    name: np.concatenate(rows).astype(np.float32) for name, rows in LISTS.items()
}
TOLD = "rollout_logprobs=gen_logp,trainer_logprobs=old_logp"


def chosen(*names: str, told: str = "") -> dict[str, str]:
    given = parse_columns(told) if told else {}
    return ColumnNames(given).chosen(names, ACCEPTED)


def test_every_name_that_an_error_suggests_is_read() -> None:
    assert set(NAMES_ELSEWHERE) <= {name for names in ELSEWHERE.values() for name in names}
    assert not BESIDE & set(RULES)


@pytest.mark.parametrize(
    ("rollout", "trainer", "mask"),
    [
        ("rollout_log_probs", "old_log_probs", "response_mask"),  # verl
        ("rollout_log_probs", "log_probs", "loss_masks"),  # slime, miles
        ("sampling_per_token_logps", "old_per_token_logps", "completion_mask"),  # TRL
        ("generation_logprobs", "prev_logprobs", "token_loss_mask"),  # NeMo-RL
        ("inference_logprobs", "trainer_logprobs", "loss_mask"),  # prime-rl
        ("rollout_log_probs", "action_log_probs", "action_mask"),  # OpenRLHF
        ("rollout_logprobs", "action_log_probs", "loss_mask"),  # SkyRL
    ],
)
def test_names_of_frameworks(rollout: str, trainer: str, mask: str) -> None:
    found = chosen(rollout, trainer, mask, "rewards", "values_of_the_critic")
    assert found == {"rollout_logprobs": rollout, "trainer_logprobs": trainer, "mask": mask}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("rollout_logprobs", "trainer_logprobs", "masks"), "'masks'"),
        (("rollout_logprobs", "trainer_logprobs", "loss"), "'loss'"),
        (("rollout_log_probs", "old_log_probs", "advantage"), "'advantage'"),
        (("rollout_logprobs", "trainer_logprobs", "old_log_probs"), "'old_log_probs'"),
        (("rollout_log_probs", "old_log_probs", "log_probs"), "'old_log_probs'"),
    ],
)
def test_what_may_be_a_slip_is_refused(names: tuple[str, ...], told: str) -> None:
    with pytest.raises(UnknownColumns, match=told) as error:
        chosen(*names)
    assert error.value.remedy


def test_as_told() -> None:
    names = ("gen_logp", "old_logp", "mask", "losses", "old_log_probs")
    expected = {"rollout_logprobs": "gen_logp", "trainer_logprobs": "old_logp", "mask": "mask"}
    assert chosen(*names, told=TOLD) == expected
    with pytest.raises(UnknownColumns, match="gen_logp.*not there; there are a, b"):
        chosen("a", "b", told=TOLD)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rollout_logprobs", "not OURS=THEIRS"),
        ("rollout_logprobs=", "not OURS=THEIRS"),
        ("mask=a,mask=b", "each name once"),
        ("rollout=a", "maps 'rollout', which is none of ours"),
    ],
)
def test_a_mapping_that_is_none(text: str, told: str) -> None:
    with pytest.raises(PushError, match=told):
        parse_columns(text)


def test_a_long_list_is_cut() -> None:
    assert shown("abc") == "a, b, c"
    assert shown(str(i) for i in range(30)).endswith("23 and 6 more")


WRITTEN: dict[str, Callable[[Path], Any]] = {
    "a.safetensors": lambda path: save_file(
        {**FLAT, "cu_seqlens": np.array([0, 2, 3]), "other": np.zeros((2, 2), np.int16)}, path
    ),
    "b.npz": lambda path: np.savez(
        path, **FLAT, cu_seqlens=[0, 2, 3], texts=["a", "b"], other=np.array([{}], dtype=object)
    ),
    "c.json": lambda path: path.write_text(json.dumps({**LISTS, "loss": 1.5})),
    "d.jsonl": lambda path: path.write_text(
        "\n".join(
            json.dumps({**dict(zip(LISTS, rows, strict=True)), "loss": 1})
            for rows in zip(*LISTS.values(), strict=True)
        )
    ),
    "e.parquet": lambda path: pq.write_table(pa.table({**LISTS, "texts": ["a", "b"]}), path),
    "f.csv": lambda path: path.write_text(
        "i,gen_logp,old_logp\n0,-0.5,-0.75\n0,-1,-1.5\n1,-2,-2.5\n"
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_columns_in_every_format(tmp_path: Path, name: str) -> None:
    WRITTEN[name](tmp_path / name)
    with pytest.raises(PushError):
        read_step(tmp_path / name)
    told = TOLD + (",sequence=i" if name.endswith("csv") else "")
    step = read_step(tmp_path / name, None, ColumnNames(parse_columns(told)))
    assert step.rollout.tolist() == [-0.5, -1.0, -2.0]
    assert step.trainer.tolist() == [-0.75, -1.5, -2.5]
    assert step.cu_seqlens.tolist() == [0, 2, 3]
