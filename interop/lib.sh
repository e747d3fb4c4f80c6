# What the suites share: source it. Starts `octo-sts dev` (the server between its emulators) and ends
# it with the suite.
#
#   start_dev [ARGUMENTS]   sets STS (the server's URL), GITHUB (the emulated API's), ISSUER, and makes
#                           `token NAME [QUERY]` print a fresh OIDC token for that sample policy
#   need COMMAND WHAT       skips the suite where a command is missing
#   need_package COMMAND PACKAGE  the same, after trying to install it from Debian
#   check WHAT WANTED GOT   one assertion
#   npm_ci                  installs what the suite's package-lock.json pins, sets NODE_MODULES
#   pip_install             installs what the suite's requirements.txt pins, sets PYTHON to its interpreter
#   granted, denied         how many attempts of each outcome the server has recorded, once all are told
#   start_serve FILE [NAME=VALUE …]
#                           a server of its own between the emulators, by the variables that `dev --env FILE`
#                           wrote and these; sets PORT, SERVED (its URL), SERVE_PID, SERVE_LOG and AUDIT, the
#                           file of its audit records
#   free_port               prints a port that nobody listens on
set -euo pipefail
: "${OCTO_STS_BIN:?is not set; run suites by interop/run NAME}" "${INTEROP_CACHE:?is not set; run suites by interop/run NAME}"
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

need_package() {
  command -v "$1" >/dev/null || { [ "$(id -u)" = 0 ] && apt-get update -q && apt-get install -y -q "$2"; } || true
  need "$1" "$2"
}

check() {
  if [ "$2" = "$3" ]; then echo "ok: $1"; else
    printf 'not ok: %s\n  wanted: %s\n  got:    %s\n' "$1" "$2" "$3"
    exit 1
  fi
}

start_dev() {
  "$OCTO_STS_BIN" dev "$@" >"$WORK/dev.log" 2>&1 &
  local dev=$!
  PIDS+=($dev)
  local waited=0
  until grep -q 'Ctrl-C' "$WORK/dev.log" && STS="$(sed -n 's/^ *server  *\(http[^ ]*\).*/\1/p' "$WORK/dev.log" | head -n 1)" && [ -n "$STS" ]; do
    waited=$((waited + 1))
    { [ $waited -le 300 ] && kill -0 "$dev"; } || { cat "$WORK/dev.log"; exit 1; }
    sleep 0.1
  done
  GITHUB="$(sed -n 's/^ *GitHub  *\(http[^ ]*\).*/\1/p' "$WORK/dev.log" | head -n 1)"
  ISSUER="$(sed -n 's/^ *issuer  *\(http[^ ]*\).*/\1/p' "$WORK/dev.log" | head -n 1)"
  # These lines come last, and not at all where no token can be made up for a policy.
  for waited in 1 2 3 4 5; do
    TOKENS="$(sed -n 's|^ *TOKEN=$(curl -s "*\(http://[^/]*\)/token/.*|\1|p' "$WORK/dev.log" | head -n 1)"
    [ -z "$TOKENS" ] || break
    sleep 0.1
  done
}

# In a shell of its own: the variables are the server's, not the suite's.
token() { curl -sSf "$TOKENS/token/$1${2:+?$2}"; }

# Attempts are told in the order in which they ended, so once one more of ours is told, all before it are.
recorded() {
  local mark="mark-$RANDOM$RANDOM" waited=0
  curl -s -o /dev/null -H 'Authorization: Bearer no.no.no' "$STS/sts/exchange?scope=octo-org&identity=$mark"
  until grep -q -- "$mark" "$WORK/dev.log"; do
    waited=$((waited + 1))
    [ $waited -le 100 ] || { echo "the server does not record attempts"; exit 1; }
    sleep 0.05
  done
  grep -v -e ' mark-[0-9]* ' "$WORK/dev.log" | grep -c -E "^ *[0-9]{4}-.*Z  (rest|grpc)  $1  " || true
}
granted() { recorded granted; }
denied() { recorded denied; }

npm_ci() {
  need npm "npm, as comes with Node"
  local folder="$INTEROP_CACHE/$(basename "$PWD")-$(cat package.json package-lock.json | sha256sum | cut -c 1-12)"
  if [ ! -e "$folder/installed" ]; then
    mkdir -p "$folder"
    cp package.json package-lock.json "$folder/"
    npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --silent
    touch "$folder/installed"
  fi
  NODE_MODULES="$folder/node_modules"
}

pip_install() {
  need python3 "Python 3"
  local folder="$INTEROP_CACHE/$(basename "$PWD")-python-$(sha256sum requirements.txt | cut -c 1-12)"
  if [ ! -e "$folder/installed" ]; then
    rm -rf "$folder"
    python3 -m venv "$folder" || { echo "needs Python's venv"; exit 77; }
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
    touch "$folder/installed"
  fi
  PYTHON="$folder/bin/python"
}

start_serve() {
  local file="$1" name waited=0
  shift
  name="$WORK/serve-${#PIDS[@]}"
  AUDIT="$name.out" SERVE_LOG="$name.log"
  (
    set -a
    . "$file"
    for assignment in "$@"; do export "$assignment"; done
    exec "$OCTO_STS_BIN" serve
  ) >"$AUDIT" 2>"$name.log" &
  SERVE_PID=$!
  PIDS+=("$SERVE_PID")
  until PORT="$(sed -n 's/.*"message":"serving".*:\([0-9]\{1,5\}\)".*/\1/p' "$name.log")" && [ -n "$PORT" ]; do
    waited=$((waited + 1))
    { [ $waited -le 100 ] && kill -0 "$SERVE_PID"; } || { cat "$name.log"; exit 1; }
    sleep 0.1
  done
  SERVED="http://127.0.0.1:$PORT"
}

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)) && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo $port
}
