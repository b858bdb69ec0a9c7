"""Answers of inference servers, OpenAI-compatible or SGLang's → the rollout side of a step.

In: a JSON document, a list of answers or one per line. Out: PushedStep whose both sides are this
one, one sequence per choice; `--trainer FILE` brings the other. Sources: OpenAI's API reference and
vLLM's server (vllm/entrypoints/openai/…/protocol.py, 0.32): chat
`choices[].logprobs.content[].logprob`, completions `choices[].logprobs.token_logprobs`,
`choices[].token_ids` (return_token_ids), tokens `token_id:N` (return_tokens_as_token_ids),
`prompt_logprobs` of choices; a batch file's `response.body`. SGLang 0.5
(python/sglang/srt/managers/tokenizer_manager.py): `meta_info.output_token_logprobs`, triples of
log-probability, id and text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.plural import counted
from driftscope_probes.push.column_names import ColumnNames
from driftscope_probes.push.json_step import float_column, integer_column, parse_file, parse_object
from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_probes.push.readers.base import Opening
from driftscope_probes.push.readers.records import check_size, lines_of
from driftscope_probes.push.rules import PushError, checked_metadata

OPENAI, SGLANG = "an answer of an OpenAI-compatible server", "an answer of SGLang"
#: How vLLM names a token by its id where it is asked to.
TOKEN_ID: Final = "token_id:"
ASK_FOR_LOGPROBS: Final = (
    'ask for them: "logprobs": true (completions: 0, SGLang: "return_logprob": true)'
)
TRAINER_TOO: Final = (
    "score the same token ids with the trainer, store them as trainer_logprobs (JSON, npz, "
    "safetensors, Parquet or CSV), and give both: driftscope analyze {file} --trainer FILE; "
    "`driftscope probe paired` does all of it for a model on disk."
)


@dataclass(frozen=True, slots=True)
class AnsweredSequence:
    logprobs: NDArray[np.float32]  # [tokens]
    token_ids: NDArray[np.int32] | None  # [tokens]


def is_openai(record: object) -> bool:
    answer = _body(record)
    return isinstance(answer, Mapping) and isinstance(answer.get("choices"), list)


def is_sglang(record: object) -> bool:
    return isinstance(record, Mapping) and isinstance(record.get("meta_info"), Mapping)


def read_answers(path: Path, columns: ColumnNames) -> PushedStep:
    """Raises PushError where the other side is not given as well."""
    scored = columns.side == "trainer"
    found = [one for where, record in _records(path) for one in _sequences(where, record, scored)]
    tokens = sum(one.logprobs.size for one in found)
    if columns.side is None or not tokens:
        what = SGLANG if is_sglang(_first(path)) else OPENAI
        raise one_side(what, tokens, path.name)
    check_size(tokens, len(found), "its end")
    side = np.concatenate([one.logprobs for one in found])
    tensors: dict[str, NDArray[Any]] = {
        "rollout_logprobs": side,
        "trainer_logprobs": side,
        "cu_seqlens": np.cumsum([0, *(one.logprobs.size for one in found)]).astype(np.int64),
    }
    ids = [one.token_ids for one in found if one.token_ids is not None]
    if len(ids) == len(found):
        tensors["token_ids"] = np.concatenate(ids)
    return pushed_step(tensors, checked_metadata({}))


def one_side(what: str, tokens: int, file: str) -> PushError:
    held = f"log-probabilities of {counted(tokens, 'token')}" if tokens else "no log-probabilities"
    remedy = TRAINER_TOO.format(file=file)
    return PushError(
        f"it is {what}: one side only, the rollout's, with {held}; there is no trainer side to "
        "compare with.",
        remedy=remedy if tokens else f"{ASK_FOR_LOGPROBS}; then {remedy}",
    )


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Answers, with where each stands."""
    file = Opening.of(path)
    if file.first_line is not None:
        with path.open("rb") as stream:
            for number, line in lines_of(stream):
                yield f"line {number}", parse_object(line, f"line {number}")
        return
    large = "write one answer per line (.jsonl)"
    value = parse_file(path, "the answer", if_too_large=large)
    listed = value if isinstance(value, list) else [value]
    yield from ((f"answer {index}", one) for index, one in enumerate(listed))


def _first(path: Path) -> object:
    return next((record for _, record in _records(path)), None)


def _body(record: object) -> object:
    """Of a line in a batch file: the answer in it."""
    if isinstance(record, Mapping) and isinstance(record.get("response"), Mapping):
        return record["response"].get("body", record["response"])
    return record


