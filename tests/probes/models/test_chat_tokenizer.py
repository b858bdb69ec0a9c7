"""Through the tokenizers library: what was saved splits and joins text as meant."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from driftscope_probes.models import tiny_random
from driftscope_probes.models.chat_tokenizer import ChatTokenizer


@pytest.fixture(scope="module")
def words() -> ChatTokenizer:
    return tiny_random.tokenizer()


@pytest.fixture(scope="module")
def saved(words: ChatTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    words.save(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=40))
def test_any_text_survives(saved: Tokenizer, text: str) -> None:
    assert saved.decode(saved.encode(text).ids) == text


def test_merges_digits_and_special_tokens(saved: Tokenizer) -> None:
    assert saved.encode("<|im_start|>there  12<|im_end|>").tokens == [
        "<|im_start|>",
        "th",
        "er",
        "e",
        "Ġ",
        "Ġ",
        "1",
        "2",
        "<|im_end|>",
    ]


def test_special_tokens_are_left_out_when_decoding(saved: Tokenizer) -> None:
    ids = saved.encode("<|im_start|>hello<|im_end|>").ids
    assert saved.decode(ids, skip_special_tokens=True) == "hello"


def test_ids_are_the_places_in_the_vocabulary(saved: Tokenizer, words: ChatTokenizer) -> None:
    assert saved.get_vocab_size() == len(words.vocabulary)
    assert [saved.id_to_token(index) for index in range(len(words.vocabulary))] == list(
        words.vocabulary
    )


@pytest.mark.parametrize("split", [True, False])
def test_digits_are_split_only_when_asked(
    tmp_path: Path, words: ChatTokenizer, split: bool
) -> None:
    joining = replace(
        words,
        vocabulary=[*words.vocabulary, "12"],
        merges=[*words.merges, ("1", "2")],
        individual_digits=split,
    )
    joining.save(tmp_path)
    rules = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert rules.encode("12").tokens == (["1", "2"] if split else ["12"])


def test_a_special_token_outside_the_vocabulary_is_our_own_mistake(
    tmp_path: Path, words: ChatTokenizer
) -> None:
    with pytest.raises(AssertionError):
        replace(words, special_tokens=["<|other|>"]).save(tmp_path)
