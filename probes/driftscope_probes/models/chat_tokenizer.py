"""A byte-level BPE tokenizer with a chat template, written as a model folder carries it.

In: vocabulary, merges and special tokens. Out: tokenizer.json, tokenizer_config.json,
chat_template.jinja and generation_config.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from driftscope_probes.models.json_file import write_json


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    """Token i is `vocabulary[i]`; every special token is in the vocabulary too."""

    vocabulary: Sequence[str]  # in the byte-level alphabet, where a space is written "Ġ"
    merges: Sequence[tuple[str, str]]  # highest priority first
    special_tokens: Sequence[str]
    bos: str
    eos: str
    pad: str
    unk: str
    individual_digits: bool  # each digit is its own word before merging
    chat_template: str
    max_length: int  # tokens

    def id_of(self, token: str) -> int:
        return self.vocabulary.index(token)

    def save(self, folder: Path) -> None:
        """Writes the four files; the same tokenizer gives the same bytes."""
        self._save_rules(folder / "tokenizer.json")
        write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": self.bos,
                "eos_token": self.eos,
                "pad_token": self.pad,
                "unk_token": self.unk,
                "clean_up_tokenization_spaces": False,
                "model_max_length": self.max_length,
            },
        )
        (folder / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")
        write_json(
            folder / "generation_config.json",
            {
                "bos_token_id": self.id_of(self.bos),
                "eos_token_id": self.id_of(self.eos),
                "pad_token_id": self.id_of(self.pad),
            },
        )

    def _save_rules(self, path: Path) -> None:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        ids = {token: index for index, token in enumerate(self.vocabulary)}
        assert len(ids) == len(self.vocabulary), "a token is in the vocabulary twice"
        rules = Tokenizer(models.BPE(vocab=ids, merges=list(self.merges)))
        added = [AddedToken(token, special=True, normalized=False) for token in self.special_tokens]
        rules.add_special_tokens(added)
        assert rules.get_vocab_size() == len(ids), "a special token is not in the vocabulary"
        words: list[pre_tokenizers.PreTokenizer] = [
            pre_tokenizers.ByteLevel(add_prefix_space=False)
        ]
        if self.individual_digits:
            words.insert(0, pre_tokenizers.Digits(individual_digits=True))
        rules.pre_tokenizer = pre_tokenizers.Sequence(words)
        rules.decoder = decoders.ByteLevel()
        rules.save(str(path))
