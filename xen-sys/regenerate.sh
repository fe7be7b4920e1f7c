#!/bin/sh
# Makes src/bindings/*.rs from Xen's headers, by the lists in bindings/: what `cargo build --features generate` makes, put where it
# is checked in.
#
#   regenerate.sh         writes them
#   regenerate.sh INTO    writes them into that folder, of any release's headers (with BINDGEN_EXTRA_CLANG_ARGS=-I...)
#
# It needs libclang, and the headers of Xen 4.17, the oldest release that is supported. On Debian 12:
# apt-get install libxen-dev libclang-dev. That what is checked in is what they make is a test: cargo test --features generate.
set -eu

cd "$(dirname "$0")"
into=${1:-src/bindings}

made=$(cargo build -q --locked --features generate --message-format json |
    sed -n 's/.*"reason":"build-script-executed".*xen-sys.*"out_dir":"\([^"]*\)".*/\1/p')
[ -n "$made" ] || {
    echo "regenerate.sh: cargo does not say where it has put them" >&2
    exit 1
}
mkdir -p "$into"
rm -f "$into"/*.rs
cp "$made"/*.rs "$into"
