"""The proxy's configuration in docs/tls-by-proxy.md is one that nginx accepts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tls-by-proxy.md"
#: `http2 on` is newer than Debian's nginx; the page says what older ones take.
NEWER = ("listen 443 ssl;\n    http2 on;", "listen 443 ssl http2;")


def configuration() -> str:
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
@pytest.mark.parametrize("fault", ["", "proxy_set_haeder Host $host;"])
def test_nginx_accepts_it(tmp_path: Path, fault: str) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=drift.example",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    text = configuration().replace(*NEWER).replace("/etc/ssl/drift.example.pem", str(certificate))
    text = text.replace("/etc/ssl/drift.example.key", str(key))
    text = text.replace("location / {", f"location / {{\n{fault}")
    file = tmp_path / "nginx.conf"
    file.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{text}\n}}\n")
    done = subprocess.run(
        ["nginx", "-t", "-q", "-p", str(tmp_path), "-c", str(file), "-e", str(tmp_path / "log")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) is not bool(fault), done.stderr
