#!/usr/bin/env bash
# Runs what needs memory groups (cgroup v2) in a machine of its own: QEMU with Debian's kernel, and nothing in it but the
# test, the agent's program and the libraries of both.
set -euo pipefail
cd "$(dirname "$0")/.."

target="$(realpath "${CARGO_TARGET_DIR:-target}")"
machine="$target/machine"
missing=()
for command in qemu-system-x86_64:qemu-system-x86 cpio:cpio busybox:busybox-static; do
  command -v "${command%%:*}" >/dev/null || missing+=("${command#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "needed: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
  echo "installing: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ ! -e "$machine/vmlinuz" ]; then
  echo "fetching: Debian's kernel into $machine"
  mkdir -p "$machine/kernel"
  package="$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/ *Depends: //p')"
  (cd "$machine/kernel" && apt-get download -qq "$package")
  dpkg-deb --extract "$machine/kernel/$package"_*.deb "$machine/kernel"
  cp "$machine"/kernel/boot/vmlinuz-* "$machine/vmlinuz"
  rm -r "$machine/kernel"
fi

# The test's own file, which has a number in its name.
test="$(cargo test --workspace --locked --no-run --message-format json 2>/dev/null |
  sed -n 's/.*"name":"worker","src_path":"[^"]*\/program\/tests\/worker.rs".*"executable":"\([^"]*\)".*/\1/p')"
[ -x "$test" ] || { echo "the test was not built" >&2; exit 1; }

# A tree in which both lie where they were built, as the test looks for the program there.
root="$machine/root"
rm -rf "$root"
mkdir -p "$root"/{bin,proc,sys,dev,tmp} "$root$PWD/agent/program" "$root$PWD/tests/fixtures"
cp "$(command -v busybox)" "$root/bin/busybox"
cp -r tests/fixtures/digits "$root$PWD/tests/fixtures/"
for program in "$test" "$target/debug/serin-agent"; do
  mkdir -p "$root$(dirname "$program")"
  strip -o "$root$program" "$program"
  ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L --update "$library" "$root$library"
  done
done
cat > "$root/init" <<INIT
#!/bin/busybox sh
busybox() { /bin/busybox "\$@"; }
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t cgroup2 groups /sys/fs/cgroup
busybox mkdir /sys/fs/cgroup/device
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
busybox sh -c 'echo \$\$ > /sys/fs/cgroup/device/cgroup.procs; exec "$test" --ignored --nocapture groups::'
echo "memory groups: exit code \$?"
busybox poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet --create --format newc | gzip -1) > "$machine/initramfs"

said="$machine/said"
# Emulated, so that it runs where no virtual machine may
timeout 600 qemu-system-x86_64 -accel tcg -cpu max -m 1024 -nographic -no-reboot -nic none \
  -kernel "$machine/vmlinuz" -initrd "$machine/initramfs" -append "console=ttyS0 quiet panic=-1" </dev/null |
  tr -d '\r\033' | tee "$said"
grep -q '^memory groups: exit code 0$' "$said" || { echo "memory groups: FAILED" >&2; exit 1; }
grep -q '^test result: ok. [1-9]' "$said" || { echo "memory groups: no test was run" >&2; exit 1; }
echo "memory groups: held by the kernel"
