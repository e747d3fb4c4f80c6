# Runs the container of a Deployment on this machine, as its manifest has it. Sourced by `run`.
#
#   start_deployment NAMESPACE NAME   makes its pod, lays out what would be mounted, starts the binary and
#                                     waits for its probes; sets ROOT, SERVE_PID, AUDIT
#   stop_deployment                   ends it by SIGTERM, within the grace that its manifest gives

# The image: the binary, the libraries that it links, and nothing else.
lay_out_image() { # ROOT
  local library
  mkdir -p "$1"
  cp "$OCTO_STS_BIN" "$1/octo-sts"
  for library in $(ldd "$OCTO_STS_BIN" | grep -o '/[^ ]*'); do
    mkdir -p "$1$(dirname "$library")"
    cp -L "$library" "$1$library"
  done
}

start_deployment() {
  local namespace="$1" deployment name template variables user group
  deployment="$(kubectl get deployment "$2" --namespace "$namespace" -o json)"
  name="$2-$RANDOM"
  make_pod "$namespace" "$name" "$(jq .spec.template <<<"$deployment")"
  POD="$(kubectl get pod "$name" --namespace "$namespace" -o json)"
  ROOT="$WORK/pods/$name"
  lay_out_image "$ROOT"
  mount_pod "$namespace" "$name" "$ROOT"
  variables="$(jq -r '.spec.containers[0].env[]? | select(.valueFrom | not) | "\(.name)=\(.value)"' <<<"$POD")"
  local from secret key
  while read -r from secret key; do
    variables+="$(printf '\n%s=' "$from"; kubectl get secret "$secret" --namespace "$namespace" -o json | jq -r --arg key "$key" '.data[$key] | @base64d')"
  done < <(jq -r '.spec.containers[0].env[]? | select(.valueFrom.secretKeyRef) | "\(.name) \(.valueFrom.secretKeyRef.name) \(.valueFrom.secretKeyRef.key)"' <<<"$POD")
  for map in $(jq -r '.spec.containers[0].envFrom[]?.configMapRef.name' <<<"$POD"); do
    variables+="$(printf '\n'; kubectl get configmap "$map" --namespace "$namespace" -o json | jq -r '.data | to_entries[] | "\(.key)=\(.value)"')"
  done
  # What every container has from its kubelet.
  variables+="$(printf '\nKUBERNETES_SERVICE_HOST=127.0.0.1\nKUBERNETES_SERVICE_PORT=%s' "$API_PORT")"
  user="$(jq -r .spec.securityContext.runAsUser <<<"$POD")" group="$(jq -r .spec.securityContext.runAsGroup <<<"$POD")"
  [ "$(id -u)" != 0 ] || chown -R "$user:$group" "$ROOT"
  start_container "$user" "$group" $(jq -r '.spec.containers[0].args[]' <<<"$POD") <<<"$variables"
  pass_probes
}

# The variables are on stdin, and the program has no others. Its root is read-only; where this user may, it
# runs as the user that the manifest names.
start_container() { # USER GROUP ARGUMENTS
  local user=() variables
  [ "$(id -u)" != 0 ] || user=(--userspec "$1:$2" --groups=)
  shift 2
  mapfile -t variables < <(sed "/^$/d")
  AUDIT="$WORK/serve-${#PIDS[@]}.out" SERVE_LOG="$WORK/serve-${#PIDS[@]}.log"
  "${UNSHARE[@]}" sh -ec 'root="$1"; shift; mount --bind "$root" "$root"; mount -o remount,bind,ro "$root"; exec "$@"' sh "$ROOT" \
    setpriv --no-new-privs env -i "${variables[@]}" "$(command -v chroot)" "${user[@]}" "$ROOT" /octo-sts "$@" >"$AUDIT" 2>"$SERVE_LOG" &
  SERVE_PID=$!
  PIDS+=("$SERVE_PID")
}

# As a kubelet asks: certificates are not verified.
probe() { # PROBE
  jq -r ".spec.containers[0] | .${1}Probe.httpGet as \$get | .ports[] | select(.name == \$get.port) |
    \"\(\$get.scheme | ascii_downcase)://127.0.0.1:\(.containerPort)\(\$get.path)\"" <<<"$POD" |
    xargs curl -sk --max-time 2 -o /dev/null -w '%{http_code}' || true
}

pass_probes() {
  local waited=0 probe
  until [ "$(probe startup)" = 200 ]; do
    waited=$((waited + 1))
    { [ $waited -le 100 ] && kill -0 "$SERVE_PID"; } || { cat "$SERVE_LOG"; exit 1; }
    sleep 0.1
  done
  for probe in startup liveness readiness; do check "its $probe probe passes" 200 "$(probe $probe)"; done
  check "its metrics are served" 1 "$(curl -sS "http://127.0.0.1:$(port metrics)/metrics" | grep -c '^octosts_build_info')"
  if [ "$(id -u)" = 0 ]; then
    check "it runs as nobody, and cannot become more" "Uid: 65532 CapEff: 0000000000000000 NoNewPrivs: 1" \
      "$(grep -E '^(Uid|CapEff):' "/proc/$SERVE_PID/status" | cut -f 1,2 | tr '\t\n' '  ')$(grep NoNewPrivs "/proc/$SERVE_PID/status" | tr '\t' ' ')"
  fi
  port sts >"$WORK/served"
}
port() { jq -r --arg name "$1" '.spec.containers[0].ports[] | select(.name == $name).containerPort' <<<"$POD"; }

stop_deployment() {
  local grace began=$SECONDS code=0
  grace="$(jq .spec.terminationGracePeriodSeconds <<<"$POD")"
  kill "$SERVE_PID"
  wait "$SERVE_PID" || code=$?
  check "on SIGTERM it ends by itself" 0 "$code"
  check "  within its grace" yes "$([ $((SECONDS - began)) -lt "$grace" ] && echo yes)"
}
