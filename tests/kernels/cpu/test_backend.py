"""Which way is taken: compiled, portable on request, or, without a compiler, with one warning."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from driftscope_kernels.cpu import backend, build


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    backend.operators.cache_clear()
    yield
    backend.operators.cache_clear()


def test_without_a_compiler_the_portable_way_is_taken_and_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_compiler() -> None:
        raise build.ToolchainMissingError("no C++ compiler.")

    monkeypatch.setattr(build, "library", no_compiler)
    with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler.*portable"):
        assert backend.operators() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backend.instruction_sets() == (backend.PORTABLE,)


def test_a_source_that_does_not_compile_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise build.BuildError("line 3")

    monkeypatch.setattr(build, "library", broken)
    with pytest.raises(build.BuildError, match="line 3"):
        backend.operators()


def test_the_portable_way_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.VARIABLE, "portable")
    assert backend.operators() is None


def test_an_unknown_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.VARIABLE, "gpu")
    with pytest.raises(backend.BackendError, match="compiled or portable"):
        backend.operators()
