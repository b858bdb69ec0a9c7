"""Files in the shapes that frameworks, numpy and pandas write: read as what they hold, or told what
they are and what to do. Inputs are made here; the right numbers come from plain numpy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from driftscope_probes.push.readers.pickles import SLIME_LINES
from driftscope_service.cli.main import main
from driftscope_service.runs.step_table import print_steps

LENGTHS = (29, 46, 30, 40, 45, 38, 39, 36)
SEQUENCES = len(LENGTHS)
LIMITS = np.cumsum([0, *LENGTHS])
LONGEST = max(LENGTHS)
SEED = 14
Array = NDArray[Any]


def _sides() -> tuple[Array, Array, Array]:
    random = np.random.default_rng(SEED)
    rollout = np.log(random.beta(4, 1, LIMITS[-1])).astype(np.float32)
    trainer = (rollout * random.normal(1, 0.02, rollout.size)).astype(np.float32)
    return rollout, trainer, random.integers(5, 60_000, rollout.size).astype(np.int32)


ROLLOUT, TRAINER, IDS = _sides()
MEAN = float(np.abs(TRAINER.astype(np.float64) - ROLLOUT).mean())
ADVANTAGES = np.random.default_rng(SEED).normal(size=SEQUENCES)


def rows(values: Array) -> list[list[Any]]:
    return [part.tolist() for part in np.split(values, LIMITS[1:-1])]


def padded(values: Array) -> Array:
    """[sequences, longest], the padding on the left."""
    found = np.zeros((SEQUENCES, LONGEST), values.dtype)
    for row, part in enumerate(np.split(values, LIMITS[1:-1])):
        found[row, LONGEST - part.size :] = part
    return found


ONES = padded(np.ones(ROLLOUT.size, np.int64))
SIDES = {"rollout_logprobs": ROLLOUT, "trainer_logprobs": TRAINER}
PACKED: dict[str, Any] = {**SIDES, "cu_seqlens": LIMITS}
PADDED: dict[str, Any] = {name: padded(values) for name, values in SIDES.items()}
NESTED: dict[str, Any] = {name: rows(values) for name, values in SIDES.items()}


@dataclass(frozen=True)
class Printed:
    code: int
    out: str
    error: str

    @property
    def analysis(self) -> dict[str, Any]:
        assert self.code == 0, self.error
        found: dict[str, Any] = json.loads(self.out)
        return found


Analyze = Callable[..., Printed]


@pytest.fixture
def analyze(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Analyze:
    """`driftscope analyze FILE --json`."""

    def run(path: Path, *options: str) -> Printed:
        command = ["driftscope", "analyze", str(path), "--json", *options]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Printed(int(ended.value.code or 0), printed.out, printed.err)

    return run


def lines(path: Path, records: Sequence[object]) -> None:
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")


def nemo_rl(path: Path) -> None:
    """Whole sequences, padded on the right; a token's log-probability stands at its own place."""
    width, records = 80, []
    for row in range(SEQUENCES):
        prompt, rest = 5 + row, width - 5 - row - LENGTHS[row]

        def around(values: list[Any], fill: Any, prompt: int = prompt, rest: int = rest) -> Any:
            return [fill] * prompt + values + [fill] * rest

        records.append(
            {
                "content": "…",
                "rewards": 1.0,
                "input_lengths": prompt + LENGTHS[row],
                "token_ids": around(rows(IDS)[row], 0),
                "token_loss_mask": around([1.0] * LENGTHS[row], 0.0),
                "sample_loss_mask": 1.0,
                "advantages": [float(ADVANTAGES[row])] * width,
                "generation_logprobs": around(rows(ROLLOUT)[row], 0.0),
                "prev_logprobs": around(rows(TRAINER)[row], 0.0),
                "idx": row,
            }
        )
    lines(path, records)


