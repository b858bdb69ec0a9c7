"""The golden run tells a change from what differs every time; nothing is recorded here."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def normal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_normal", SCRIPTS / "golden_normal.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare(*folders: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "golden_run.py"), "compare", *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True)


def test_one_changed_line_and_a_missing_file_are_told(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        (folder / "cli").mkdir(parents=True)
        (folder / "cli" / "help.txt").write_text("exit 0\nsame\n")
    done = compare(first, second)
    assert (done.returncode, done.stdout) == (0, "")
    (second / "cli" / "help.txt").write_text("exit 2\nsame\n")
    (first / "more.txt").write_text("gone\n")
    done = compare(first, second)
    assert done.returncode == 1
    assert "-exit 0\n+exit 2\n" in done.stdout
    assert "-gone" in done.stdout
    assert compare(first, tmp_path / "none").returncode != 0


def test_moments_go_and_numbers_stay(normal: ModuleType) -> None:
    given = {
        "id": "job_01M8KSV13SRPT8MZX70ZP2V130",
        "created_at": "2026-11-29T13:56:12.159829Z",
        "finished_at": None,
        "kl_k3": 1.25e-7,
        "limit": "30 s between two pieces",
        "environment": {"cores": 2},
    }
    assert json.loads(normal.maybe_json(json.dumps(given), {})) == {
        **given,
        "id": "job_<id>",
        "created_at": "<created_at>",
        "environment": {"cores": "<fact>"},
    }
    assert normal.text("see /a/b/c, 3 minutes ago", {"/a/b": "<work>"}) == "see <work>/c, <ago>"


def test_a_page_is_its_text_and_links(normal: ModuleType) -> None:
    page = (
        '<style>p{}</style><p class="x">Mean  <b>0.5</b></p><a href="/runs">R</a><script>1</script>'
    )
    assert normal.page(page, {}) == ("Mean\n0.5\n @ href=/runs\nR\n", ["/runs"])


def test_counts_of_metrics_stay(normal: ModuleType) -> None:
    page = 'a_total{b="c"} 3.0\na_seconds_sum{b="c"} 0.3\nprocess_cpu_seconds_total 2.0\n'
    told = normal.metrics(page, {})
    assert (
        told
        == 'a_total{b="c"} 3.0\na_seconds_sum{b="c"} <value>\nprocess_cpu_seconds_total <value>\n'
    )
