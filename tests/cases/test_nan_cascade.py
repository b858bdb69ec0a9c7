"""NaN from one token on, a single NaN, +∞, and a side that is NaN throughout: counted apart,
placed, and offered first on the page of the step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .policy import analyze, pair, push, write

FIRST, SICK = 3, (4, 9)


def _cascade(folder: Path, index: int = FIRST) -> tuple[Path, int]:
    of = pair(23, sequences=16, length=60)
    sick = np.isin(of.sequence, SICK) & (of.index >= index)
    rollout, ids = np.where(sick, np.nan, of.rollout), np.where(sick, 0, of.ids)
    path = write(folder, rollout, of.trainer, of.limits, token_ids=ids.astype(np.int32))
    return path, int(sick.sum())


def test_where_the_cascade_begins_and_what_it_holds(tmp_path: Path) -> None:
    path, count = _cascade(tmp_path)
    printed = analyze(path)
    (odd,) = printed.odd
    assert (odd["side"], odd["kind"], odd["count"]) == ("rollout", "nan", count)
    assert odd["place"]["named_sequences"] == list(SICK)
    assert odd["place"]["from_index"] == [FIRST, FIRST] and odd["place"]["token_ids_zero"]
    assert printed.json["hygiene"]["sequences"] == list(SICK)
    assert (
        f"{count} rollout values are NaN: in sequences 4 and 9, from index 3 on to the end; "
        "token ids are 0 from there." in printed.text
    )
    counts = printed.comparison
    assert counts["rollout_nan"] == counts["rollout_nonfinite"] == count
    infinities = ("rollout_minus_infinity", "rollout_plus_infinity", "trainer_nan")
    assert not any(counts[name] for name in infinities)


def test_a_single_value_of_each_kind(tmp_path: Path) -> None:
    of = pair(24, sequences=16, length=60)
    for value, kind, name in (
        (np.nan, "nan", "NaN"),
        (np.inf, "plus_infinity", "+∞"),
        (-np.inf, "minus_infinity", "−∞"),
    ):
        trainer = of.trainer.copy()
        row = int(of.limits[5]) + 7
        trainer[row] = value
        printed = analyze(write(tmp_path, of.rollout, trainer, of.limits))
        (odd,) = printed.odd
        assert (odd["side"], odd["kind"], odd["count"]) == ("trainer", kind, 1)
        assert f"1 trainer value is {name}: in sequence 5, index 7." in printed.text
        assert printed.comparison[f"trainer_{kind}"] == 1


def test_a_step_that_is_nan_throughout(tmp_path: Path) -> None:
    of = pair(25, sequences=16, length=60)
    trainer = np.full(of.rollout.size, np.nan)
    printed = analyze(write(tmp_path, of.rollout, trainer, of.limits))
    assert f"{of.rollout.size} trainer values are NaN: in every token." in printed.text
    assert "Not comparable" in printed.text


def test_the_page_offers_those_sequences_first(running_service: str, tmp_path: Path) -> None:
    path, _ = _cascade(tmp_path)
    _, page = push(running_service, path, "cascade")
    first, second = page.index('id="odd"'), page.index('id="worst"')
    assert first < second
    offered = page[first:second]
    assert all(f"sequence={one}#sequence" in offered for one in SICK)
    shown = page[page.index('<h3 id="sequence">') :]
    assert shown.startswith('<h3 id="sequence">Sequence 9') or shown.startswith(
        '<h3 id="sequence">Sequence 4'
    )
    assert 'class="bad-number"' in shown


def test_the_page_of_a_step_without_a_finite_value_shows_tokens(
    running_service: str, tmp_path: Path
) -> None:
    of = pair(25, sequences=16, length=60)
    trainer = np.full(of.rollout.size, np.nan)
    path = write(tmp_path, of.rollout, trainer, of.limits)
    _, page = push(running_service, path, "all-nan")
    assert '<h3 id="sequence">Sequence' in page and 'class="bad-number"' in page
    assert "in every token" in page