READ: dict[str, Callable[[Path], Any]] = {
    "train_data_step12.jsonl": nemo_rl,
    "own.jsonl": lambda path: lines(
        path,
        [
            {"rollout_logprobs": r, "trainer_logprobs": t, "token_ids": i, "rank": 0}
            for r, t, i in zip(rows(ROLLOUT), rows(TRAINER), rows(IDS), strict=True)
        ],
    ),
    "list.json": lambda path: path.write_text(
        json.dumps(
            [
                {"rollout_logprobs": r, "trainer_logprobs": t}
                for r, t in zip(rows(ROLLOUT), rows(TRAINER), strict=True)
            ]
        )
    ),
    "verl_names.json": lambda path: path.write_text(
        json.dumps(
            {
                **{"rollout_log_probs": rows(ROLLOUT), "old_log_probs": rows(TRAINER)},
                **{"response_mask": [[1.0] * n for n in LENGTHS], "rewards": ADVANTAGES.tolist()},
            }
        )
    ),
    "tokens.csv": lambda path: path.write_text(
        "sequence,rollout_logprobs,trainer_logprobs\n"
        + "\n".join(
            f"{n},{r!r},{t!r}"
            for n, r, t in zip(
                np.repeat(np.arange(SEQUENCES), LENGTHS),
                ROLLOUT.tolist(),
                TRAINER.tolist(),
                strict=True,
            )
        )
    ),
    "lists.parquet": lambda path: pq.write_table(pa.table(NESTED), path),
    "step.npz": lambda path: np.savez(path, **PACKED, model=np.array("m")),
    "padded.npz": lambda path: np.savez(path, **PADDED, mask=ONES),
    "adv_per_seq.json": lambda path: path.write_text(
        json.dumps({**NESTED, "advantages": ADVANTAGES.tolist()})
    ),
    "adv_padded.safetensors": lambda path: save_file(
        {**PADDED, "mask": ONES, "advantages": ADVANTAGES[:, None].copy()}, path
    ),
    "ids_i64.safetensors": lambda path: save_file({**PACKED, "token_ids": IDS.astype("i8")}, path),
    "padded_mask_i64.safetensors": lambda path: save_file({**PADDED, "mask": ONES}, path),
    "padded_mask_f32.safetensors": lambda path: save_file(
        {**PADDED, "mask": ONES.astype(np.float32)}, path
    ),
    "padded_ids_i64.safetensors": lambda path: save_file(
        {**PADDED, "mask": ONES.astype(bool), "token_ids": padded(IDS).astype(np.int64)}, path
    ),
    "float64.safetensors": lambda path: save_file(
        {
            **{name: values.astype(np.float64) for name, values in SIDES.items()},
            "cu_seqlens": LIMITS,
        },
        path,
    ),
    "packed_batch1.safetensors": lambda path: save_file(
        {**{name: values[None] for name, values in SIDES.items()}, "cu_seqlens": LIMITS[None]}, path
    ),
    "padded_3d.safetensors": lambda path: save_file(
        {**{name: values[..., None] for name, values in PADDED.items()}, "mask": ONES}, path
    ),
    "versions_per_token.safetensors": lambda path: save_file(
        {**PACKED, "behavior_version": np.full(ROLLOUT.size, 3)}, path, {"weights_version": "4"}
    ),
}


@pytest.mark.parametrize("name", READ)
def test_what_holds_a_step_is_read(tmp_path: Path, analyze: Analyze, name: str) -> None:
    READ[name](tmp_path / name)
    comparison = analyze(tmp_path / name).analysis["comparison"]
    assert (comparison["tokens"], comparison["sequences"]) == (ROLLOUT.size, SEQUENCES)
    assert comparison["abs_diff_mean"] == pytest.approx(MEAN, rel=1e-12)


def test_a_name_tells_nothing_that_the_content_does_not(tmp_path: Path, analyze: Analyze) -> None:
    """`upload` is whatever it holds."""
    for name, write in READ.items():
        if not name.endswith(".npz"):  # numpy appends the suffix by itself
            write(tmp_path / "upload")
            assert analyze(tmp_path / "upload").analysis["comparison"]["tokens"] == ROLLOUT.size


