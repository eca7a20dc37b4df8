#!/usr/bin/env bash
# Runs the tests of worker processes in a machine of its own, those that need memory groups (cgroup v2) among them: QEMU
# with Debian's kernel, and nothing in it but the tests, the agent's program and the libraries of both.
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

# The tests' own file, which has a number in its name.
test="$(cargo test --workspace --locked --no-run --message-format json 2>/dev/null |
  sed -n 's/.*"name":"worker","src_path":"[^"]*\/program\/tests\/worker.rs".*"executable":"\([^"]*\)".*/\1/p')"
[ -x "$test" ] || { echo "the tests were not built" >&2; exit 1; }

# A tree in which both lie where they were built, as the tests look for the program there.
root="$machine/root"
rm -rf "$root"
mkdir -p "$root"/{bin,proc,sys,dev,tmp} "$root$PWD/agent/program" "$root$PWD/tests"
cp "$(command -v busybox)" "$root/bin/busybox"
cp -r tests/fixtures "$root$PWD/tests/"
for command in sh sleep; do ln -s busybox "$root/bin/$command"; done
for program in "$test" "$target/debug/serin-agent" /bin/false; do
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
busybox sh -c 'echo \$\$ > /sys/fs/cgroup/device/cgroup.procs; exec "$test" --include-ignored --test-threads 1'
echo "memory groups: exit code \$?"
busybox poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet --create --format newc | gzip -1) > "$machine/initramfs"

said="$machine/said"
# Emulated, so that it also runs inside a virtual machine.
timeout 600 qemu-system-x86_64 -accel tcg -cpu max -m 1024 -nographic -no-reboot -nic none \
  -kernel "$machine/vmlinuz" -initrd "$machine/initramfs" -append "console=ttyS0 loglevel=1 panic=-1" </dev/null |
  tr -d '\r\033' | tee "$said"
grep -q '^memory groups: exit code 0$' "$said" || { echo "memory groups: FAILED" >&2; exit 1; }
grep -q '^test groups::.* ok$' "$said" || { echo "memory groups: their test was not run" >&2; exit 1; }
echo "memory groups: held by the kernel"