def _sequences(where: str, record: object, scored: bool) -> Iterator[AnsweredSequence]:
    """scored: of a server that was given the tokens as a prompt, the prompt's where they are."""
    answer = _body(record)
    if is_sglang(answer):
        assert isinstance(answer, Mapping)
        yield _sglang(where, answer["meta_info"], scored)
    elif is_openai(answer):
        assert isinstance(answer, Mapping)
        choices = [one for one in answer["choices"] if isinstance(one, Mapping)]
        for number, choice in enumerate(sorted(choices, key=_index)):
            prompt = choice.get("prompt_logprobs") or answer.get("prompt_logprobs")
            whole = choice.get("logprobs")
            if isinstance(prompt, list) and (scored or not isinstance(whole, Mapping)):
                yield _scored(f"{where}: prompt_logprobs", prompt)
            else:
                yield _choice(f"{where}: choice {number}", choice, answer)
    else:
        raise PushError(
            f"{where} is no answer of a server: it has neither choices nor meta_info.",
            remedy="give the answers alone, one after another.",
        )


def _index(choice: Mapping[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _scored(where: str, prompt: list[Any]) -> AnsweredSequence:
    """Of each place a token's id and log-probability; vLLM puts the prompt's own token first."""
    places = [one for one in prompt if one is not None]  # the first token has none
    if not all(isinstance(one, Mapping) and one for one in places):
        raise PushError(
            f"{where} are not objects with a token's id and its log-probability.",
            remedy="give the answer as vLLM writes it.",
        )
    own = [next(iter(one.items())) for one in places]
    if not all(isinstance(held, Mapping) and str(token).isdecimal() for token, held in own):
        raise PushError(
            f"{where} are not under the ids of tokens.", remedy="give the answer as vLLM writes it."
        )
    return AnsweredSequence(
        float_column(where, [held.get("logprob") for _, held in own]),
        integer_column(where, [int(token) for token, _ in own], np.int32),
    )


def _sglang(where: str, meta: Mapping[str, Any], scored: bool) -> AnsweredSequence:
    output, prompt = meta.get("output_token_logprobs"), meta.get("input_token_logprobs")
    triples = prompt if prompt and (scored or not output) else output or []
    if isinstance(triples, list) and triples and isinstance(triples[0], list):
        triples = triples[1:] if triples[0][:1] == [None] else triples  # the first token has none
    if not isinstance(triples, list) or not all(
        isinstance(one, list) and len(one) >= 2 for one in triples
    ):
        raise PushError(
            f"{where}: output_token_logprobs are not lists of log-probability, id and text.",
            remedy="give the answer as SGLang's /generate writes it.",
        )
    return AnsweredSequence(
        float_column(f"{where}: output_token_logprobs", [one[0] for one in triples]),
        integer_column(f"{where}: output_token_logprobs", [one[1] for one in triples], np.int32),
    )


def _choice(where: str, choice: Mapping[str, Any], answer: Mapping[str, Any]) -> AnsweredSequence:
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, Mapping):
        return AnsweredSequence(np.zeros(0, np.float32), None)
    values: list[Any]
    tokens: object
    if isinstance(logprobs.get("content"), list):
        items = [one for one in logprobs["content"] if isinstance(one, Mapping)]
        values, tokens = [one.get("logprob") for one in items], [one.get("token") for one in items]
    else:
        values, tokens = list(logprobs.get("token_logprobs") or []), logprobs.get("tokens")
    ids = _ids(where, choice, logprobs, tokens)
    skipped = _prompt(values, answer)
    values = values[skipped:]
    ids = None if ids is None else ids[len(ids) - len(values) :]
    return AnsweredSequence(float_column(f"{where}: logprobs", values), ids)


def _prompt(values: list[Any], answer: Mapping[str, Any]) -> int:
    """Tokens of the prompt, where it was echoed: its first one has no log-probability."""
    usage = answer.get("usage")
    prompt = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    echoed = bool(values) and values[0] is None
    if not echoed:
        return 0
    return prompt if isinstance(prompt, int) and 0 < prompt <= len(values) else 1


def _ids(
    where: str, choice: Mapping[str, Any], logprobs: Mapping[str, Any], tokens: object
) -> NDArray[np.int32] | None:
    for listed in (choice.get("token_ids"), logprobs.get("token_ids")):
        if isinstance(listed, list):
            return integer_column(f"{where}: token_ids", listed, np.int32)
    named = tokens if isinstance(tokens, list) else []
    numbers = [one.removeprefix(TOKEN_ID) for one in named if isinstance(one, str)]
    if not numbers or len(numbers) != len(named) or not all(one.isdecimal() for one in numbers):
        return None
    if not all(one.startswith(TOKEN_ID) for one in named):  # digits may be the text of a token
        return None
    return integer_column(f"{where}: tokens", [int(one) for one in numbers], np.int32)
