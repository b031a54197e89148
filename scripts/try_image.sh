#!/usr/bin/env bash
# Builds the Dockerfile where its base images cannot be had, starts what comes of it, and asks it for a demo photo.
#
#   sudo scripts/try_image.sh [OPTION OF podman build ...]
#
# Stand-ins for the base images are made of Debian's packages: bookworm with Python 3.11 for python:3.12-slim-bookworm,
# trixie with Node.js 20 for node:20-bookworm-slim. So this says that the steps of the Dockerfile work and that the image
# serves, and nothing about the base images themselves. Needs root, mmdebstrap, podman, buildah, curl, and the indexes of
# pip and npm; no container runtime (the steps run in a chroot), so that it also works within a container. Own
# certificates: add `-v /etc/ssl/certs:/etc/ssl/certs:ro`.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
port=18765 token=only-to-try-this-image container='' service=''

tidy() {
  [ -z "$service" ] || kill "$service" 2>/dev/null || true
  [ -z "$container" ] || buildah rm "$container" >/dev/null
  rm -rf "$work"
}
trap tidy EXIT

mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,python3-dev,ca-certificates \
  --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' bookworm "$work/python.tar"
mmdebstrap --quiet --variant=minbase --include=nodejs,npm,ca-certificates trixie "$work/node.tar"
podman import --quiet "$work/python.tar" localhost/python:3.12-slim-bookworm
podman import --quiet "$work/node.tar" localhost/node:20-bookworm-slim
podman build --isolation=chroot --network=host --pull=never --format=docker "$@" -t localhost/delf-edge-try .

container=$(buildah from --pull-never localhost/delf-edge-try)
buildah run --isolation=chroot --env "DELF_EDGE_TOKEN=$token" "$container" -- \
  /opt/delf-edge/bin/delf-edge serve /data/places.db --new --kiosk --port "$port" >"$work/log" 2>&1 &
service=$!
url=http://127.0.0.1:$port
for _ in $(seq 60); do
  curl --silent --fail "$url/healthz" >/dev/null && break
  kill -0 "$service" 2>/dev/null || { cat "$work/log"; exit 1; }
  sleep 1
done
ask=(curl --silent --show-error --fail --header "authorization: Bearer $token")
"${ask[@]}" "$url/v1/status" | grep -o '"status":"ok"'
"${ask[@]}" -F photo=@assets/demo/references/Colosseum/photo.webp "$url/v1/images?landmark=Colosseum" | grep -o '"status":"added"'
"${ask[@]}" -F photo=@assets/demo/queries/colosseum.webp "$url/v1/identify" | grep -oE '"landmark":"Colosseum","probability":[0-9.]+'
echo "the image builds, serves and recognises"
