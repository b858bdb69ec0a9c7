from pathlib import Path

import pytest

from driftscope_probes.models.cache import home, models_dir


def test_variable_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRIFTSCOPE_HOME", str(tmp_path / "elsewhere"))
    assert home() == tmp_path / "elsewhere"
    assert models_dir() == tmp_path / "elsewhere" / "models"
    assert not home().exists()


@pytest.mark.parametrize("value", [None, ""])
def test_default_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    if value is None:
        monkeypatch.delenv("DRIFTSCOPE_HOME", raising=False)
    else:
        monkeypatch.setenv("DRIFTSCOPE_HOME", value)
    assert home() == Path("/home/somebody/.cache/driftscope")


def test_tilde_and_relative_paths_become_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("DRIFTSCOPE_HOME", "~/models")
    assert home() == Path("/home/somebody/models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTSCOPE_HOME", "here")
    assert home() == tmp_path / "here"
