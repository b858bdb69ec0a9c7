"""Faults of context: the trainer reads something else before the tokens than the engine did.

In: a lab, a severity, a setting. Out: the pushed step. Templates, system prompts, turns that lost
what was thought in them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.lab import Lab, Prompts
from driftscope_probes.diagnosis.drill.pool import Turn, between, chosen, pair, scores
from driftscope_probes.diagnosis.drill.transcript import (
    Part,
    conversation_step,
    masked_part,
    turn_part,
    turns_of,
)
from driftscope_probes.diagnosis.drill.vocabulary import Vocabulary, vocabulary
from driftscope_probes.push.pushed_step import PushedStep

#: System prompts from a word to a paragraph: the longer, the further the distributions part.
SYSTEM_PROMPTS: tuple[str, ...] = (
    "Be kind.",
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly and in plain words.",
    "You are a pirate. Answer every question in rhyme, and never use the letter e.",
    "Respond only with Python code in a single block. Explain nothing, and add no comments. "
    "If the question has no answer in code, print an empty list.",
)


def other_system_prompt(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The trainer's template puts a system prompt in front that the engine did not get."""
    sound = pair(lab, setting)
    words = vocabulary(lab.model_folder)
    text = SYSTEM_PROMPTS[min(int(severity * len(SYSTEM_PROMPTS)), len(SYSTEM_PROMPTS) - 1)]
    system = words.message("system", text)
    prompts = tuple(system + prompt for prompt in sound.sampled.prompts)
    return lab.step(sound.sampled, scores(lab, setting, replace(sound.sampled, prompts=prompts)))


def other_template(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The first token lost, no header before the answer, or no template at all."""
    sound = pair(lab, setting)
    words = vocabulary(lab.model_folder)
    prompts = tuple(_worn(words, prompt, severity) for prompt in sound.sampled.prompts)
    return lab.step(sound.sampled, scores(lab, setting, replace(sound.sampled, prompts=prompts)))


def _worn(words: Vocabulary, prompt: tuple[int, ...], severity: float) -> tuple[int, ...]:
    if severity < 1 / 3:
        return prompt[1:]
    if severity < 2 / 3:
        return words.without_last_header(prompt)
    return words.without_markers(prompt)


def without_thinking(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """Earlier answers lose their first part, as templates drop what stands in <think>."""
    turns = turns_of(lab, setting, 2)
    kept_part = 1.0 - between(0.3, 0.9, severity)
    first = turns[0]
    answers = tuple(
        ids[len(ids) - max(1, round(kept_part * len(ids))) :] for ids in first.sampled.responses
    )
    return _scored_behind(lab, setting, turns, [answers], rng)


def history_dropped(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """Three turns; in some rows the trainer's window leaves earlier answers out as a whole."""
    turns = turns_of(lab, setting, 3)
    rows = set(chosen(setting.sequences, between(0.3, 1.0, severity), rng).tolist())
    answers = [
        tuple(() if row in rows else ids for row, ids in enumerate(turn.sampled.responses))
        for turn in turns[:-1]
    ]
    return _scored_behind(lab, setting, turns, answers, rng)


def _scored_behind(
    lab: Lab,
    setting: Setting,
    turns: tuple[Turn, ...],
    answers: list[Prompts],
    rng: np.random.Generator,
) -> PushedStep:
    """`answers`: of the turns before the last, as the trainer's context holds them afterwards."""
    contexts = turns[0].sampled.prompts
    parts: list[Part] = []
    present = bool(rng.random() < 0.5)
    for index, turn in enumerate(turns):
        scored = scores(lab, setting, replace(turn.sampled, prompts=contexts))
        parts.append(turn_part(turn, scored))
        if index + 1 == len(turns):
            break
        parts.append(masked_part(turn, present=present))
        joined = zip(contexts, answers[index], turn.observations, strict=True)
        contexts = tuple(before + answer + reply for before, answer, reply in joined)
    return conversation_step(lab, turns, parts, with_turns=bool(rng.random() < 0.5))


INJECTIONS: tuple[Injection, ...] = (
    Injection(
        "chat_template_mismatch",
        "a",
        "the trainer's template adds a system prompt that the engine did not get",
        other_system_prompt,
    ),
    Injection(
        "chat_template_mismatch",
        "b",
        "the trainer's prompt lacks its first token, the answer's header, or the whole template",
        other_template,
    ),
    Injection(
        "thinking_stripped",
        "a",
        "what was thought in the first turn is not in the trainer's context of the second",
        without_thinking,
    ),
    Injection(
        "thinking_stripped",
        "b",
        "earlier answers are not in the trainer's context at all, in some conversations",
        history_dropped,
    ),
)
