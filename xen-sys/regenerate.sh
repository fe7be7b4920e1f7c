#!/bin/sh
# Makes src/bindings/*.rs from Xen's headers, by the lists in bindings/.
#
#   regenerate.sh           writes them
#   regenerate.sh --check   makes them elsewhere and compares: exit code 1 on a difference
#   regenerate.sh --into D  writes them into D, of any release's headers (with BINDGEN_EXTRA_CLANG_ARGS=-I...)
#
# It needs bindgen 0.73.2 (names of anonymous types differ between its releases), libclang, and the headers of Xen 4.17, the
# oldest release that is supported. On Debian 12:
#
#   apt-get install libxen-dev libclang-dev
#   cargo install bindgen-cli --version 0.73.2 --locked
#
# $BINDGEN names another bindgen than the one in $PATH.
set -eu

cd "$(dirname "$0")"
bindgen=${BINDGEN:-bindgen}
pinned='bindgen 0.73.2'

fail() {
    echo "regenerate.sh: $*" >&2
    exit 2
}

mode=${1:-}
case $mode in
'' | --check) into=src/bindings ;;
--into) into=${2:?--into needs a folder} ;;
*) fail "unknown argument $mode" ;;
esac

command -v "$bindgen" >/dev/null || fail "no $bindgen: cargo install bindgen-cli --version 0.73.2 --locked"
found=$("$bindgen" --version)
[ "$found" = "$pinned" ] || fail "$found found, but these files come from $pinned"
if [ "$mode" != --into ] && [ ! -e /usr/include/xenctrl.h ]; then
    fail "no /usr/include/xenctrl.h: apt-get install libxen-dev"
fi

made=$(mktemp -d)
trap 'rm -r "$made"' EXIT
header=$made/header.h
for list in bindings/*.list; do
    name=$(basename "$list" .list)
    : >"$header"
    # What stands in a list is "verb argument", one a line; build.rs reads the same lists.
    set -- --dynamic-link-require-all --no-doc-comments --rust-edition 2024 --rust-target 1.85 --disable-header-comment
    while read -r verb argument; do
        case $verb in
        '' | '#'*) ;;
        header) echo "#include <$argument>" >>"$header" ;;
        line) echo "$argument" >>"$header" ;;
        library) set -- "$@" --dynamic-loading "$argument" ;;
        function) set -- "$@" --allowlist-function "$argument" ;;
        type) set -- "$@" --allowlist-type "$argument" ;;
        var) set -- "$@" --allowlist-var "$argument" ;;
        block) set -- "$@" --blocklist-type "$argument" ;;
        opaque) set -- "$@" --opaque-type "$argument" ;;
        nodebug) set -- "$@" --no-debug "$argument" ;;
        *) fail "$list: what is \"$verb\"?" ;;
        esac
    done <"$list"
    "$bindgen" "$@" --raw-line '// Made by regenerate.sh: do not edit.' --output "$made/$name.rs" "$header" ||
        fail "bindgen failed for $name; without libclang: apt-get install libclang-dev"
done
rm "$header"

if [ "$mode" = --check ]; then
    diff -r "$into" "$made" || {
        echo "regenerate.sh: src/bindings is not what the headers and the lists make: run regenerate.sh" >&2
        exit 1
    }
else
    mkdir -p "$into"
    rm -f "$into"/*.rs
    cp "$made"/*.rs "$into"
fi
