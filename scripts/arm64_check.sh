#!/bin/sh
# Installs delf-edge in a Debian arm64 userland on an x86-64 machine, as on a Raspberry Pi: the wheel is built there,
# its dependencies come from PyPI. Then, from an empty folder: doctor (golden vectors), and the demo photographs.
#
# usage: scripts/arm64_check.sh FOLDER [MONUMENTS]
#        (as root, in a git checkout: HEAD is installed; FOLDER gets the userland, about 2 GB; a second run uses it
#        again; with MONUMENTS, only so many of the demo's monuments are indexed and asked for, with as many strangers)
#
# Needs Debian's debootstrap and qemu-user-static, and a kernel that runs arm64 programs with it (binfmt_misc; a machine
# with systemd has registered it since qemu-user-static was installed, a container's host must have). The processor shown
# is a Raspberry Pi 4's: LiteRT reads /proc/cpuinfo, and crashes where that describes an x86-64 processor to ARM code
# ("Error in cpuinfo"). In CI this is a nightly job: emulated, the userland takes 15 minutes, the wheels as long, and a
# photo of 640 px some 20 s. A run that was stopped goes on with the photos it had not indexed. Exit code 0: doctor
# passes and all answers are those of this machine; figures are in FOLDER/opt/arm64.json.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
monuments=${2:-}

if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
    echo "this kernel runs no arm64 programs; install qemu-user-static, and register it:" >&2
    echo "  cat /usr/lib/binfmt.d/qemu-aarch64.conf > /proc/sys/fs/binfmt_misc/register" >&2
    exit 2
fi
if [ ! -e "$1/opt/ready" ]; then
    debootstrap --arch=arm64 --variant=minbase --include=python3,python3-venv,python3-dev,g++,ca-certificates \
        bookworm "$1"
    touch "$1/opt/ready"
fi
root=$(cd "$1" && pwd)
cp /etc/resolv.conf "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/opt/"  # a company's own, too
for n in $(seq 0 "$(($(nproc --all) - 1))"); do
    printf 'processor\t: %s\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n' "$n"
    printf 'CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n'
done > "$root/opt/cpuinfo"

inside() {
    unshare --mount sh -c 'root=$1; shift
        for d in proc sys dev; do mount --rbind "/$d" "$root/$d"; done
        mount --bind "$root/opt/cpuinfo" "$root/proc/cpuinfo"
        cd "$root/opt/empty"
        exec env -i PATH=/opt/venv/bin:/usr/bin:/bin:/usr/sbin HOME=/root LANG=C.UTF-8 QEMU_CPU=cortex-a72 OMP_NUM_THREADS=1 \
            PIP_CERT=/opt/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 chroot "$root" sh -c "cd /opt/empty && $*"' sh "$root" "$@"
}

# The source without a checkout around it, and of the checkout only what the demo shows.
rm -rf "$root/opt/source" "$root/opt/demo" "$root/opt/empty"
mkdir "$root/opt/source" "$root/opt/demo" "$root/opt/empty"
git -C "$here" archive HEAD | tar -x -C "$root/opt/source"
(cd "$root/opt/source" && mv examples scripts ../demo && mkdir ../demo/assets && mv assets/demo ../demo/assets)
test -e "$root/opt/venv" || inside python3 -m venv /opt/venv
inside pip uninstall --quiet --yes delf-edge
inside pip install --quiet --progress-bar off /opt/source

inside delf-edge doctor --json > "$root/opt/doctor.json"
inside PYTHONPATH=/opt/demo python /opt/demo/scripts/demo_answers.py /opt/demo.db "$monuments" > "$root/opt/answers.arm64"
export PYTHONPATH="$here"
rm -f "$root/opt/here.db"
# shellcheck disable=SC2086
"$python" "$here/scripts/demo_answers.py" "$root/opt/here.db" $monuments > "$root/opt/answers.here"
rm "$root/opt/demo.db"
"$python" "$here/scripts/demo_answers.py" --compare "$root/opt/answers.here" "$root/opt/answers.arm64" \
    "$root/opt/doctor.json" "$root/opt/arm64.json"
