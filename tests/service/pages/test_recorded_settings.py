"""Settings of one side as a table: nothing that was recorded is lost."""

from __future__ import annotations

from driftscope_service.pages.report_template import ABSENT, flat, setting_table

BF16 = {"side": "rollout", "dtype": "bf16", "engine": "vllm", "settings": {"a": 1, "b": {"c": []}}}
FP16 = {"side": "rollout", "dtype": "fp16", "engine": "vllm", "settings": {"a": 2}}


def test_a_column_per_dtype_and_a_row_per_setting() -> None:
    table = setting_table([BF16, BF16, FP16])
    assert table.columns == ("bf16", "fp16")
    rows = {row.name: row for row in table.rows}
    assert {name: row.values for name, row in rows.items()} == {
        "engine": ("vllm", "vllm"),
        "a": ("1", "2"),
        "b.c": ("[]", ABSENT),
    }
    assert [name for name, row in rows.items() if row.differs] == ["a", "b.c"]


def test_settings_that_differ_within_a_dtype_get_a_column_each() -> None:
    other = {**BF16, "settings": {"a": 3}}
    assert setting_table([BF16, other]).columns == ("bf16", "bf16")


def test_flat_writes_strings_as_they_are_and_the_rest_as_json() -> None:
    values = {"a": {"b": "text", "c": None}, "d": [1, "ü"], "e": True}
    assert flat(values) == {"a.b": "text", "a.c": "null", "d": '[1, "ü"]', "e": "true"}
