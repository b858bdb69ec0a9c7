"""Scripts: what a branch holds is not known, and expansions end."""

from __future__ import annotations

import pytest

from driftscope_probes.lint.readers.script import read_script


def test_a_branch_is_not_run_and_what_it_assigns_is_forgotten() -> None:
    script = read_script(
        "a=1\nb=1\nARGS=(x)\n"
        'if [ "$1" = y ]; then\n  a=2\n  ARGS=(y)\n  other --flag\nfi\n'
        "case $b in\n  1) run this ;;\nesac\n"
        'run $a $b "${ARGS[@]}"\n'
    )
    assert script.commands == (("run", "$a", "1"),)


def test_what_a_branch_adds_may_be_missing() -> None:
    script = read_script("ARGS=(x)\nif true; then ARGS+=(y); fi\nARGS+=(z)\nrun ${ARGS[@]}\n")
    assert script.commands == (("run", "x", "z"),)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ('${A:-"${B}/models/x"}', "${B}/models/x"),
        ("$(((a + b) * 2))", "$(((a + b) * 2))"),
        ("$(echo $(date))", "$(echo $(date))"),
    ],
)
def test_a_nested_expansion_ends_where_it_ends(value: str, read: str) -> None:
    assert read_script(f"X={value}\nrun a=$X b\n").commands[0] == ("run", f"a={read}", "b")


@pytest.mark.parametrize(
    "text",
    [
        "A=xxxxxxxxxx\n" + "A=$A$A\n" * 60 + "run $A\n",
        "A=(x)\n" + 'A+=("${A[@]}" "${A[@]}")\n' * 40 + 'run "${A[@]}"\n',
    ],
)
def test_what_doubles_with_each_line_stays_small(text: str) -> None:
    (command,) = read_script(text).commands
    assert sum(len(word) for word in command) < 3_000_000
