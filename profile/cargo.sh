#!/bin/sh
# Runs cargo, optimising for what `make profile` recorded, where there is a recording of this very compiler and whoever builds
# has no flags of their own: it names functions as one compiler for one machine does.
#
#   profile/cargo.sh build --release …
#   profile/cargo.sh --recording        prints the name that this compiler's recording has, and runs nothing
#
# Beside how often each part of a function runs (.profdata) there is which functions a start and a check need (.order). The
# linker puts them side by side: they are a tenth of the program, and spread over it they take twice as much memory.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
told=$(rustc -vV)
of() { printf '%s\n' "$told" | sed -n "s/^$1: //p"; }
host=$(of host)
recording="$here/$host-$(of commit-hash | cut -c 1-9)-$(of release)"

if [ "${1-}" = --recording ]; then
  echo "$recording"
  exit
fi
if [ -n "${RUSTFLAGS-}${CARGO_ENCODED_RUSTFLAGS-}${CARGO_BUILD_RUSTFLAGS-}" ] || [ ! -f "$recording.profdata" ]; then
  exec cargo "$@"
fi

profile="\"-Cprofile-use=$recording.profdata\""
order="\"-Clink-arg=-Wl,--symbol-ordering-file=$recording.order\", \"-Clink-arg=-Wl,--no-warn-symbol-ordering\""
# Not every linker can put functions in an order. rustc's own can, which is taken here where nobody chose another.
puts_in_order() {
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  printf '[package]\nname = "probe"\n[[bin]]\nname = "probe"\npath = "main.rs"\n[workspace]\n' >"$scratch/Cargo.toml"
  echo 'fn main() {}' >"$scratch/main.rs"
  cargo --config "target.$host.rustflags=[$order]" build --manifest-path "$scratch/Cargo.toml" --target-dir "$scratch" >"$scratch/log" 2>&1
}
if [ -f "$recording.order" ] && puts_in_order; then
  profile="$profile, $order"
fi
cargo --config "target.$host.rustflags=[$profile]" "$@"
