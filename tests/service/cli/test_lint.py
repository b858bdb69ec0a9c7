"""`driftscope lint`: exit codes, what it says of an empty answer, two hosts, and how it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftscope_probes.lint.rules.registry import ALL_RULES
from driftscope_service.cli.main import app_of

Run = Callable[..., subprocess.CompletedProcess[str]]
CONFIG: dict[str, object] = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
CONFIG |= {"torch_dtype": "bfloat16", "rope_theta": 1e6, "rms_norm_eps": 1e-6}
#: Both places of the base of the rotary embedding, which do not agree.
BROKEN = {**CONFIG, "rope_parameters": {"rope_theta": 1e4, "rope_type": "x"}}
HEAVY = (
    *("torch", "vllm", "transformers", "numpy", "fastapi", "sqlalchemy", "httpx"),
    "numba",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    write(tmp_path / "model", CONFIG)
    return tmp_path


def write(model: Path, config: dict[str, object]) -> None:
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")


def lint(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(
        app_of(["lint"]),
        ["lint", *map(str, arguments)],
        env={"COLUMNS": "100"},
        catch_exceptions=False,
    )
    return done.exit_code, done.stdout


def test_an_empty_answer_is_not_nothing_read(folder: Path) -> None:
    code, told = lint(folder / "model")
    assert code == 0
    assert told.startswith("Nothing found.\nRead ")
    assert "in " in told and f"looked at {len(ALL_RULES)} rules." in " ".join(told.split())


def test_a_finding_says_where_why_what_to_change_and_its_source(folder: Path) -> None:
    write(folder / "model", BROKEN)
    code, told = lint(folder / "model")
    assert code == 1
    assert told.startswith("1 error.")
    assert f"{folder / 'model' / 'config.json'}: rope_parameters.rope_theta = " in told
    assert "error  rope-base-twice" in told and "Change: " in told and "Source: " in told


def test_json_is_what_the_contract_says(folder: Path) -> None:
    write(folder / "model", BROKEN)
    code, told = lint(folder / "model", "--json")
    found = json.loads(told)
    assert code == 1 and len(found["findings"]) == 1
    assert {"rule", "severity", "where", "value", "why", "remedy", "source"} <= found["findings"][
        0
    ].keys()
    assert found["read"][0]["settings"] > 0 and found["rules"] == len(ALL_RULES)


def test_the_least_severity_and_a_rule_left_out_decide_on_the_exit_code(folder: Path) -> None:
    command = ("--command", 'vllm serve m --speculative-config \'{"method": "eagle3"}\'')
    code, told = lint(*command)
    assert code == 1 and "warning  speculative-decoding" in told
    assert lint(*command, "--fail-on", "error")[0] == 0
    code, told = lint(*command, "--ignore", "speculative-decoding")
    assert code == 0 and "1 ignored" in told


def test_two_folders_side_by_side(folder: Path) -> None:
    (folder / "other").mkdir()
    write(folder / "other", {**CONFIG, "rms_norm_eps": 1e-5, "transformers_version": "5.0.0"})
    code, told = lint(folder / "model", "--against", folder / "other")
    assert code == 1
    assert "Can change numerics" in told and "config.json: rms_norm_eps: 1e-06 → 1e-05" in told
    assert lint(folder / "model", "--against", folder / "other", "--fail-on", "error")[0] == 0
    assert lint(folder / "model", "--against", folder / "model")[0] == 0


def test_lists_of_packages_are_compared_and_the_rest_is_folded(folder: Path) -> None:
    (folder / "a.txt").write_text("torch==2.9.0\nrich==14.0\n", encoding="utf-8")
    (folder / "b.txt").write_text("torch==2.10.0\nrich==15.0\n", encoding="utf-8")
    code, told = lint(folder / "a.txt", "--against", folder / "b.txt")
    assert code == 1
    assert "torch: 2.9.0 → 2.10.0" in told and "rich: " not in told
    assert "Cannot change numerics: 1 difference; --all" in told
    assert "rich: 14.0 → 15.0" in lint(folder / "a.txt", "--against", folder / "b.txt", "--all")[1]
    found = json.loads(lint(folder / "a.txt", "--against", folder / "b.txt", "--json")[1])
    assert [one["name"] for one in found["against"]["differences"]] == ["torch", "rich"]


def test_this_machine_against_what_it_printed(driftscope: Run, tmp_path: Path) -> None:
    printed = driftscope("environment")
    (tmp_path / "then.json").write_text(printed.stdout, encoding="utf-8")
    same = driftscope("lint", "--against", "then.json", "--json")
    found = json.loads(same.stdout)["against"]
    assert found["differences"] == [] and found["same"] > 10, same.stderr
    other = driftscope("lint", "--against", "then.json", VLLM_BATCH_INVARIANT="1")
    assert "VLLM_BATCH_INVARIANT: 1 → not set" in other.stdout and other.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a PATH"),
        (("nothing.yaml",), "There is no file"),
        (("--command", "echo hello"), "Nothing in command is understood"),
        (("model", "--ignore", "kv-fp8-without-scale"), "did you mean kv-fp8-without-scales"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_read_exits_with_2(
    driftscope: Run, folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = driftscope("lint", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_rules_are_listed() -> None:
    code, told = lint("--rules")
    assert code == 0 and len(told.splitlines()) == len(ALL_RULES)
    rows = json.loads(lint("--rules", "--json")[1])["rules"]
    assert [row["name"] for row in rows] == [rule.name for rule in ALL_RULES]


def test_it_starts_without_what_takes_long_to_import(folder: Path) -> None:
    """The time is measured in bench/lint.py; what would cost it is held here."""
    code = (
        "import sys; from driftscope_service.cli.main import main\n"
        f"sys.argv = ['driftscope', 'lint', {str(folder / 'model')!r}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"heavy = set({HEAVY!r}) & set(sys.modules)\n"
        "sys.exit(f'{heavy} imported' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Nothing found.")
