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
if [ -n "${RUSTFLAGS-}" ] || [ ! -f "$recording.profdata" ]; then
  exec cargo "$@"
fi

flags="\"-Cprofile-use=$recording.profdata\""
# Not every linker can put functions in an order; rustc's own can, which it takes where nobody chose another.
order="-Clink-arg=-Wl,--symbol-ordering-file=$recording.order"
quietly=-Clink-arg=-Wl,--no-warn-symbol-ordering
scratch=$(mktemp -d)
if [ -f "$recording.order" ] && echo 'fn main() {}' | rustc "$order" "$quietly" -o "$scratch/main" - 2>/dev/null; then
  flags="$flags, \"$order\", \"$quietly\""
fi
rm -rf "$scratch"
exec cargo --config "target.$host.rustflags=[$flags]" "$@"
