#!/usr/bin/env bash
# The guest's half of benches/tools.py: runs in the shared folder, which holds tree.tar, repository and perhaps npm, as the
# ordinary user, who may sudo; prints one line of JSON per figure. Each turn does everything on the share, then on the guest's own disk.
set -euo pipefail

runs=$1
share=$PWD
own=$(mktemp -d /var/tmp/bench-XXXXXXXX)
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' HOME=$own

# The archive lies on the guest's own disk for both, and so does whatever npm downloaded.
cp "$share/tree.tar" "$own/tree.tar"
cp -r "$share/repository" "$own/repository"

# timed TOOL PLACE COMMAND...
timed() {
  local tool=$1 place=$2 begin end
  shift 2
  sync
  begin=${EPOCHREALTIME/./}
  "$@" >/dev/null
  end=${EPOCHREALTIME/./}
  echo "{\"tool\": \"$tool\", \"place\": \"$place\", \"microseconds\": $((end - begin))}"
}

forget() { sync && echo 3 | sudo tee /proc/sys/vm/drop_caches >/dev/null; }

# npm_ci PROJECT [OPTION...]
npm_ci() { env -C "$1" npm ci --no-audit --no-fund --no-update-notifier "${@:2}" >/dev/null; }

npm_works() {
  [ -d "$share/npm" ] || { echo "skipped npm ci: no --npm PROJECT given"; return 1; }
  command -v npm >/dev/null || { echo "skipped npm ci: no npm in the image"; return 1; }
  cp -r "$share/npm" "$own/npm"
  # The first run fills npm's cache; the others must not wait for a network.
  npm_ci "$own/npm" 2>"$own/npm.log" || { echo "skipped npm ci: it fails: $(tail -n 1 "$own/npm.log")"; return 1; }
}

turn() {
  local place=$1 folder=${!1}
  # Copied files are new to git: it reads each once.
  git -C "$folder/repository" status >/dev/null
  timed "git status, warm" "$place" git -C "$folder/repository" status
  forget
  timed "git status, cold" "$place" git -C "$folder/repository" status
  mkdir "$folder/out"
  timed "untar" "$place" tar -x -f "$own/tree.tar" -C "$folder/out"
  forget
  timed "rm -rf, cold" "$place" rm -rf "$folder/out"
  [ "$npm" = no ] || timed "npm ci" "$place" npm_ci "$folder/npm" --offline
}

npm=no
npm_works && npm=yes
for ((i = 0; i < runs; i++)); do
  turn share
  turn own
done
rm -rf "$own"
