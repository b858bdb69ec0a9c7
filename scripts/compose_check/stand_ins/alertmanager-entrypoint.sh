#!/bin/sh
# Debian's Alertmanager 0.25 does not know `url_file` (0.26 and newer do): put the address itself
# into a copy of the configuration, which is otherwise the one that is mounted.
set -eu
written=/alertmanager/with-address.yml
for argument in "$@"; do
    case $argument in
        --config.file=*)
            given=${argument#--config.file=}
            address=$(cat "$(sed -n 's/.*url_file: *//p' "$given")")
            sed "s|url_file:.*|url: $address|" "$given" > "$written"
            argument=--config.file=$written
            ;;
    esac
    shift
    set -- "$@" "$argument"
done
exec /usr/bin/prometheus-alertmanager "$@"
