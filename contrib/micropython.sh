#!/bin/sh
# Prints the path of a MicroPython for this machine's kernel, 1.25 or newer, with TLS.
#   contrib/micropython.sh          $HENGE_MICROPYTHON, else the one on the PATH, else Debian's, unpacked into .cache/
#   contrib/micropython.sh small    the 32-bit build of the same (words and heap blocks of a microcontroller's size)
# Nothing is installed: the package comes through this machine's own apt (its mirror, its proxy, its keys) and is
# unpacked with the libraries it needs. Fails, saying why in one line, where that is not possible.
set -eu

kind=${1:-native}
top=$(cd "$(dirname "$0")/.." && pwd)
suite=trixie    # the first release with 1.25

sorry() { echo "no MicroPython: $*" >&2; exit 1; }
usable() { "$1" -c 'import sys, tls; sys.exit(sys.implementation.version < (1, 25))' 2>/dev/null; }

if [ "$kind" = native ]; then
    if [ -n "${HENGE_MICROPYTHON:-}" ]; then
        usable "$HENGE_MICROPYTHON" || sorry "HENGE_MICROPYTHON=$HENGE_MICROPYTHON is not 1.25 or newer with the module tls"
        echo "$HENGE_MICROPYTHON"; exit
    fi
    if found=$(command -v micropython) && usable "$found"; then echo "$found"; exit; fi
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    sorry "this machine has no apt; install MicroPython 1.25 or newer, or name one in HENGE_MICROPYTHON"
case $kind-$(dpkg --print-architecture) in
    native-*) arch=$(dpkg --print-architecture) ;;
    small-amd64) arch=i386 ;;
    small-arm64) arch=armhf ;;
    small-*) sorry "there is no 32-bit build that runs beside $(dpkg --print-architecture)" ;;
    *) sorry "'$kind' is neither native nor small" ;;
esac
place=$top/.cache/micropython/$arch
if usable "$place/micropython"; then echo "$place/micropython"; exit; fi

mkdir -p "$top/.cache/micropython"
work=$(mktemp -d "$top/.cache/micropython/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
mirror=$(apt-get --print-uris update 2>/dev/null | sed -n "s#^'\(.*/debian/*\)dists/[^/]*/InRelease'.*#\1#p" | head -1)
[ -n "$mirror" ] || sorry "apt knows no Debian mirror here; install MicroPython 1.25 or newer, or name one in HENGE_MICROPYTHON"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
: > "$work/status"
echo "deb [signed-by=$keys arch=$arch] $mirror $suite main" > "$work/sources.list"
private_apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferencesparts=/dev/null -o Dir::Etc::preferences=/dev/null -o Dir::State::lists="$work/lists" \
        -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o APT::Architecture="$arch" \
        -o APT::Architectures::="$arch" -o Acquire::Languages=none -o Debug::NoLocking=1 \
        -o Acquire::http::Timeout=15 -o Acquire::Retries=1 -o APT::Sandbox::User="$(id -un)" "$@" > "$work/said" 2>&1 ||
        sorry "apt could not fetch it for $arch: $(grep -m1 '^E:' "$work/said" || tail -1 "$work/said")"
}
private_apt update
# An empty status file: with all libraries. The clock of a board that has none is played with by libfaketime.
private_apt install -y --no-install-recommends --download-only micropython libfaketime
for package in "$work"/cache/archives/*.deb; do dpkg-deb -x "$package" "$work/root"; done
rm -rf "$work/root/usr/share" "$work"/root/usr/lib/*/gconv

# Debian's loader with Debian's libraries, wherever the folder lies. With FAKETIME_TIMESTAMP_FILE set: with a clock that a test sets.
cat > "$work/micropython" <<'WRAPPER'
#!/bin/sh
d=$(dirname "$(readlink -f "$0")")/root
for loader in "$d"/usr/lib/*/ld-linux*.so.* "$d"/usr/lib/ld-linux*.so.*; do [ -e "$loader" ] && break; done
libraries=$(echo "$d"/usr/lib/*-linux-*)
exec "$loader" --library-path "$libraries" ${FAKETIME_TIMESTAMP_FILE:+--preload "$libraries/faketime/libfaketime.so.1"} \
    --argv0 micropython "$d/usr/bin/micropython" "$@"
WRAPPER
chmod +x "$work/micropython"
usable "$work/micropython" || sorry "the build for $arch does not run on this machine"
mkdir "$work/done"
mv "$work/root" "$work/micropython" "$work/done"
mv -T "$work/done" "$place" 2>/dev/null || usable "$place/micropython" || { rm -rf "$place"; mv -T "$work/done" "$place"; }
echo "$place/micropython"
