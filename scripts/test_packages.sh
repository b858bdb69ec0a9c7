#!/usr/bin/env bash
# Debian packages that the tests drive: chromium (pages), prometheus with promtool, postgresql and g++
# (the CPU kernels). Installed where that is possible; without them their tests are skipped and say so.
set -euo pipefail

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v promtool >/dev/null || missing+=(prometheus)
compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || command -v initdb >/dev/null || missing+=(postgresql)
command -v "${CXX:-c++}" >/dev/null || missing+=(g++)
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "test: installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
    echo "test: without ${missing[*]} some tests are skipped (apt-get install ${missing[*]})" >&2
fi
