"""Tokens: what rollout and trainer say about the same tokens, with the one check of such arrays.

In: arrays as a caller has them. Out: values that fit together, or the reason why they do not.
Free of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftscope_probes.errors import ProbeError, TraceError

INT32 = np.iinfo(np.int32)  # the wire carries int32; it also keeps every difference inside int64
#: One value per sequence: who made it, and from what.
SEQUENCE_LABELS = ("rank", "replica", "cached_tokens", "prompt_lengths", "environment")
CUMULATIVE = "give cumulative lengths: 0, len_0, len_0 + len_1, …, tokens."


@dataclass(frozen=True, slots=True, eq=False)
class Extras:
    """What else is known of the tokens; each array that is there adds numbers or plots."""

    token_ids: NDArray[np.integer[Any]] | None = None  # [tokens], the same on both sides
    entropy: NDArray[np.floating[Any]] | None = None  # [tokens] nats, the trainer's, all classes
    position_ids: NDArray[np.integer[Any]] | None = None  # [tokens] index, prompt included
    turn_ids: NDArray[np.integer[Any]] | None = None  # [tokens] turn of the conversation
    behavior_version: NDArray[np.integer[Any]] | None = None  # [sequences] step that rolled out
    token_behavior_version: NDArray[np.integer[Any]] | None = None  # [tokens], partial rollouts
    rank: NDArray[np.integer[Any]] | None = None  # [sequences] trainer rank that scored
    replica: NDArray[np.integer[Any]] | None = None  # [sequences] engine replica that sampled
    cached_tokens: NDArray[np.integer[Any]] | None = None  # [sequences] prompt tokens from a cache
    prompt_lengths: NDArray[np.integer[Any]] | None = None  # [sequences] tokens of the prompt
    environment: NDArray[np.integer[Any]] | None = None  # [sequences] index into `environments`
    train_version: int | None = None  # train step whose weights scored

    def lag(self) -> NDArray[np.int64] | None:
        """[sequences] train_version − behavior_version; TraceError where that is not a lag."""
        return None if self.behavior_version is None else self.lag_of(self.behavior_version)

    def lag_of(self, versions: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Train steps between `versions` and train_version; TraceError where that is not a lag."""
        if self.train_version is None:
            raise TraceError(
                "behavior_version was given without train_version.",
                remedy="give the train step whose weights scored the tokens as train_version.",
            )
        lag: NDArray[np.int64] = self.train_version - versions.astype(np.int64)
        if lag.size and lag.min() < 0:
            raise TraceError(
                f"behavior_version reaches {versions.max()}, train_version is "
                f"{self.train_version}.",
                remedy="a rollout cannot come from later weights: count both in the same steps.",
            )
        return lag


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Sequence i occupies the half-open range cu_seqlens[i]:cu_seqlens[i + 1]."""

    rollout: NDArray[np.floating[Any]]  # [tokens] nats, float32 or float64 as given
    trainer: NDArray[np.floating[Any]]  # [tokens] nats, float32 or float64 as given
    cu_seqlens: NDArray[np.int64]  # [sequences + 1]
    mask: NDArray[np.bool_] | None = None  # [tokens], True where a token takes part; None: all do
    extras: Extras = Extras()

    @property
    def sequences(self) -> int:
        return int(self.cu_seqlens.size - 1)

    @property
    def takes_part(self) -> NDArray[np.bool_]:
        """[tokens] the mask, or what stands for it where all do."""
        return np.ones(self.rollout.size, np.bool_) if self.mask is None else self.mask

    def token_lag(self) -> NDArray[np.int64] | None:
        """[tokens] train steps, 0 where a token is masked; None: no version of each token is known.

        Raises TraceError where versions give no lag."""
        versions = self.extras.token_behavior_version
        if versions is None:
            return None
        lag = np.zeros(versions.size, np.int64)
        lag[self.takes_part] = self.extras.lag_of(versions[self.takes_part])
        return lag

    def lag(self) -> NDArray[np.int64] | None:
        """[sequences] train steps; of a partial rollout its oldest token's. As token_lag()."""
        by_token = self.token_lag()
        if by_token is None:
            return self.extras.lag()
        oldest = np.zeros(self.sequences, np.int64)
        filled = np.flatnonzero(np.diff(self.cu_seqlens))
        if filled.size:
            oldest[filled] = np.maximum.reduceat(by_token, self.cu_seqlens[:-1][filled])
        return oldest

    def sequence(self, index: int) -> slice:
        return slice(int(self.cu_seqlens[index]), int(self.cu_seqlens[index + 1]))