def test_versions_of_tokens_are_those_of_the_lags(tmp_path: Path, analyze: Analyze) -> None:
    """Two weights within every response: each token counts with its own lag."""
    late = np.concatenate([np.arange(n) >= n // 2 for n in LENGTHS])
    path = tmp_path / "partial.safetensors"
    versions = np.where(late, 7, 5)
    save_file({**PACKED, "behavior_version": versions}, path, {"weights_version": "7"})
    found = analyze(path).analysis["comparison"]
    gaps = np.abs(TRAINER.astype(np.float64) - ROLLOUT)
    assert found["lag_max"] == 2
    assert found["stale_token_share"] == pytest.approx(1 - late.mean())
    assert found["lag_mean"] == pytest.approx(2 * (1 - late.mean()))
    assert found["lag0_abs_diff_mean"] == pytest.approx(gaps[late].mean(), rel=1e-9)


def test_ids_that_no_token_has_are_counted(tmp_path: Path, analyze: Analyze) -> None:
    path = tmp_path / "negative_ids.safetensors"
    ids = np.where(np.arange(ROLLOUT.size) % 9 == 0, -100, IDS).astype(np.int32)
    save_file({**PACKED, "token_ids": ids}, path)
    analysis = analyze(path).analysis
    (odd,) = [one for one in analysis["hygiene"]["found"] if one["kind"] == "negative_id"]
    assert (odd["count"], odd["value"], odd["side"]) == ((ids < 0).sum(), -100, "trainer")
    assert f"{odd['count']} token_ids are -100: " in odd["sentence"]
    kept = np.abs(TRAINER.astype(np.float64) - ROLLOUT)[ids >= 0]
    left = analysis["hygiene"]["without_them"]
    assert left["tokens"] == kept.size
    assert left["abs_diff_mean"] == pytest.approx(kept.mean(), rel=1e-9)
    # What is masked counts for nothing.
    save_file({**PACKED, "token_ids": ids, "mask": (ids >= 0)}, path)
    assert analyze(path).analysis["hygiene"]["found"] == []


@pytest.mark.parametrize(
    ("metadata", "told"),
    [({}, True), ({"rollout_dtype": "bf16", "trainer_dtype": "autocast-bf16"}, False)],
)
def test_unknown_dtypes_are_said(
    tmp_path: Path, analyze: Analyze, metadata: dict[str, str], told: bool
) -> None:
    save_file(PACKED, tmp_path / "step.safetensors", metadata)
    notes = analyze(tmp_path / "step.safetensors").analysis["notes"]
    assert any("no rollout_dtype and no trainer_dtype" in note for note in notes) == told


def cut(side: str, *at: int) -> dict[str, Any]:
    """Nested lists, without the last token of some sequences on one side."""
    shorter = [row[:-1] if index in at else row for index, row in enumerate(NESTED[side])]
    return {**NESTED, side: shorter}


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (
            cut("trainer_logprobs", 7),
            "trainer_logprobs has 35 tokens in sequence 7 (number 8 of 8), rollout_logprobs has "
            "36. 1 of 8 sequences differs: each has one more on the rollout side.",
        ),
        (
            cut("trainer_logprobs", 5),
            "trainer_logprobs has 37 tokens in sequence 5 (number 6 of 8), rollout_logprobs has",
        ),
        (
            cut("trainer_logprobs", *range(8)),
            "8 of 8 sequences differ: every sequence has one more on the rollout side.",
        ),
        (
            cut("rollout_logprobs", *range(8)),
            "8 of 8 sequences differ: every sequence has one more on the trainer side.",
        ),
        ({**NESTED, "mask": [[1] * 9] * 8}, "8 of 8 sequences differ, by -37 to -20."),
        (
            {**NESTED, "trainer_logprobs": NESTED["trainer_logprobs"][:-1]},
            "trainer_logprobs has 7 sequences, rollout_logprobs has 8.",
        ),
    ],
)
def test_lengths_that_differ_are_placed(
    tmp_path: Path, analyze: Analyze, step: dict[str, Any], told: str
) -> None:
    path = tmp_path / "step.json"
    path.write_text(json.dumps(step))
    printed = analyze(path)
    assert printed.code != 0 and told in printed.error
    records = [
        dict(zip(step, values, strict=False)) for values in zip(*step.values(), strict=False)
    ]
    if "7 sequences" not in told:
        lines(tmp_path / "step.jsonl", records)
        assert told in analyze(tmp_path / "step.jsonl").error
        pq.write_table(pa.table(step), tmp_path / "step.parquet")
        assert told in analyze(tmp_path / "step.parquet").error
    if "more on" in told:
        assert "a stop token" in printed.error and "tokenised again" in printed.error


