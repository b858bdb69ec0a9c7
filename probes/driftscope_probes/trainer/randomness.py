"""What makes a forward in training mode draw random numbers: rates that a config names.

In: the config of a model and the dropout of an adapter. Out: fields and rates, and how a sentence
names them. Whether a forward did draw, the trainer sees itself. Free of torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from driftscope_probes.record import Record

#: Names of transformers' configs: attn_pdrop, embd_pdrop, resid_pdrop (GPT-2); attention_dropout,
#: hidden_dropout(_prob), activation_dropout, dropout; layerdrop, drop_path_rate.
_DROPOUT: Final = re.compile(r"dropout|pdrop|layer_?drop|drop_path|drop_rate")
#: A mixture's router multiplies its input by noise in training mode: router_jitter_noise (Mixtral,
#: Switch), input_jitter_noise (PhiMoE).
_JITTER: Final = re.compile(r"jitter")
#: Heads that a causal language model does not have: classifier_dropout, summary_first_dropout.
_OTHER_HEADS: Final = ("classifier", "classification", "cls", "summary")
_ENDINGS: Final = re.compile(r"_(pdrop|dropout(_prob|_p|_rate)?)$")


class Rate(Record):
    """One field of a config that is above 0."""

    field: str  # nested ones with a dot: text_config.attention_dropout
    rate: float

    @property
    def is_jitter(self) -> bool:
        return _JITTER.search(self.field) is not None

    @property
    def words(self) -> str:
        """attn 0.1, of attn_pdrop."""
        return f"{_ENDINGS.sub('', self.field.rpartition('.')[2])} {self.rate:g}"


def rates_of(config: Mapping[str, Any]) -> tuple[Rate, ...]:
    """In the order of their names; `config` as transformers' `to_dict` gives it."""
    return tuple(sorted(_rates(config, ""), key=lambda one: one.field))


def _rates(config: Mapping[str, Any], prefix: str) -> Iterator[Rate]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _rates(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            random = _DROPOUT.search(name) or _JITTER.search(name)
            if random and not name.startswith(_OTHER_HEADS):
                yield Rate(field=prefix + name, rate=float(value))


def randomness_words(rates: Sequence[Rate]) -> str:
    """What the model has: "dropout (attn 0.1, resid 0.1)"."""
    dropout = [rate.words for rate in rates if not rate.is_jitter]
    jitter = [rate.words for rate in rates if rate.is_jitter]
    said = [f"dropout ({', '.join(dropout)})"] if dropout else []
    said += [f"router noise ({', '.join(jitter)})"] if jitter else []
    return " and ".join(said) or "a forward that draws random numbers, which no dropout field names"
