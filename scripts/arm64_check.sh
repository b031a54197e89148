#!/bin/sh
# Runs delf-edge in a Debian arm64 userland on an x86-64 machine: doctor (golden vectors), then the demo photographs.
#
# usage: scripts/arm64_check.sh FOLDER     (as root; FOLDER gets the userland, about 1 GB; a second run uses it again)
#
# Needs Debian's debootstrap, qemu-user-static, g++-aarch64-linux-gnu and dpkg, the kernel's binfmt_misc, and pip. The
# packages are unpacked but not configured: nothing of the userland runs but Python. hnswlib comes as source only, and is
# compiled on the device; the default bundle's 8,192 words are searched without it. In CI this is a nightly job: emulated,
# the network takes some twenty times as long as on the host. Exit code 0: doctor passes and all answers are those of
# this machine.
set -eu

root=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}

if [ ! -e "$root/ready" ]; then
    packages=$root.packages
    debootstrap --arch=arm64 --foreign --variant=minbase --include=python3 bookworm "$packages"
    mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/usr/sbin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/opt/site"
    for d in bin lib sbin; do ln -sfn "usr/$d" "$root/$d"; done
    for p in "$packages"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$p" "$root"; done
    # Only wheels for this Python and this machine: a package without one would have to be compiled here.
    wheels=$root/opt/wheels
    "$python" -c "
import sys, tomllib
for r in tomllib.load(open('$here/pyproject.toml', 'rb'))['project']['dependencies']:
    if not r.startswith('hnswlib'): print(r)" > "$root/opt/requirements.txt"
    tags="--platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux_2_27_aarch64
        --platform manylinux_2_28_aarch64"
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet --target "$root/opt/site" --only-binary=:all: --python-version 3.11 \
        --implementation cp $tags -r "$root/opt/requirements.txt"
    touch "$root/ready"
fi

if ! [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null || true
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    echo ":qemu-aarch64:M::$magic:$mask:/usr/bin/qemu-aarch64-static:F" > /proc/sys/fs/binfmt_misc/register
fi

rm -rf "$root/opt/src" && mkdir "$root/opt/src"
cp -r "$here/delf_edge" "$here/assets" "$here/examples" "$here/scripts" "$root/opt/src/"
rm -f "$root"/opt/src/delf_edge/_native*.so
aarch64-linux-gnu-g++ -O3 -std=c++17 -shared -fPIC -o "$root/opt/src/delf_edge/_native.so" "$here/delf_edge/_native.cpp"

inside() {
    unshare --mount sh -c 'root=$1; shift
        for d in proc sys dev; do mount --rbind "/$d" "$root/$d"; done
        exec chroot "$root" /usr/bin/env -i PATH=/usr/bin HOME=/tmp LANG=C.UTF-8 PYTHONPATH=/opt/src:/opt/site \
            OMP_NUM_THREADS=1 "$@"' sh "$root" "$@"
}

inside python3 -m delf_edge.cli doctor
inside python3 /opt/src/scripts/demo_answers.py > "$root/opt/answers.arm64"
PYTHONPATH=$here "$python" "$here/scripts/demo_answers.py" > "$root/opt/answers.here"
"$python" "$here/scripts/demo_answers.py" --compare "$root/opt/answers.here" "$root/opt/answers.arm64"