TOLD: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "12.jsonl": (
        lambda path: lines(path, [{"input": "q", "output": "2", "gts": "2", "score": 1.0}] * 8),
        ("verl's rollout_data_dir", "text and rewards, no log-probabilities", "turn on"),
    ),
    "completions_00012.parquet": (
        lambda path: pq.write_table(
            pa.table({"step": [12], "prompt": ["p"], "completion": ["c"], "advantage": [0.5]}), path
        ),
        ("TRL's log_completions", "text and rewards, no log-probabilities", "DriftscopeMixin"),
    ),
    "openai.json": (
        lambda path: path.write_text(
            json.dumps(
                {
                    "id": "chatcmpl-x",
                    "choices": [{"logprobs": {"content": [{"token": "a", "logprob": -0.1}] * 29}}],
                }
            )
        ),
        ("one side only, the rollout's", "29 tokens", "score the same token ids"),
    ),
    "sglang.json": (
        lambda path: path.write_text(
            json.dumps(
                {"text": "hi", "meta_info": {"output_token_logprobs": [[-0.1, 7, None]] * 5}}
            )
        ),
        ("an answer of SGLang", "one side only", "5 tokens"),
    ),
    "objects.npz": (
        lambda path: np.savez(
            path,
            rollout_logprobs=np.array([ROLLOUT[:3], ROLLOUT[:4]], dtype=object),
            trainer_logprobs=TRAINER,
        ),
        ("holds Python objects", "pickles are not read", "np.concatenate(rows)"),
    ),
    "step.npy": (lambda path: np.save(path, ROLLOUT), ("one numpy array", "np.savez")),
    "other.jsonl": (
        lambda path: lines(path, [{"reward": 1.0, "text": "x"}] * 2),
        ("JSON object with reward, text, which is none of the formats", "NeMo-RL's", "prime-rl's"),
    ),
    "two_names.json": (
        lambda path: path.write_text(
            json.dumps({**NESTED, "old_log_probs": NESTED["trainer_logprobs"]})
        ),
        ("there is a field 'old_log_probs'", "--columns trainer_logprobs=old_log_probs"),
    ),
    "one_side.json": (
        lambda path: path.write_text(json.dumps({"rollout_logprobs": [[-0.1]]})),
        (
            "there is no trainer_logprobs",
            "in another file, --trainer FILE",
            "rollout_logprobs: 1 lists",
        ),
    ),
    "cu_lengths.safetensors": (
        lambda path: save_file({**SIDES, "cu_seqlens": np.array(LENGTHS)}, path),
        ("these are the lengths: give np.cumsum([0, *lengths])",),
    ),
    "cu_no_zero.safetensors": (
        lambda path: save_file({**SIDES, "cu_seqlens": LIMITS[1:].copy()}, path),
        ("put the 0 in front",),
    ),
    "off_by_one.safetensors": (
        lambda path: save_file({**PACKED, "trainer_logprobs": TRAINER[:-1].copy()}, path),
        ("needs [303]", "one token is on one side only"),
    ),
    "one_each.safetensors": (
        lambda path: save_file({**PACKED, "trainer_logprobs": TRAINER[:-8].copy()}, path),
        ("one value fewer for every sequence: usually a stop token",),
    ),
    "ignored.safetensors": (
        lambda path: save_file({**PADDED, "mask": np.where(ONES == 1, 1, -100)}, path),
        ("mask has the value -100", "store (labels != -100)"),
    ),
    "experts.safetensors": (
        lambda path: save_file(
            {**PACKED, "routed_experts": np.full((ROLLOUT.size, 1, 2), 0.5, np.float32)}, path
        ),
        ("accepted: U8, I16, U16, I32, I64", "astype() wraps what does not fit"),
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_holds_no_step_is_told_what_it_is(tmp_path: Path, analyze: Analyze, name: str) -> None:
    write, told = TOLD[name]
    write(tmp_path / name)
    printed = analyze(tmp_path / name)
    assert printed.code != 0 and not printed.out
    for words in told:
        assert words in printed.error


def test_an_answer_and_a_trainers_file(tmp_path: Path, analyze: Analyze) -> None:
    """`analyze openai.json --trainer trainer.npz`, and SGLang's with names of its own."""
    pairs = list(zip(IDS.tolist(), ROLLOUT.tolist(), strict=True))
    content = [{"token": f"token_id:{token}", "logprob": value} for token, value in pairs]
    triples = [[value, token, None] for token, value in pairs]
    (tmp_path / "openai.json").write_text(
        json.dumps({"id": "x", "choices": [{"index": 0, "logprobs": {"content": content}}]})
    )
    (tmp_path / "sglang.json").write_text(
        json.dumps({"meta_info": {"output_token_logprobs": triples}})
    )
    np.savez(tmp_path / "trainer.npz", trainer_logprobs=TRAINER)
    np.savez(tmp_path / "other.npz", score=TRAINER)
    for answer, trainer, *more in (
        ("openai.json", "trainer.npz"),
        ("sglang.json", "other.npz", "--columns", "trainer_logprobs=score"),
    ):
        found = analyze(tmp_path / answer, "--trainer", str(tmp_path / trainer), *more).analysis
        assert found["comparison"]["tokens"] == ROLLOUT.size
        assert found["comparison"]["abs_diff_mean"] == pytest.approx(MEAN, rel=1e-12)


def test_columns_are_read_as_told(tmp_path: Path, analyze: Analyze) -> None:
    path = tmp_path / "step.parquet"
    columns = {"gen_logp": rows(ROLLOUT), "old_logp": rows(TRAINER), "text": ["x"] * SEQUENCES}
    pq.write_table(pa.table(columns), path)
    told = analyze(path).error
    option = "rollout_logprobs=gen_logp,trainer_logprobs=old_logp"
    assert "gen_logp: list<element: double> of 29, first" in told and option in told
    found = analyze(path, "--columns", option).analysis["comparison"]
    assert found["abs_diff_mean"] == pytest.approx(MEAN, rel=1e-12)


def test_a_folder_of_exports_is_a_line_per_step(
    tmp_path: Path, analyze: Analyze, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (3, 12):
        folder = tmp_path / "token_exports" / f"step_{step}"
        folder.mkdir(parents=True)
        for rank in range(2):
            record = {
                **{"schema_version": 1, "step": step, "rank": rank, "token_ids": [1, 2, 3]},
                **{"loss_mask": [False, True, True], "inference_logprobs": [0.0, -0.5, -1.0]},
                "trainer_logprobs": [0.0, -0.5, -1.0 - step / 100],
            }
            lines(folder / f"rank_{rank}.jsonl", [record])
    folder = tmp_path / "token_exports"
    steps = analyze(folder, "--resamples", "0").analysis["steps"]
    assert {n: one["comparison"]["tokens"] for n, one in steps.items()} == {"3": 4, "12": 4}
    assert steps["12"]["comparison"]["abs_diff_mean"] == pytest.approx(0.06)
    one = analyze(folder, "--step", "3").analysis["comparison"]
    assert (one["tokens"], one["sequences"]) == (4, 2)
    assert "has no step 4" in analyze(folder, "--step", "4").error
    failed = analyze(folder, "--resamples", "0", "--fail-on", "abs_diff_mean>0.05")
    assert failed.code == 1 and "step 12" in failed.error and "step 3" not in failed.error
    print_steps(steps)
    assert "0.06" in capsys.readouterr().out


def slime(path: Path) -> None:
    torch.save(
        {
            "rollout_id": 3,
            "rollout_data": {
                "tokens": [torch.tensor(row) for row in rows(IDS)],
                "response_lengths": list(LENGTHS),
                "loss_masks": [torch.ones(n, dtype=torch.int) for n in LENGTHS],
                "rollout_log_probs": [torch.tensor(row) for row in rows(ROLLOUT)],
                "log_probs": [torch.tensor(row) for row in rows(TRAINER)],
            },
        },
        path,
    )


def test_slimes_pickle_is_not_read_and_its_three_lines_convert_it(
    tmp_path: Path, analyze: Analyze
) -> None:
    slime(tmp_path / "0_3.pt")
    for options in ((), ("--format", "safetensors")):
        printed = analyze(tmp_path / "0_3.pt", *options)
        assert printed.code != 0
        assert "a torch pickle" in printed.error and "slime and miles" in printed.error
    code = printed.error[printed.error.index("import torch") :].strip()
    assert len(code.splitlines()) == len(SLIME_LINES.splitlines()) == 3
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=100)
    found = analyze(tmp_path / "0_3.safetensors").analysis["comparison"]
    assert (found["tokens"], found["sequences"]) == (ROLLOUT.size, SEQUENCES)
    assert found["abs_diff_mean"] == pytest.approx(MEAN, rel=1e-12)


class Planted:
    """Pickled, it makes a folder of whoever reads it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_no_code_in_a_file_is_run(tmp_path: Path, analyze: Analyze) -> None:
    made = tmp_path / "made"
    torch.save({"rollout_log_probs": Planted(str(made))}, tmp_path / "step.pt")
    planted = np.array([Planted(str(made))], dtype=object)
    np.savez(tmp_path / "step.npz", rollout_logprobs=planted, trainer_logprobs=planted)
    for name in ("step.pt", "step.npz"):
        assert analyze(tmp_path / name).code != 0
    assert not made.exists()