def checked_tokens(
    rollout: ArrayLike,
    trainer: ArrayLike,
    cu_seqlens: ArrayLike,
    mask: ArrayLike | None = None,
    extras: Extras | None = None,
) -> Tokens:
    """Check shapes and dtypes; raise TraceError where they cannot be compared."""
    rollout_array = _logprobs("rollout_logprobs", rollout)
    trainer_array = _logprobs("trainer_logprobs", trainer)
    if rollout_array.shape != trainer_array.shape:
        raise TraceError(
            f"rollout_logprobs has {rollout_array.size} tokens, "
            f"trainer_logprobs has {trainer_array.size}.",
            remedy="score exactly the rollout's tokens: one value per token on both sides.",
        )
    tokens = rollout_array.size
    limits = _cu_seqlens(cu_seqlens, tokens)
    return Tokens(
        rollout_array,
        trainer_array,
        limits,
        None if mask is None else _mask(mask, tokens),
        Extras() if extras is None else _checked_extras(extras, tokens, limits.size - 1),
    )


def cu_seqlens_fault(cu_seqlens: NDArray[np.integer[Any]], tokens: int) -> str | None:
    """What keeps cu_seqlens [sequences + 1] from rising from 0 to `tokens`, as a sentence."""
    outside = np.flatnonzero((cu_seqlens < 0) | (cu_seqlens > tokens))
    if outside.size:
        first = int(outside[0])
        return f"cu_seqlens[{first}] is {cu_seqlens[first]}, outside 0 to {tokens} tokens."
    if cu_seqlens.size < 2 or cu_seqlens[0] != 0 or cu_seqlens[-1] != tokens:
        shown = np.array2string(cu_seqlens, threshold=8)
        return f"cu_seqlens {shown} does not run from 0 to the number of tokens, {tokens}."
    falling = np.flatnonzero(cu_seqlens[1:] < cu_seqlens[:-1])
    if falling.size:
        before, after = cu_seqlens[falling[0] : falling[0] + 2]
        return f"cu_seqlens falls from {before} to {after} at {falling[0] + 1}."
    return None


def check_cu_seqlens(cu_seqlens: NDArray[np.integer[Any]], tokens: int) -> None:
    """Raise TraceError unless cu_seqlens is a 1-D cumulative length vector ending at `tokens`."""
    if cu_seqlens.ndim != 1 or cu_seqlens.size < 2:
        raise TraceError(
            f"cu_seqlens has shape {cu_seqlens.shape}.",
            remedy="give a 1-D vector [sequences + 1] that starts with 0.",
        )
    if cu_seqlens_fault(cu_seqlens, tokens):
        shown = np.array2string(cu_seqlens, threshold=8)
        raise TraceError(
            f"cu_seqlens {shown} does not rise from 0 to the number of tokens, {tokens}.",
            remedy=CUMULATIVE,
        )


def check_token_ids(rollout: NDArray[np.integer[Any]], trainer: NDArray[np.integer[Any]]) -> None:
    """For our own probes, which score the very tokens they sampled; a pushed step may differ.

    Masked tokens too: one that differs changes what every later token is conditioned on.
    """
    unequal = np.flatnonzero(rollout != trainer)
    if unequal.size:
        first = int(unequal[0])
        raise TraceError(
            f"{unequal.size} token ids differ between rollout and trainer, the first at "
            f"token {first}: {int(rollout[first])} against {int(trainer[first])}.",
            remedy="pass the engine's token ids to the trainer; never re-tokenise the text.",
        )


def check_labels(
    extras: Extras, error: type[ProbeError], environments: Sequence[str] | None = None
) -> None:
    """Raise `error` where a label of a sequence cannot be true.

    environments: the names that `environment` counts through; None where nobody listed them.
    """
    for name in SEQUENCE_LABELS:
        values = getattr(extras, name)
        if values is not None and (values < 0).any():
            first = int(np.argmax(values < 0))
            raise error(
                f"{name} is {values[first]} for sequence {first}; accepted is 0 and above.",
                remedy=f"count {name} from 0; leave the whole of it out where it is not known.",
            )
    _check_cached(extras, error)
    if extras.environment is not None and environments is not None:
        _check_environment(extras.environment, environments, error)


def _check_cached(extras: Extras, error: type[ProbeError]) -> None:
    cached, prompts = extras.cached_tokens, extras.prompt_lengths
    if cached is None or prompts is None or not (cached > prompts).any():
        return
    first = int(np.argmax(cached > prompts))
    raise error(
        f"cached_tokens is {cached[first]} for sequence {first}, whose prompt_lengths is "
        f"{prompts[first]}; accepted is at most the length of the prompt.",
        remedy="count in cached_tokens only the prompt's tokens that came from the prefix cache.",
    )


