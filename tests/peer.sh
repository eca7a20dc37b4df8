#!/usr/bin/env bash
# Installs MLServer and onnxruntime, beside which rollbacks and inference are measured, into an environment of their
# own beside the build.
set -euo pipefail

environment="${CARGO_TARGET_DIR:-target}/peer"
[ -x "$environment/bin/mlserver" ] && exit
echo "installing: MLServer into $environment"
python3 -m venv "$environment"
"$environment/bin/pip" install --quiet mlserver==1.7.1 onnxruntime==1.32.0
