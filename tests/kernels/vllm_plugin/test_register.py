"""The switch: off costs nothing and changes nothing, wrong values and versions are refused."""

import os
import subprocess
import sys

import pytest

from driftscope_kernels import vllm_plugin
from driftscope_kernels.vllm_plugin import install, patches, rounding
from driftscope_kernels.vllm_plugin.rounding import KernelChoiceError

HEAVY = "{'torch', 'vllm', 'numpy', 'driftscope_kernels.vllm_plugin.install'}"


def test_off_imports_nothing(plugin_environment: dict[str, str]) -> None:
    code = (
        "import sys, driftscope_kernels.vllm_plugin as p; p.register(); p.register()\n"
        f"sys.exit(str({HEAVY} & set(sys.modules)) if {HEAVY} & set(sys.modules) else 0)"
    )
    for value in ("stock", ""):
        environment = plugin_environment | {rounding.KERNELS_VARIABLE: value}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_the_entry_point_is_found(plugin_environment: dict[str, str]) -> None:
    code = (
        "from importlib.metadata import entry_points\n"
        "(found,) = entry_points(group='vllm.general_plugins', name='driftscope')\n"
        "found.load()()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=plugin_environment, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_choice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rounding.KERNELS_VARIABLE, "fast")
    with pytest.raises(KernelChoiceError, match="choose stock or invariant"):
        vllm_plugin.register()


def test_an_unknown_rounding_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rounding.ROUNDING_VARIABLE, "none")
    monkeypatch.delenv(install.OWN_MODE_VARIABLE, raising=False)
    with pytest.raises(KernelChoiceError, match="choose transformers or vllm"):
        install._install_on_cpu()
    assert not patches.installed()


def test_without_vllm_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rounding.KERNELS_VARIABLE, "invariant")
    monkeypatch.setattr(install, "find_spec", lambda name: None)
    with pytest.raises(KernelChoiceError, match="vllm is not installed"):
        vllm_plugin.register()


def test_another_version_is_refused_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm = pytest.importorskip("vllm")
    monkeypatch.setattr(vllm, "__version__", "0.99.0")
    with pytest.raises(KernelChoiceError, match=r"tested with vLLM 0\.32\.0 and this is 0\.99\.0"):
        install.check_version()
    monkeypatch.setenv(install.FORCE_VARIABLE, "1")
    install.check_version()
    monkeypatch.setattr(vllm, "__version__", "0.32.0+cpu")
    monkeypatch.delenv(install.FORCE_VARIABLE)
    install.check_version()


class Owner:
    value = 1

    @staticmethod
    def static() -> int:
        return 1


def test_what_is_replaced_comes_back() -> None:
    assert not patches.installed()
    patches.replace(Owner, "value", 2)
    patches.replace(Owner, "static", staticmethod(lambda: 2))
    assert (Owner.value, Owner().static(), patches.installed()) == (2, 2, True)
    patches.restore_all()
    assert (Owner.value, Owner().static(), patches.installed()) == (1, 1, False)
    with pytest.raises(AttributeError):
        patches.replace(Owner, "no_such_name", 2)


def test_cuda_defers_to_vllm_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(install.logger, "propagate", True)
    monkeypatch.setattr(install.logger, "parent", None)
    install.logger.addHandler(caplog.handler)
    monkeypatch.setenv(install.OWN_MODE_VARIABLE, "0")
    with pytest.raises(KernelChoiceError, match="unset one of them"):
        install._defer_to_vllm()
    monkeypatch.delenv(install.OWN_MODE_VARIABLE)
    try:
        install._defer_to_vllm()
    finally:
        install.logger.removeHandler(caplog.handler)
    assert "none of our kernels runs" in caplog.text
    assert os.environ[install.OWN_MODE_VARIABLE] == "1"
