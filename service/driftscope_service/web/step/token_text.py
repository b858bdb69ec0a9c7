"""What a token id stands for, where the step names a model whose tokenizer is on this machine.

In: a model name of the catalogue or of the settings, never a path. Out: TokenText, or None.
"""

from __future__ import annotations

import importlib.util
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from driftscope_probes.models import catalogue
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
        self._known: OrderedDict[Path, TokenText | None] = OrderedDict()

    def of_model(self, names: Sequence[str | None]) -> TokenText | None:
        """Of the first of `names` that has one."""
        for name in names:
            path = None if name is None else tokenizer_path(name, self._settings.models)
            if path is not None and (found := self._load(path)) is not None:
                return found
        return None

    def _load(self, path: Path) -> TokenText | None:
        with self._lock:
            if path not in self._known:
                self._known[path] = _token_text(path)
            self._known.move_to_end(path)
            while len(self._known) > MOST_TOKENIZERS:
                self._known.popitem(last=False)
            return self._known[path]


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
