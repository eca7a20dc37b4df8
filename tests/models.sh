#!/usr/bin/env bash
# Fetches the wheels whose models are measured, and unpacks the models alone: silero-vad (MIT) and
# rapidocr-onnxruntime with PP-OCR (both Apache-2.0). Nothing in them is run.
set -euo pipefail

folder="${CARGO_TARGET_DIR:-target}/models"
[ -f "$folder/complete" ] && exit
echo "fetching: silero-vad and rapidocr-onnxruntime into $folder"
rm -rf "$folder"
mkdir -p "$folder"
python="${CARGO_TARGET_DIR:-target}/python/bin/python"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$folder" \
  silero-vad==6.2.3 rapidocr-onnxruntime==1.4.4
for wheel in "$folder"/*.whl; do
  "$python" -m zipfile -e "$wheel" "$folder/unpacked"
done
find "$folder/unpacked" -name '*.onnx' -exec mv {} "$folder" \;
rm -rf "$folder/unpacked" "$folder"/*.whl
touch "$folder/complete"
