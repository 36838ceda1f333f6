# shellcheck shell=bash
# What the scripts share; sourced, never run.

me=${0##*/}
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# die MESSAGE [HINT]: our own failure, not the command's.
die() {
  echo "$me: $1" >&2
  [ $# -lt 2 ] || echo "hint: $2" >&2
  exit 125
}

# need_packages PACKAGE...: installs those Debian packages that are missing when root, else prints the one line that does.
need_packages() {
  local missing=() package log
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null ||
    die "missing: ${missing[*]}" "these are Debian package names; install what your distribution calls them"
  [ "$(id -u)" = 0 ] ||
    die "missing Debian packages: ${missing[*]}" "sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
  echo "$me: installing ${missing[*]}" >&2
  log=$(mktemp)
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    die "could not install ${missing[*]}"
  fi
  rm -f "$log"
}

distribution() { (. /etc/os-release && echo "$ID$VERSION_ID"); }

# Sets KERNEL and VIRTIOFSD for the lab, installing what is missing.
lab_packages() {
  command -v qemu-system-x86_64 >/dev/null || need_packages qemu-system-x86
  mapfile -t VIRTIOFSD < <(find_virtiofsd)
  if [ ${#VIRTIOFSD[@]} = 0 ]; then
    need_packages virtiofsd
    mapfile -t VIRTIOFSD < <(find_virtiofsd)
  fi
  [ "${VIRTIOFSD[0]}" != unshare ] || command -v newuidmap >/dev/null || need_packages uidmap
  KERNEL=$(find_lab_kernel)
  if [ -z "$KERNEL" ]; then
    need_packages "$(lab_kernel_package)"
    KERNEL=$(find_lab_kernel)
    [ -n "$KERNEL" ] || die "no kernel in /boot with virtiofs and kvm-amd" "$(lab_kernel_package) has both"
  fi
  [ -r "$KERNEL" ] || die "cannot read $KERNEL" "sudo chmod a+r $KERNEL"
  lab_initramfs_needed "$KERNEL" || return 0
  # A busybox with libraries starts nowhere but here.
  ! ldd "$(command -v busybox || echo /bin/sh)" >/dev/null 2>&1 || need_packages busybox-static
  command -v zstd >/dev/null || need_packages zstd
}

# The folder server for the lab's root, one argument per line, in the two dialects there are:
# Rust (Debian 13, Ubuntu 24.04; serves an ordinary user as it is), C (Debian 12; wants to be root,
# if only of a user namespace that maps the user to itself and the rest to its subordinate ids).
find_virtiofsd() {
  local sandbox=none
  [ "$(id -u)" != 0 ] || sandbox=chroot
  if [ -x /usr/libexec/virtiofsd ]; then
    printf '%s\n' /usr/libexec/virtiofsd --fd=FD:ROOT --shared-dir=/ --cache=auto --sandbox=$sandbox
  elif [ -x /usr/lib/qemu/virtiofsd ]; then
    [ "$(id -u)" = 0 ] || printf '%s\n' unshare --map-auto "--map-user=$(id -u)" "--map-group=$(id -g)" --keep-caps
    printf '%s\n' /usr/lib/qemu/virtiofsd --fd=FD:ROOT -o source=/ -o cache=auto -o sandbox=chroot
  fi
}

# The newest installed kernel that has virtiofs and kvm-amd; Debian's cloud kernels come first,
# because virtiofs is built into them and they start without an initramfs.
find_lab_kernel() {
  local kernel modules other=
  for kernel in $(printf '%s\n' /boot/vmlinuz-* | sort -rV); do
    [ -e "$kernel" ] || continue
    modules=/lib/modules/${kernel#/boot/vmlinuz-}
    compgen -G "$modules/kernel/arch/x86/kvm/kvm-amd.ko*" >/dev/null || continue
    if ! lab_initramfs_needed "$kernel"; then
      echo "$kernel"
      return
    elif [ -z "$other" ] && compgen -G "$modules/kernel/fs/fuse/virtiofs.ko*" >/dev/null; then
      other=$kernel
    fi
  done
  echo "$other"
}

lab_kernel_package() {
  case $(distribution) in
    debian12) echo linux-image-6.12-cloud-amd64 ;;
    ubuntu*) echo linux-image-virtual ;;
    *) echo linux-image-cloud-amd64 ;;
  esac
}

lab_initramfs_needed() { ! grep -q '/virtiofs\.ko$' "/lib/modules/${1#/boot/vmlinuz-}/modules.builtin"; }

# lab_initramfs KERNEL DIR: writes DIR/initramfs, which loads what reaches the root and steps into it.
lab_initramfs() {
  local release=${1#/boot/vmlinuz-} root=$2/initramfs.d name file
  mkdir -p "$root/bin" "$root/root" "$root/dev"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for name in virtio_pci virtio_console virtiofs; do
    modprobe -S "$release" --show-depends "$name" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
  done | awk '!seen[$0]++' | while read -r file; do
    name=$(basename "${file%.ko*}").ko
    case $file in
      *.xz) busybox xzcat "$file" ;;
      *.zst) zstd -dcq "$file" ;;
      *) cat "$file" ;;
    esac >"$root/$name"
    echo "busybox insmod /$name"
  done >"$root/load"
  cat >"$root/init" <<'INIT'
#!/bin/busybox sh
. /load
busybox mount -t virtiofs root /root
exec busybox switch_root /root "$LAB_DIR/init"
INIT
  chmod +x "$root/init"
  (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$2/initramfs"
  rm -rf "$root"
}

# build_binaries: brings the binaries of the product up to date and sets BINARIES to where they are.
build_binaries() {
  local cargo=(cargo build --release -p vmm -p guest-agent -p host-bridge -p egress-proxy)
  # The linker, and a C compiler for the decompressors that are written in C.
  if ! command -v cc >/dev/null || [ ! -e /usr/include/stdio.h ]; then need_packages gcc libc6-dev; fi
  command -v cargo >/dev/null || die "cargo is not installed" "https://rustup.rs installs it; 1.88 or newer is needed"
  BINARIES=$root/target/x86_64-unknown-linux-gnu/release
  if [ ! -x "$BINARIES/coffer" ]; then
    echo "$me: building Cofferdam; the first time takes a few minutes" >&2
  elif [ ! -t 2 ] || [ -z "$(newer_sources "$BINARIES/.built")" ]; then
    cargo+=(--quiet)
  fi
  # cargo takes the static target from .cargo/config.toml of the directory it starts in.
  (cd "$root" && "${cargo[@]}" >&2) || die "the build failed"
  touch "$BINARIES/.built"
}

newer_sources() {
  (cd "$root" && find Cargo.toml Cargo.lock crates guest-agent host-bridge images vmm -newer "$1" -print -quit) 2>&1
}

# image_packages: what `coffer image build` and a session's scratch disk need of the host.
image_packages() {
  local packages=()
  command -v mmdebstrap >/dev/null || packages+=(mmdebstrap)
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || packages+=(debian-archive-keyring)
  [ -x /sbin/mke2fs ] || packages+=(e2fsprogs)
  [ "$(id -u)" = 0 ] || command -v newuidmap >/dev/null || packages+=(uidmap)
  need_packages "${packages[@]}"
}
