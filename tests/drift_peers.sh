#!/usr/bin/env bash
# Installs datasketches and whylogs, beside whose sketches the devices' are measured, into an environment of their own
# beside the build.
set -euo pipefail

environment="${CARGO_TARGET_DIR:-target}/drift-peers"
[ -f "$environment/complete" ] && exit
echo "installing: datasketches and whylogs into $environment"
rm -rf "$environment"
python3 -m venv "$environment"
"$environment/bin/pip" install --quiet --disable-pip-version-check datasketches==5.2.0 numpy==1.26.4
"$environment/bin/pip" install --quiet --disable-pip-version-check whylogs==1.6.4 pandas==2.2.3 'setuptools<81'
touch "$environment/complete"
