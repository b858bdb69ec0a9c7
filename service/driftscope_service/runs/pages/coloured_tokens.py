"""The tokens of a sequence as coloured text."""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from driftscope_probes.models import catalogue
from driftscope_probes.tokens import Tokens
from driftscope_service.runs.last_used import LastUsed
from driftscope_service.settings import Settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer


#: The largest in use have 30 MB; the operator's folders are trusted, mistakes are not ruled out.
MAX_TOKENIZER_BYTES: Final = 64 * 2**20
#: One of 250,000 words takes 100 MB.
MOST_TOKENIZERS: Final = 2
#: What a byte-level tokenizer answers for a part of a character.
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


class TokenText:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def of(self, token_id: int) -> str:
        """The id itself where the tokenizer does not know it."""
        try:
            text: str = self._tokenizer.decode([token_id], skip_special_tokens=False)
            if not text or _REPLACEMENT in text:
                text = self._tokenizer.id_to_token(token_id) or ""
        except (OverflowError, TypeError):  # a negative id
            text = ""
        return text or f"#{token_id}"


class TokenTexts:
    """Those used last stay in memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._texts: LastUsed[Path, TokenText | None] = LastUsed(MOST_TOKENIZERS)

    def of_model(self, names: Sequence[str | None]) -> TokenText | None:
        """Of the first of `names` that has one."""
        for name in names:
            path = None if name is None else tokenizer_path(name, self._settings.models)
            if path is not None and (found := self._load(path)) is not None:
                return found
        return None

    def _load(self, path: Path) -> TokenText | None:
        # One at a time: each takes a core and 100 MB.
        with self._lock:
            return self._texts.get(path, lambda: _token_text(path))


def tokenizer_path(name: str, models: Mapping[str, Path]) -> Path | None:
    known = catalogue.find(name)
    folder = models.get(name) if known is None else known.folder
    if folder is None:
        return None
    path = folder / "tokenizer.json"
    return path if path.is_file() and path.stat().st_size <= MAX_TOKENIZER_BYTES else None


def _token_text(path: Path) -> TokenText | None:
    # Comes with transformers; a service alone shows ids.
    if importlib.util.find_spec("tokenizers") is None:
        return None
    from tokenizers import Tokenizer

    try:
        return TokenText(Tokenizer.from_file(str(path)))
    except Exception:  # the library raises no other type for a malformed file
        return None


#: What a screen takes in; more are a click away.
WINDOW: Final = 400
#: Tokens before the one that matters, for its context.
LEAD: Final = 120
WORST_TOKENS: Final = 12
#: |Δ| in nats from which on a token gets the next shade: BF16 rounding, its tail, a ratio beyond
#: [0.5, 2], a ratio beyond 7.
SHADES: Final = (0.05, 0.2, math.log(2), 2.0)
_MARKS: Final[Mapping[str, str]] = {"\n": "↵", "\t": "⇥", "\r": "␍"}


@dataclass(frozen=True, slots=True)
class ColouredToken:
    index: int  # in the sequence
    text: str
    token_id: int | None
    rollout: float | None  # nats; None: not finite
    trainer: float | None
    diff: float | None
    masked: bool
    rollout_said: str = ""  # NaN, +∞ or −∞; "": finite
    trainer_said: str = ""

    @property
    def shade(self) -> str:
        """Class of the style sheet."""
        if self.masked:
            return "masked"
        if self.diff is None:
            return "bad-number"
        level = sum(abs(self.diff) >= edge for edge in SHADES)
        return "t0" if not level else f"{'more' if self.diff > 0 else 'less'}{level}"


@dataclass(frozen=True, slots=True)
class TokenWindow:
    first: int
    tokens: list[ColouredToken]
    length: int  # of the sequence
    worst: list[ColouredToken]  # of the whole sequence, worst first
    decoded: bool
    has_ids: bool

    @property
    def earlier(self) -> int | None:
        return max(0, self.first - WINDOW) if self.first else None

    @property
    def later(self) -> int | None:
        after = self.first + len(self.tokens)
        return after if after < self.length else None


def token_window(sequence: Tokens, text: TokenText | None, first: int | None) -> TokenWindow:
    """`first`: None begins shortly before the token with the largest |Δ|."""
    with np.errstate(invalid="ignore"):
        diff = np.abs(sequence.trainer.astype(np.float64) - sequence.rollout)
    # What is not finite is worst of all; a masked token counts for nothing.
    size = np.where(sequence.takes_part, np.where(np.isfinite(diff), diff, np.inf), -1.0)
    worst = [place for place in np.argsort(-size, kind="stable").tolist() if size[place] >= 0]
    if first is None:
        first = max(0, worst[0] - LEAD) if worst else 0
        first = 0 if size.size <= WINDOW else first
    window = range(first, min(first + WINDOW, size.size))
    return TokenWindow(
        first=first,
        tokens=[_token(sequence, text, place) for place in window],
        length=size.size,
        worst=[_token(sequence, text, place) for place in worst[:WORST_TOKENS]],
        decoded=text is not None and sequence.extras.token_ids is not None,
        has_ids=sequence.extras.token_ids is not None,
    )


def _token(sequence: Tokens, text: TokenText | None, place: int) -> ColouredToken:
    ids = sequence.extras.token_ids
    token_id = None if ids is None else int(ids[place])
    if token_id is None:
        shown = str(place)
    else:
        shown = f"#{token_id}" if text is None else _visible(text.of(token_id))
    rollout, trainer = _finite(sequence.rollout[place]), _finite(sequence.trainer[place])
    known = rollout is not None and trainer is not None
    return ColouredToken(
        index=place,
        text=shown,
        token_id=token_id,
        rollout=rollout,
        trainer=trainer,
        diff=trainer - rollout if known else None,  # type: ignore[operator]  # both are known
        masked=not sequence.takes_part[place],
        rollout_said=_said(sequence.rollout[place]),
        trainer_said=_said(sequence.trainer[place]),
    )


def _visible(text: str) -> str:
    """A token that is nothing but a line feed has a colour as well, and no control character of a
    sampled text changes what the page says."""
    return "".join(
        _MARKS.get(character) or (character if character.isprintable() else "\N{MIDDLE DOT}")
        for character in text
    )


def _said(value: np.float32) -> str:
    if np.isfinite(value):
        return ""
    return "NaN" if np.isnan(value) else "+∞" if value > 0 else "−∞"


def _finite(value: np.float32) -> float | None:
    return float(value) if np.isfinite(value) else None
