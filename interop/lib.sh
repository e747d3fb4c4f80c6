# What the suites share: source it. Starts `octo-sts dev` (the server between its emulators) and ends
# it with the suite.
#
#   start_dev [ARGUMENTS]   sets STS (the server's URL), GITHUB (the emulated API's), ISSUER, and makes
#                           `token NAME [QUERY]` print a fresh OIDC token for that sample policy
#   need COMMAND WHAT       skips the suite where a command is missing
#   check WHAT WANTED GOT   one assertion
set -euo pipefail
WORK="$(mktemp -d)"
PIDS=()

cleanup() {
  local pid
  for pid in "${PIDS[@]:-}"; do [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$WORK"
}
trap cleanup EXIT

need() { command -v "$1" >/dev/null || { echo "needs $2"; exit 77; }; }

check() {
  if [ "$2" = "$3" ]; then echo "ok: $1"; else
    printf 'not ok: %s\n  wanted: %s\n  got:    %s\n' "$1" "$2" "$3"
    exit 1
  fi
}

start_dev() {
  "$OCTO_STS_BIN" dev "$@" >"$WORK/dev.log" 2>&1 &
  PIDS+=($!)
  local waited=0
  until grep -q 'Ctrl-C' "$WORK/dev.log" && STS="$(sed -n 's/^ *server  *\(http[^ ]*\).*/\1/p' "$WORK/dev.log" | head -n 1)" && [ -n "$STS" ]; do
    waited=$((waited + 1))
    [ $waited -le 300 ] || { cat "$WORK/dev.log"; exit 1; }
    sleep 0.1
  done
  GITHUB="$(sed -n 's/^ *GitHub  *\(http[^ ]*\).*/\1/p' "$WORK/dev.log" | head -n 1)"
  ISSUER="$(sed -n 's/^ *issuer  *\(http[^ ]*\).*/\1/p' "$WORK/dev.log" | head -n 1)"
  TOKENS="$(sed -n 's|^ *TOKEN=$(curl -s "*\(http://[^/]*\)/token/.*|\1|p' "$WORK/dev.log" | head -n 1)"
}

token() { curl -sSf "$TOKENS/token/$1${2:+?$2}"; }
