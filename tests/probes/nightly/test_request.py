import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.errors import RequestError
from driftscope_probes.nightly.item import KERNEL_AXES, EngineItem, KernelItem
from driftscope_probes.nightly.request import (
    DEFAULT_FILE,
    MOST_BYTES,
    ConfigError,
    parse_config,
    read_config,
)
from driftscope_probes.verdicts import RANKS

HEAD = 'name = "n"\nbudget_minutes = 1\n'
KERNELS = """
[[kernels]]
names = ["a/linear/one", "a/linear/two"]
dtypes = ["fp32", "bf16"]
threads = [1, 2]
expected = "PROVED"
"""
ENGINES = """
[[engines]]
models = ["tiny-random-llama"]
engines = ["vllm"]
kernels = ["stock", "invariant"]
dtypes = ["bf16"]
axes = ["batch_size", "position"]
expected = "differs"
"""


def parse(text: str) -> dict[str, str]:
    return {item.id: item.expected for item in parse_config(text.encode()).items}


def test_tables_multiply_and_every_item_has_its_own_id() -> None:
    items = parse(HEAD + KERNELS + ENGINES)
    assert len(items) == 8 + 4
    assert items["kernel/a/linear/two/bf16/t2"] == "PROVED"
    assert items["engine/tiny-random-llama/vllm/invariant/bf16/position"] == "differs"


def test_an_axis_is_an_item_beside_the_whole() -> None:
    text = KERNELS.replace("threads = [1, 2]", 'threads = [1]\naxes = ["all", "batch_size"]')
    override = '[[kernels.override]]\nitems = "*/batch_size"\nexpected = "NOT_REFUTED"\n'
    items = parse(HEAD + text + override)
    assert items["kernel/a/linear/one/fp32/t1"] == "PROVED"
    assert items["kernel/a/linear/one/fp32/t1/batch_size"] == "NOT_REFUTED"


def test_overrides_change_what_they_match_and_nothing_else() -> None:
    items = parse(
        HEAD
        + KERNELS
        + '[[kernels.override]]\nitems = "*/one/bf16/*"\nexpected = "NOT_REFUTED"\n'
        + '[[kernels.override]]\nitems = "kernel/a/linear/two/fp32/t1"\nexpected = "REFUTED"\n'
    )
    others = {name: verdict for name, verdict in items.items() if verdict != "PROVED"}
    assert others == {
        "kernel/a/linear/one/bf16/t1": "NOT_REFUTED",
        "kernel/a/linear/one/bf16/t2": "NOT_REFUTED",
        "kernel/a/linear/two/fp32/t1": "REFUTED",
    }


