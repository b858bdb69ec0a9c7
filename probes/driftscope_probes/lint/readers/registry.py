"""Sources of a lint → settings: fetches files within limits, and asks every reader. Free of torch.

In: paths, or content that somebody posted. Out: Settings, or RequestError with a remedy. Nothing
is executed or unpickled, and no name in a file is followed to another file or host.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import yaml

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.base import Settings
from driftscope_probes.lint.readers import (
    environment,
    hugging_face,
    nemo_rl,
    prime_rl,
    slime,
    trl,
    verl,
    vllm_arguments,
)
from driftscope_probes.lint.readers.base import Document, Reader
from driftscope_probes.lint.readers.model_weights import weights_settings
from driftscope_probes.lint.readers.yaml_text import load_yaml

READERS: Final[tuple[Reader, ...]] = (
    hugging_face.Config(),
    hugging_face.Generation(),
    hugging_face.Tokenizer(),
    hugging_face.Adapter(),
    vllm_arguments.VllmArguments(),
    environment.Environment(),
    verl.Verl(),
    trl.Trl(),
    prime_rl.PrimeRl(),
    nemo_rl.NemoRl(),
    slime.Slime(),
)
#: Hugging Face's largest config.json, with quantization_config of every layer, has 1.5 MB.
LARGEST: Final = 4 * 1024**2
#: A folder of a model is read by these names alone: its other files are weights and vocabularies.
MODEL_FILES: Final = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"),
    "adapter_config.json",
)
#: Of these, what a folder cannot be checked without.
SAYS_THE_MODEL: Final = frozenset({"config.json", "adapter_config.json"})
#: Files of any other folder that may hold settings.
SUFFIXES: Final = frozenset({".yaml", ".yml", ".toml", ".json", ".sh", ".env", ".txt", ".slurm"})
#: Of one folder; a lint is no search through a tree.
MOST_FILES: Final = 50
_YAML_LINE: Final = re.compile(r"[\w.\"'/-]+\s*:(\s|$)")
_TOML_LINE: Final = re.compile(r"\[[\w.\"-]+\]\s*$")
#: A key of TOML, quoted or not. Python's parser takes the square of its dots: hours for 250,000.
_DOTTED: Final = re.compile(r"[\w\"'. \t-]+")
MOST_DOTS: Final = 200
_FORMS: Final[Mapping[str, str]] = {
    ".json": "json",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    **dict.fromkeys((".sh", ".env", ".slurm", ".sbatch", ".py"), ""),
}


_PARSERS_SAY: Final = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError)


def read_paths(paths: Iterable[str | Path]) -> Settings:
    """All of them added up: a later one overrides an earlier one."""
    known = Settings()
    for path in paths:
        known += read(path)
    return known


def read(path: str | Path) -> Settings:
    """A file or a folder. Raises RequestError for what is missing, too large or not understood."""
    found = Path(path).expanduser()
    if found.is_dir():
        return _read_folder(found)
    return read_text(str(path), _fetch(found))


def read_text(name: str, text: str) -> Settings:
    """Content under the name that findings are to give for it. Its suffix says its form."""
    known = settings_in(document(name, text))
    if known is None:
        raise RequestError(f"Nothing in {name} is understood.", remedy=_what_is_read())
    return known


def document(name: str, text: str) -> Document:
    """Raises RequestError for what is too large, or not of the form that its suffix says."""
    if len(text) > LARGEST:
        raise _too_large(name)
    return Document(name, text, _table(name, text))


def documents(path: str | Path) -> tuple[Document, ...]:
    """Of a file, or of a folder's files, whether or not a reader understands them."""
    found = Path(path).expanduser()
    if not found.is_dir():
        return (document(str(path), _fetch(found)),)
    parsed = []
    for file in _files_of(found):
        with suppress(RequestError):
            parsed.append(document(str(file), _fetch(file)))
    return tuple(parsed)


