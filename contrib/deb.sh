#!/usr/bin/env bash
# Builds hengd_VERSION_ARCH.deb with plain dpkg-deb: a virtual environment in /opt/henge, the units, the user.
#   contrib/deb.sh [FOLDER]        into FOLDER (dist); for the Debian or Ubuntu that it runs on
# PYTHON: the system's Python (/usr/bin/python3). WHEELS: a folder with wheels, for building without a network.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-dist}
python=${PYTHON:-/usr/bin/python3}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$top"

"$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' || {
    echo "This needs the system's Python, 3.11 or newer, with venv: sudo apt install python3-venv" >&2
    exit 1
}
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' henge_protocol/__init__.py | sed 's/\.\?\(dev\|a\|b\|rc\)/~\1/')
architecture=$(dpkg --print-architecture)
this=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$("$python" -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
home=$stage/opt/henge

"$python" -m venv "$home"
"$home/bin/pip" --disable-pip-version-check --quiet install ${WHEELS:+--no-index --find-links="$WHEELS"} \
    -c .ci/constraints.txt --no-compile "${WHEEL:-.}"
"$home/bin/pip" --disable-pip-version-check --quiet uninstall --yes pip setuptools
rm -f "$home"/bin/[Aa]ctivate* "$home"/bin/pip*

# What was made in the staging folder must not remember it.
grep -rlI -- "$stage" "$home/bin" "$home/pyvenv.cfg" | xargs -r sed -i "s,$stage,,g"
find "$home" -name __pycache__ -type d -prune -exec rm -rf {} +
"$python" -m compileall -q -s "$stage" -p / "$home/lib"
if grep -rqF -- "$stage" "$home"; then
    echo "the package would name its staging folder:" >&2
    grep -rlF -- "$stage" "$home" >&2
    exit 1
fi

install -d "$stage/usr/bin" "$stage/usr/lib/systemd/system" "$stage/usr/lib/sysusers.d" "$stage/usr/share/doc/hengd"
for program in hengd hengectl henge-agent; do ln -s "/opt/henge/bin/$program" "$stage/usr/bin/$program"; done
install -m 644 systemd/hengd.service systemd/henge-agent.service "$stage/usr/lib/systemd/system/"
install -m 644 systemd/henge.sysusers "$stage/usr/lib/sysusers.d/henge.conf"
install -m 644 LICENSE "$stage/usr/share/doc/hengd/copyright"

if [ -d "$home/share/man/man1" ]; then
    install -d "$stage/usr/share/man"
    mv "$home/share/man/man1" "$stage/usr/share/man/man1"
    gzip -9n "$stage"/usr/share/man/man1/*.1
fi

install -d "$stage/DEBIAN"
cat > "$stage/DEBIAN/control" <<EOF
Package: hengd
Version: $version
Architecture: $architecture
Maintainer: the henge authors <henge@localhost>
Depends: python3 (>= $this), python3 (<< $next), libc6 (>= 2.28), systemd
Section: admin
Priority: optional
Description: configuration management for ESP32s, Picos and Raspberry Pis on a home network
 The daemon hengd, the command line hengectl and the agent henge-agent, with the libraries that they use in
 /opt/henge (among them zeroconf, LGPL-2.1, and lmdb, OpenLDAP licence; their notices lie beside them).
EOF

cat > "$stage/DEBIAN/postinst" <<'EOF'
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
systemd-sysusers /usr/lib/sysusers.d/henge.conf
if [ -z "$2" ]; then
    systemctl enable --quiet hengd.service
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if [ -z "$2" ]; then
        systemctl start hengd.service || echo "hengd did not start; journalctl -u hengd says why." >&2
    else
        systemctl try-restart hengd.service henge-agent.service || true
    fi
fi
EOF

cat > "$stage/DEBIAN/prerm" <<'EOF'
#!/bin/sh
set -e
[ "$1" = remove ] || exit 0
if [ -d /run/systemd/system ]; then
    systemctl stop hengd.service henge-agent.service || true
fi
systemctl disable --quiet hengd.service henge-agent.service || true
EOF

cat > "$stage/DEBIAN/postrm" <<'EOF'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
if [ "$1" = purge ]; then
    rm -rf /etc/henge
    for folder in /var/lib/henge /var/lib/henge-agent; do
        if [ -d "$folder" ]; then
            echo "$folder stays: it holds what you configured and the keys. Remove it yourself if you are sure." >&2
        fi
    done
fi
EOF
chmod 755 "$stage/DEBIAN/postinst" "$stage/DEBIAN/prerm" "$stage/DEBIAN/postrm"

package=$out/hengd_${version}_${architecture}.deb
dpkg-deb --root-owner-group --build -Zzstd "$stage" "$package"
