#!/usr/bin/env bash
# Runs the public conformance suite for TUF clients, as it stands, against our client. Only RSA keys are
# expected to fail: nothing of ours has them.
set -euo pipefail

suite="$(cd "$1" && pwd)"
target="$(cd "${CARGO_TARGET_DIR:-target}" && pwd)"
environment="$target/conformance"
client="$target/debug/tuf-client"

command -v faketime >/dev/null || {
  [ "$(id -u)" -eq 0 ] || { echo "the suite needs faketime: sudo apt-get install faketime" >&2; exit 1; }
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends faketime >/dev/null
}
[ -x "$environment/bin/pip" ] || python3 -m venv "$environment"
# Every time: another checkout may need other versions.
"$environment/bin/pip" install --quiet --disable-pip-version-check "$suite"

# The suite takes its expected failures from a file beside the client.
printf 'test_keytype_and_scheme[rsa/rsassa-pss-sha256]\ntest_keytype_and_scheme[rsa/rsa-pkcs1v15-sha256]\n' >"$client.xfails"

if (cd "$suite" && "$environment/bin/pytest" tuf_conformance --entrypoint "$client" -q); then
  echo "conformance: passed"
else
  echo "conformance: FAILED"
  exit 1
fi