def settings_in(document: Document) -> Settings | None:
    """None: no reader understands it."""
    readers = [reader for reader in READERS if reader.recognises(document)]
    if not readers:
        return None
    return sum((reader.read(document) for reader in readers), Settings())


def _read_folder(folder: Path) -> Settings:
    """A model's files, or else all files of it that are understood: others may lie beside them."""
    files = _files_of(folder)
    if files and files[0].name in MODEL_FILES:
        known = [_of_model(document(str(file), _fetch(file))) for file in files]
        return sum(known, Settings()) + weights_settings(folder)
    found = []
    for file in files:
        with suppress(RequestError):
            found.append(read(file))
    if not found:
        raise RequestError(
            f"{folder} holds no settings: neither {', '.join(MODEL_FILES)} nor another file that "
            "is understood.",
            remedy=_what_is_read(),
        )
    return sum(found, Settings())


def _of_model(document: Document) -> Settings:
    """A generation_config.json may say no more than who wrote it; a config says what the model is.
    Raises RequestError."""
    known = settings_in(document)
    if known is None and Path(document.name).name in SAYS_THE_MODEL:
        raise RequestError(
            f"{document.name} is not the config of a model or an adapter.",
            remedy="give a folder as transformers or PEFT saves it: its config.json names "
            "model_type, architectures and sizes.",
        )
    return known or Settings()


def _files_of(folder: Path) -> list[Path]:
    """A model's, or else those that may hold settings."""
    model = [folder / name for name in MODEL_FILES if (folder / name).is_file()]
    files = (file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    return model or sorted(files)[:MOST_FILES]


def _fetch(path: Path) -> str:
    """A regular file's text; devices and pipes, which have no end, are not opened."""
    if not path.is_file():
        raise RequestError(f"There is no file {path}.", remedy=_what_is_read())
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except OSError as error:
        raise RequestError(
            f"{path} cannot be read: {error.strerror}.", remedy="make it readable, or copy it."
        ) from error
    if len(raw) > LARGEST:
        raise _too_large(str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not text in UTF-8.", remedy=_what_is_read()) from error


def _table(name: str, text: str) -> Mapping[str, Any]:
    """Empty where the content is neither JSON, YAML nor TOML with keys at its top."""
    suffix = Path(name).suffix.lower()
    form = _FORMS.get(suffix)
    try:
        value = _parse(_guessed(text) if form is None else form, text)
    # Beside the parsers' own errors: too deep, and what Python says of "!!int x" or "!!bool x".
    except (*_PARSERS_SAY, OverflowError, RecursionError) as error:
        if form is None:  # only guessed: it may well be prose
            return {}
        raise _malformed(name, form, error) from error
    return value if isinstance(value, dict) else {}


def _guessed(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if first.startswith("{"):
        return "json"
    if _TOML_LINE.match(first):
        return "toml"
    return "yaml" if _YAML_LINE.match(first) else ""


def _parse(form: str, text: str) -> Any:
    if form == "json":
        return json.loads(text)
    if form == "toml":
        if any(run[0].count(".") > MOST_DOTS for run in _DOTTED.finditer(text)):
            raise ValueError(f"a key has more than {MOST_DOTS} dots")
        return tomllib.loads(text)
    return load_yaml(text) if form == "yaml" else {}


def _malformed(name: str, form: str, error: Exception) -> RequestError:
    said = " ".join(str(error).split())[:300]
    return RequestError(
        f"{name} is not valid {form.upper()}: {said or type(error).__name__}.",
        remedy="correct it, or give it the suffix of what it is (.json, .yaml, .toml, .sh, .env).",
    )


def _too_large(name: str) -> RequestError:
    return RequestError(
        f"{name} is larger than {LARGEST // 1024**2} MiB, the limit for settings.",
        remedy="give the file with the settings alone; weights and vocabularies are not read.",
    )


def _what_is_read() -> str:
    return "give one of: " + "; ".join(reader.reads for reader in READERS) + "."
