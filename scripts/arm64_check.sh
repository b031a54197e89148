#!/bin/sh
# Runs delf-edge in a Debian arm64 userland on an x86-64 machine: doctor (golden vectors), then the demo photographs.
#
# usage: scripts/arm64_check.sh FOLDER [MONUMENTS]
#        (as root; FOLDER gets the userland, about 1 GB; a second run uses it again; with MONUMENTS, only so many of the
#        demo's monuments are indexed and asked for, with as many strangers)
#
# Needs Debian's debootstrap, qemu-user-static, g++-aarch64-linux-gnu and dpkg, and pip. The packages are unpacked but not
# configured: nothing of the userland runs but Python. hnswlib comes as source only, and is compiled on the device; the
# default bundle's 8,192 words are searched without it. The processor shown is a Raspberry Pi 4's: LiteRT reads
# /proc/cpuinfo, and crashes where that describes an x86-64 processor to ARM code ("Error in cpuinfo"). In CI this is a
# nightly job: emulated, a photo of 640 px takes some 20 s. A run that was stopped goes on with the photos it had not
# indexed. Exit code 0: doctor passes and all answers are those of this machine; figures are in FOLDER/opt/arm64.json.
set -eu

root=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
monuments=${2:-}

if [ ! -e "$root/ready" ]; then
    packages=$root.packages
    debootstrap --arch=arm64 --foreign --variant=minbase --include=python3 bookworm "$packages"
    mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/usr/sbin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/opt/site"
    for d in bin lib sbin; do ln -sfn "usr/$d" "$root/$d"; done
    for p in "$packages"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$p" "$root"; done
    # Only wheels for this Python and this machine: a package without one would have to be compiled here.
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

cp "$(command -v qemu-aarch64-static)" "$root/usr/bin/"
for n in $(seq 0 "$(($(nproc --all) - 1))"); do
    printf 'processor\t: %s\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n' "$n"
    printf 'CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n'
done > "$root/opt/cpuinfo"

rm -rf "$root/opt/src" && mkdir "$root/opt/src"
cp -r "$here/delf_edge" "$here/assets" "$here/examples" "$here/scripts" "$root/opt/src/"
rm -f "$root"/opt/src/delf_edge/_native*.so
aarch64-linux-gnu-g++ -O3 -std=c++17 -ffp-contract=off -shared -fPIC -o "$root/opt/src/delf_edge/_native.so" "$here/delf_edge/_native.cpp"

inside() {
    unshare --mount sh -c 'root=$1; shift
        for d in proc sys dev; do mount --rbind "/$d" "$root/$d"; done
        mount --bind "$root/opt/cpuinfo" "$root/proc/cpuinfo"
        exec env -i PATH=/usr/bin:/usr/sbin HOME=/tmp LANG=C.UTF-8 PYTHONPATH=/opt/src:/opt/site OMP_NUM_THREADS=1 \
            chroot "$root" /usr/bin/qemu-aarch64-static -cpu cortex-a72 /usr/bin/python3 "$@"' sh "$root" "$@"
}

inside -m delf_edge.cli doctor --json > "$root/opt/doctor.json"
# shellcheck disable=SC2086
inside /opt/src/scripts/demo_answers.py /opt/demo.db $monuments > "$root/opt/answers.arm64"
export PYTHONPATH="$here"
rm -f "$root/opt/here.db"
"$python" "$here/scripts/demo_answers.py" "$root/opt/here.db" $monuments > "$root/opt/answers.here"
rm "$root/opt/demo.db"
"$python" "$here/scripts/demo_answers.py" --compare "$root/opt/answers.here" "$root/opt/answers.arm64" \
    "$root/opt/doctor.json" "$root/opt/arm64.json"
