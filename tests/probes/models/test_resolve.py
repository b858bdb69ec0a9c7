from pathlib import Path

import pytest

from driftscope_probes.errors import ModelError
from driftscope_probes.models.fetch import resolve


def test_catalogue_name_is_built(own_home: Path) -> None:
    model = resolve("tiny-random-llama")
    assert model.origin == "catalogue"
    assert model.path == own_home / "models" / "tiny-random-llama"
    assert resolve("tiny-random-llama") == model


def test_folder(llama_copy: Path, own_home: Path) -> None:
    model = resolve(str(llama_copy))
    assert model.origin == "folder"
    assert model.path == llama_copy
    assert model.revision is None
    assert not own_home.exists()


def test_relative_and_home_paths(llama_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(llama_copy.parent)
    monkeypatch.setenv("HOME", str(llama_copy.parent))
    assert resolve("llama").path == llama_copy
    assert resolve("./llama").path == llama_copy
    assert resolve("~/llama").path == llama_copy


def test_a_catalogue_name_wins_over_a_folder(
    llama_copy: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama_copy.rename(llama_copy.parent / "tiny-random-moe")
    monkeypatch.chdir(llama_copy.parent)
    assert resolve("tiny-random-moe").origin == "catalogue"
    assert resolve("./tiny-random-moe").origin == "folder"


def test_a_file(llama_copy: Path) -> None:
    with pytest.raises(ModelError, match="is a file; a folder"):
        resolve(str(llama_copy / "model.safetensors"))


@pytest.mark.parametrize("name", ["/no/such/folder", "./no/such", "../no", "~/no/such", "a/b/c"])
def test_no_such_folder(name: str) -> None:
    with pytest.raises(ModelError, match="There is no folder"):
        resolve(name)


@pytest.mark.parametrize("name", ["smollm2", "", "a\0b", "~", "x" * 5000])
def test_unknown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/no/such/home")
    with pytest.raises(ModelError, match="There is no model called") as caught:
        resolve(name)
    assert "smollm2-135m" in caught.value.remedy


def test_a_bad_folder_is_refused_in_the_words_of_the_checks(llama_copy: Path) -> None:
    (llama_copy / "model.safetensors").rename(llama_copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="a pickle"):
        resolve(str(llama_copy))