def test_settings_of_an_engine_reach_its_items_and_a_label_tells_two_tables_apart() -> None:
    text = ENGINES + 'settings = { threads = 2, attention_split_kv = true }\nlabel = "split"\n'
    items = parse_config((HEAD + ENGINES + text).encode()).items
    assert len(items) == 8
    last = items[-1]
    assert isinstance(last, EngineItem)
    assert last.id.endswith("/position/split")
    assert last.settings == {"threads": 2, "attention_split_kv": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name: Field required"),
        (HEAD, "neither [[kernels]] nor [[engines]]"),
        ("name = ", "is not TOML"),
        (HEAD + 'colour = "red"\n' + KERNELS, "colour: Extra inputs"),
        (HEAD.replace("1", "0") + KERNELS, "budget_minutes"),
        (HEAD.replace("1", '"1"') + KERNELS, "budget_minutes: Input should be a valid number"),
        (HEAD.replace('"n"', '"n/../x"') + KERNELS, "name"),
        (HEAD + KERNELS.replace("PROVED", "EQUAL"), "unknown verdict of a kernel EQUAL"),
        (HEAD + KERNELS.replace("PROVED", "NOT_RUN"), "unknown verdict of a kernel NOT_RUN"),
        (HEAD + KERNELS.replace("a/linear/one", "a/linear"), "kernels[0].names[0]"),
        (HEAD + KERNELS.replace("bf16", "fp8"), "kernels[0].dtypes[1]"),
        (HEAD + KERNELS.replace("[1, 2]", "[0]"), "kernels[0].threads[0]"),
        (HEAD + KERNELS.replace("[1, 2]", "[1, 1]"), "names a value twice"),
        (HEAD + KERNELS.replace("[1, 2]", '[1]\naxes = ["colour"]'), "unknown axis colour"),
        (HEAD + KERNELS.replace("[1, 2]", '[1]\naxes = ["threads"]'), "'PROVED' is expected of"),
        (HEAD + KERNELS + KERNELS, "is in two tables"),
        (HEAD + ENGINES + ENGINES, "give one table of engines a label"),
        (HEAD + ENGINES.replace("position", "colour"), "axes.0"),
        (HEAD + ENGINES + "settings = { colour = 1 }\n", "colour: Extra inputs"),
        (HEAD + ENGINES + "settings = { threads = 0 }\n", "threads: Input should be greater"),
        (HEAD + ENGINES + 'settings = { model = "x" }\n', "model is set by the table itself"),
        (HEAD + ENGINES.replace('"vllm"', '"sglang"'), "engine: Input should be"),
        (HEAD + ENGINES.replace("differs", "PROVED"), "unknown verdict of an engine PROVED"),
        (
            HEAD + KERNELS + '[[kernels.override]]\nitems = "c/*"\nexpected = "PROVED"\n',
            "kernels[0].override[0]: 'c/*' matches no item",
        ),
        (
            HEAD
            + KERNELS
            + '[[kernels.override]]\nitems = "*/t1"\nexpected = "REFUTED"\n'
            + '[[kernels.override]]\nitems = "*/fp32/*"\nexpected = "REFUTED"\n',
            "is matched by '*/t1' already",
        ),
        (
            HEAD + KERNELS + '[[kernels.override]]\nitems = "*/t1"\nexpected = "equal"\n',
            "'equal' is expected of kernel/a/linear/one/fp32/t1",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode())
    assert message in str(caught.value)


def test_too_many_items_are_refused_before_they_are_made() -> None:
    names = ", ".join(f'"a/linear/k{number}"' for number in range(256))
    axes = ", ".join(f'"{axis}"' for axis in KERNEL_AXES)
    table = f'[[kernels]]\nnames = [{names}]\ndtypes = ["fp32"]\naxes = [{axes}]\n'
    with pytest.raises(ConfigError, match="more than 10,000 items"):
        parse_config((HEAD + (table + 'expected = "REFUTED"\n') * 64).encode())


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot read"):
        read_config(tmp_path / "absent.toml")
    with pytest.raises(RequestError, match="cannot read"):
        read_config(tmp_path)
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(RequestError, match="large.toml: has more than"):
        read_config(large)
    with pytest.raises(ConfigError, match="not UTF-8"):
        parse_config(b"\xff")


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
@settings(max_examples=50, deadline=None)
def test_any_text_parses_or_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(text.encode())


def test_the_shipped_file_is_valid_and_every_expectation_is_possible() -> None:
    config = read_config(DEFAULT_FILE)
    assert config.budget_s <= 15 * 60
    assert {item.kind for item in config.items} == {"kernel", "engine"}
    for item in config.items:
        assert item.expected in RANKS[item.kind]
    assert tomllib.loads(DEFAULT_FILE.read_text(encoding="utf-8"))["name"] == config.name


def test_the_shipped_file_names_kernels_that_exist() -> None:
    pytest.importorskip("torch")
    from driftscope_kernels.check import planted
    from driftscope_kernels.check.cases.case import DTYPES
    from driftscope_kernels.registry import kernels

    known = {kernel.name: kernel for kernel in (*kernels(), *planted.kernels())}
    for item in read_config(DEFAULT_FILE).items:
        if isinstance(item, KernelItem) and not item.name.startswith("vllm/"):
            assert DTYPES[item.dtype] in known[item.name].dtypes, item.id


def test_axes_are_those_of_the_checker() -> None:
    pytest.importorskip("torch")
    from driftscope_kernels.check.placements.axes import AXES, FRESH_PROCESS
    from driftscope_kernels.check.search import ACCURACY

    assert set(KERNEL_AXES) == {*AXES, FRESH_PROCESS, ACCURACY}
