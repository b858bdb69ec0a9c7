"""Which colour a token has, and which part of a sequence is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftscope_probes.tokens import Extras, Tokens
from driftscope_service.runs.pages.coloured_tokens import (
    LEAD,
    WINDOW,
    TokenText,
    TokenTexts,
    token_window,
    tokenizer_path,
)


def _sequence(diffs: Any, ids: bool = True) -> Tokens:
    diff = np.asarray(diffs, dtype=np.float32)
    rollout = np.full(diff.size, -1.0, dtype=np.float32)
    return Tokens(
        rollout,
        rollout + diff,
        np.array([0, diff.size]),
        np.ones(diff.size, dtype=np.bool_),
        Extras(token_ids=np.arange(diff.size, dtype=np.int32) if ids else None),
    )


def test_shades_by_size_and_sign() -> None:
    window = token_window(_sequence([0, 0.04, -0.06, 0.3, -0.8, 2.5, np.nan]), None, None)
    shades = [token.shade for token in window.tokens]
    assert shades == ["t0", "t0", "less1", "more2", "less3", "more4", "bad-number"]
    # What is not finite is worst of all.
    assert [token.index for token in window.worst[:3]] == [6, 5, 4]


def test_a_masked_token_is_shown_and_never_the_worst() -> None:
    sequence = _sequence([3.0, 0.1])
    sequence.takes_part[0] = False
    window = token_window(sequence, None, None)
    assert window.tokens[0].shade == "masked"
    assert [token.index for token in window.worst] == [1]


def test_a_long_sequence_begins_before_its_worst_token() -> None:
    diffs = np.zeros(3 * WINDOW)
    diffs[900] = 1.0
    window = token_window(_sequence(diffs), None, None)
    assert window.first == 900 - LEAD and len(window.tokens) == WINDOW
    assert (window.earlier, window.later) == (900 - LEAD - WINDOW, 900 - LEAD + WINDOW)
    assert token_window(_sequence(diffs), None, 0).earlier is None
    beyond = token_window(_sequence(diffs), None, 10**6)
    assert beyond.tokens == [] and beyond.later is None


def test_names_without_tokenizer_and_without_ids() -> None:
    assert [one.text for one in token_window(_sequence([0, 0]), None, None).tokens] == ["#0", "#1"]
    window = token_window(_sequence([0, 0], ids=False), None, None)
    assert [one.text for one in window.tokens] == ["0", "1"] and not window.has_ids


def test_only_names_of_the_operator_lead_to_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    models = {"mine": tmp_path}
    assert tokenizer_path("mine", models) == tmp_path / "tokenizer.json"
    for name in (str(tmp_path), "../mine", f"{tmp_path}/tokenizer.json", "nobody"):
        assert tokenizer_path(name, models) is None


def test_a_malformed_tokenizer_is_none(tmp_path: Path, make_settings: Any) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    texts = TokenTexts(make_settings(models={"mine": tmp_path}))
    assert texts.of_model((None, "other", "mine")) is None


def test_an_id_beyond_the_vocabulary_is_shown_as_id() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"a": 0}, unk_token="a")
    text = TokenText(tokenizers.Tokenizer(model))
    assert [text.of(token) for token in (0, 7, -1)] == ["a", "#7", "#-1"]


def test_what_cannot_be_seen_gets_a_mark() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"a\n": 0, "\u202eb": 1}
    text = TokenText(tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="a\n")))
    window = token_window(_sequence([0, 0]), text, None)
    assert [one.text for one in window.tokens] == ["a↵", "·b"]
