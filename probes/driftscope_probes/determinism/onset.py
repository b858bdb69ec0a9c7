"""The value from which outputs differ: tested values first, then bisection over the integers.

In: values from the reference outwards and a test. Out: the last equal and the first differing one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from driftscope_probes.record import Record

Value = int | str


class Onset(Record):
    """`differs_from` is the smallest case found; larger values do not necessarily differ."""

    setting: str
    equal_up_to: Value | None  # None: the values have no order
    differs_from: Value
    tested: tuple[Value, ...]  # in the order of testing, the reference first


def find_onset(
    setting: str,
    values: Sequence[Value],
    differs: Mapping[Value, bool],
    test: Callable[[int], bool],
    *,
    ordered: bool,
    budget: int,
) -> Onset | None:
    """`values`: the reference first, ascending or descending; `differs` has all but the reference.

    `test` is asked at most `budget` times, for integers strictly between an equal and a differing
    one. None where nothing differs.
    """
    tested = list(values)
    index = next((i for i, value in enumerate(values) if differs.get(value)), None)
    if index is None:
        return None
    far = values[index]
    if not ordered:
        return Onset(setting=setting, equal_up_to=None, differs_from=far, tested=tuple(tested))
    near = values[index - 1]
    while isinstance(near, int) and isinstance(far, int) and abs(far - near) > 1 and budget > 0:
        middle = (near + far) // 2
        tested.append(middle)
        budget -= 1
        if test(middle):
            far = middle
        else:
            near = middle
    return Onset(setting=setting, equal_up_to=near, differs_from=far, tested=tuple(tested))
