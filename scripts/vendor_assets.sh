#!/bin/sh
# Browser code that ships inside the package: fetched from npm by name, kept only if it is what
# CHECKSUMS says. In: npm as configured. Out: the files under pages/static/vendor.
#
#   scripts/vendor_assets.sh                 fetch, verify, replace
#   scripts/vendor_assets.sh --verify [DIR]  only verify what stands in DIR
#   scripts/vendor_assets.sh --update        fetch, replace and rewrite CHECKSUMS (new version)
set -eu

# The full build: the common one has no heat map.
ECHARTS=echarts@6.1.0
ECHARTS_FILES="dist/echarts.min.js LICENSE NOTICE licenses/LICENSE-d3"
HTMX=htmx.org@4.0.1
HTMX_FILES="dist/htmx.min.js LICENSE"

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
vendor=$root/service/driftscope_service/pages/static/vendor

list() { (cd "$1" && find . -type f ! -name CHECKSUMS | sed 's|^\./||' | LC_ALL=C sort); }

# Every file has its checksum, every checksum its file, and nothing else lies there.
verify() {
    listed=$(sed 's/^[0-9a-f]*  //' "$2" | LC_ALL=C sort)
    if [ "$(list "$1")" != "$listed" ]; then
        echo "vendor_assets: the files in $1 are not those named in $2." >&2
        echo "What to do: run scripts/vendor_assets.sh to fetch them again." >&2
        exit 1
    fi
    if ! (cd "$1" && sha256sum --check --strict --quiet "$2") >&2; then
        echo "vendor_assets: a file in $1 differs from its checksum." >&2
        echo "What to do: run scripts/vendor_assets.sh to fetch it again." >&2
        exit 1
    fi
}

# fetch DIR PACKAGE FOLDER FILE…
fetch() {
    directory=$1 package=$2 folder=$3
    shift 3
    mkdir -p "$directory/$folder"
    (cd "$directory/$folder" && npm pack --silent "$package" >/dev/null && tar -xzf ./*.tgz)
    for file in "$@"; do
        target=$directory/vendor/$folder/${file#dist/}
        mkdir -p "$(dirname "$target")"
        install -m 644 "$directory/$folder/package/$file" "$target"
    done
}

if [ "${1:-}" = --verify ]; then
    directory=$(CDPATH='' cd -- "${2:-$vendor}" && pwd)
    verify "$directory" "$directory/CHECKSUMS"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The lists hold no spaces within a name.
# shellcheck disable=SC2086
fetch "$work" "$ECHARTS" echarts $ECHARTS_FILES
# shellcheck disable=SC2086
fetch "$work" "$HTMX" htmx $HTMX_FILES
if [ "${1:-}" = --update ]; then
    list "$work/vendor" | (cd "$work/vendor" && xargs sha256sum) >"$work/CHECKSUMS"
else
    cp "$vendor/CHECKSUMS" "$work/CHECKSUMS"
fi
verify "$work/vendor" "$work/CHECKSUMS"
cp "$work/CHECKSUMS" "$work/vendor/CHECKSUMS"
rm -rf "$vendor"
cp -R "$work/vendor" "$vendor"
echo "vendor_assets: $ECHARTS and $HTMX in $vendor"
