#!/usr/bin/env bash
# Builds the images of the Dockerfile with Podman, and runs image_checks.py on them. `make container-test` calls it.
#
#   run.sh            builds and checks
#   run.sh why-not    prints why this machine cannot; nothing, if it can
#
# Variables:
#   TARGETS        the targets of the Dockerfile; "serve shadow" by default
#   PYTHON_IMAGE   the image to build on, such as docker.io/library/python:3.13-slim-trixie. By default one that is like it is
#                  made of Debian's packages, so that no registry of images is needed.
#
# Everything is in one folder of /var/tmp, which goes away at the end: other containers of this machine are not touched.
set -euo pipefail
cd "$(dirname "$0")/../../.."

PACKAGES=(ca-certificates debian-archive-keyring mmdebstrap podman runc)
TARGETS=${TARGETS:-serve shadow}
PYTHON=.venv/bin/python

why_not() {
  if [ "$(uname -s)" != Linux ]; then
    echo "containers are run by the kernel of Linux, and this is $(uname -s)"
  elif [ "$(id -u)" = 0 ]; then
    if [ -n "$(missing)" ] && ! command -v apt-get >/dev/null; then
      echo "it needs$(missing), and there is no apt-get to install them"
    fi
  elif [ -n "$(missing)" ]; then
    echo "it needs$(missing), and only root can install them"
  elif ! podman unshare awk '{ ids += $3 } END { exit ids < 65536 }' /proc/self/uid_map 2>/dev/null; then
    echo "it needs root, or user namespaces with 65,536 ids, which \"podman unshare cat /proc/self/uid_map\" does not show:" \
      "see rootless mode in Podman's manual"
  fi
}

missing() {
  command -v podman >/dev/null || printf ' podman'
  [ -n "${PYTHON_IMAGE:-}" ] || command -v mmdebstrap >/dev/null || printf ' mmdebstrap'
  [ "$(id -u)" != 0 ] || command -v runc >/dev/null || printf ' runc'
}

install_packages() {
  echo "Installing ${PACKAGES[*]} ..."
  apt-get update --quiet --quiet
  DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends "${PACKAGES[@]}" >/dev/null
}

# A place of its own for images and containers. Limits are lowered, as raising them is not allowed everywhere.
configure_podman() {
  rm -rf "$work/storage"
  cat >"$work/storage.conf" <<END
[storage]
driver = "$1"
graphroot = "$work/storage"
rootless_storage_path = "$work/storage"
runroot = "$work/run"
END
  cat >"$work/containers.conf" <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
events_logger = "none"
tmp_dir = "$work/tmp"
END
  # What runs with control groups of either version and, for root, without systemd.
  ! command -v runc >/dev/null || echo 'runtime = "runc"' >>"$work/containers.conf"
  [ "$(id -u)" != 0 ] || echo 'cgroup_manager = "cgroupfs"' >>"$work/containers.conf"
  export CONTAINERS_CONF=$work/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf TMPDIR=$work/tmp
  podman info >/dev/null 2>&1
}

# Like Docker's slim image of Python: Debian without manuals, and a standard library without bytecode.
make_base() {
  echo "Making a base image of Debian's packages ..."
  mmdebstrap --quiet --variant=essential --include=python3,python3-venv,ca-certificates,libstdc++6 \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --customize-hook='find "$1/usr" -name "*.pyc" -delete' \
    trixie "$work/base.tar"
  PYTHON_IMAGE=localhost/python:3.13-slim-trixie
  podman import --quiet "$work/base.tar" "$PYTHON_IMAGE" >/dev/null
  rm "$work/base.tar"
}

build() {
  local begun=$SECONDS
  echo "Building $1 ..."
  podman build --format docker --isolation chroot --network host --target "$1" --tag "localhost/lstmserve:$1" \
    --build-arg PYTHON_IMAGE="$PYTHON_IMAGE" --build-arg REVISION="$REVISION" \
    --secret id=pip.conf,src="$work/pip.conf" --secret id=ca.crt,src="$work/ca.crt" . >"$work/build.log" 2>&1 ||
    { cat "$work/build.log"; exit 1; }
  echo "Built $1 in $((SECONDS - begun)) s"
}

# Podman leaves its storage mounted on itself. Without root it does so in a namespace of its own, with files of several users,
# which a process keeps open that it leaves behind too.
clean_up() {
  podman rm --all --force --time 0 >/dev/null 2>&1 || true
  local remove='umount --lazy "$1/storage/overlay" "$1/storage" 2>/dev/null; rm -rf "$1/storage"'
  if [ "$(id -u)" = 0 ]; then
    bash -c "$remove" - "$work"
  else
    local keeper
    keeper=$(find "$work/tmp" -name pause.pid -exec cat {} +)
    podman unshare bash -c "$remove" - "$work"
    [ -z "$keeper" ] || kill "$keeper"
  fi
  rm -rf "$work"
}

if [ "${1:-}" = why-not ]; then
  why_not
  exit
fi
reason=$(why_not)
[ -z "$reason" ] || { echo "make container-test cannot run here: $reason" >&2; exit 1; }
[ -z "$(missing)" ] || install_packages
work=$(mktemp -d /var/tmp/lstmserve-container.XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 711 "$work"  # without root, the base image is made by other users of the same namespace
mkdir --mode 1777 "$work/tmp"
configure_podman overlay || configure_podman vfs  # which is slow, and possible everywhere
trap clean_up EXIT  # not before: Podman would clean up what is not ours
[ -n "${PYTHON_IMAGE:-}" ] || make_base
REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)
CANARY=canary-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')  # by which image_checks.py would find a secret in an image
"$PYTHON" -m tests.deploy.container.build_secrets "$work" "$CANARY"
export CANARY PYTHON_IMAGE REVISION TARGETS
for target in $TARGETS; do build "$target"; done
"$PYTHON" -m pytest tests/deploy/container/image_checks.py