def _check_environment(
    environment: NDArray[np.integer[Any]], names: Sequence[str], error: type[ProbeError]
) -> None:
    outside = environment >= len(names)
    if not outside.any():
        return
    first = int(np.argmax(outside))
    accepted = f"0 to {len(names) - 1}" if names else "none"
    raise error(
        f"environment is {environment[first]} for sequence {first}, and the metadata entry "
        f"environments lists {len(names)}: accepted is {accepted}.",
        remedy="list every environment in environments, separated by commas, and count from 0.",
    )


def _as_array(name: str, value: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:  # ragged lists, tensors of a dtype numpy lacks
        raise TraceError(
            f"{name} is not an array: {error}",
            remedy=f"give {name} as a 1-D numpy array.",
        ) from error


def _logprobs(name: str, value: ArrayLike) -> NDArray[np.floating[Any]]:
    array = _as_array(name, value)
    if array.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TraceError(
            f"{name} has dtype {array.dtype}; accepted are float32 and float64.",
            remedy="widen lower precisions to float32, which is exact; never round to fit.",
        )
    if array.ndim != 1:
        raise TraceError(
            f"{name} has shape {array.shape}; accepted is one value per token, [tokens].",
            remedy="concatenate the sequences and give their limits in cu_seqlens.",
        )
    return array


def _cu_seqlens(value: ArrayLike, tokens: int) -> NDArray[np.int64]:
    array = _as_array("cu_seqlens", value)
    if not np.issubdtype(array.dtype, np.integer):
        raise TraceError(
            f"cu_seqlens has dtype {array.dtype}; accepted are integers.",
            remedy="give cumulative lengths as int32 or int64: 0, len_0, len_0 + len_1, …, tokens.",
        )
    limits = array.astype(np.int64)
    check_cu_seqlens(limits, tokens)
    return limits


def outside_mask(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value is neither 0 nor 1."""
    outside: NDArray[np.bool_] = (values != 0) & (values != 1)
    return outside


def _mask(value: ArrayLike, tokens: int) -> NDArray[np.bool_]:
    array = _as_array("mask", value)
    if array.shape != (tokens,):
        raise TraceError(
            f"mask has shape {array.shape}, the log-probabilities have shape ({tokens},).",
            remedy="give one mask value per token.",
        )
    if array.dtype == np.bool_:
        return array
    if not np.issubdtype(array.dtype, np.integer) or np.any(outside_mask(array)):
        raise TraceError(
            f"mask has dtype {array.dtype} or values other than 0 and 1.",
            remedy="give booleans, or integers 0 (left out) and 1 (takes part).",
        )
    return array.astype(np.bool_)


def _checked_extras(extras: Extras, tokens: int, sequences: int) -> Extras:
    checked = Extras(
        token_ids=_integers("token_ids", extras.token_ids, tokens, "token"),
        entropy=None if extras.entropy is None else _entropy(extras.entropy, tokens),
        position_ids=_integers("position_ids", extras.position_ids, tokens, "token"),
        turn_ids=_integers("turn_ids", extras.turn_ids, tokens, "token"),
        behavior_version=_integers(
            "behavior_version", extras.behavior_version, sequences, "sequence"
        ),
        token_behavior_version=_integers(
            "token_behavior_version", extras.token_behavior_version, tokens, "token"
        ),
        **{
            name: _integers(name, getattr(extras, name), sequences, "sequence")
            for name in SEQUENCE_LABELS
        },
        train_version=extras.train_version,
    )
    check_labels(checked, TraceError)
    return checked


def _entropy(value: ArrayLike, tokens: int) -> NDArray[np.float64]:
    array = _as_array("entropy", value)
    if array.shape != (tokens,) or array.dtype not in (np.float32, np.float64):
        raise TraceError(
            f"entropy has shape {array.shape} and dtype {array.dtype}; "
            f"accepted is ({tokens},) in float32 or float64.",
            remedy="give one entropy per token, in nats, also for masked tokens.",
        )
    return array.astype(np.float64, copy=False)


def _integers(name: str, value: ArrayLike | None, size: int, of: str) -> NDArray[np.int64] | None:
    if value is None:
        return None
    array = _as_array(name, value)
    if array.shape != (size,) or not np.issubdtype(array.dtype, np.integer):
        raise TraceError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; "
            f"accepted are integers of shape ({size},).",
            remedy=f"give one integer per {of}.",
        )
    if array.size and not INT32.min <= int(array.min()) <= int(array.max()) <= INT32.max:
        raise TraceError(
            f"{name} lies between {array.min()} and {array.max()}; accepted is what int32 holds.",
            remedy=f"count {name} from 0.",
        )
    return array.astype(np.int64)
