# The world around the cluster: the emulated GitHub under its real names, servers that are reached as
# https://octo-sts.example.com, pods that run on this machine. Sourced after cluster.sh.
EXAMPLES="$(cd "$CLUSTER_FOLDER/../../examples/kubernetes" && pwd)" POLICIES="$(cd "$CLUSTER_FOLDER/../../examples/policies" && pwd)"
DOMAIN=octo-sts.example.com
GKE=https://container.googleapis.com/v1/projects/production/locations/europe-west1/clusters/main
EKS=https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE
AKS=https://oidc.azure.com/72f988bf-86f1-41af-91ab-2d7cd011db47/
GRANTED=0

# Runs COMMAND where the mounts of a pod, below FOLDER, are at their places: in a mount namespace.
UNSHARE=(unshare --mount)
[ "$(id -u)" = 0 ] || UNSHARE+=(--map-root-user)
need unshare util-linux
"${UNSHARE[@]}" true 2>/dev/null || { echo "needs mount namespaces (unshare --mount)"; exit 77; }
cat >"$WORK/in-pod" <<POD
#!/bin/sh
folder="\$1"
shift
exec ${UNSHARE[*]} sh -c 'mount --bind "\$0/var/run" "\$(readlink -f /var/run)" && exec "\$@"' "\$folder" "\$@"
POD
printf '#!/bin/sh\nexec "%s" "%s" "%s" "$@"\n' "$WORK/in-pod" "$WORK/pods/octo-sts" "$OCTO_STS_BIN" >"$WORK/octo-sts-in-pod"
chmod +x "$WORK/in-pod" "$WORK/octo-sts-in-pod"

start_world() {
  signing_key rsa-one rsa
  signing_key ec-two ec
  # What the internet trusts, which does not know the cluster's CA.
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=internet \
    -keyout "$WORK/internet.key" -out "$WORK/internet.pem" 2>/dev/null
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=front \
    -CA "$WORK/internet.pem" -CAkey "$WORK/internet.key" -addext basicConstraints=CA:FALSE \
    -addext "subjectAltName=DNS:github.com,DNS:api.github.com,DNS:$DOMAIN" \
    -keyout "$WORK/front.key" -out "$WORK/front.pem" 2>/dev/null
  # That server only sets the stage: its App may do all that the policies need.
  start_dev --port 0 --policies "$POLICIES" --env "$WORK/env"
  node "$CLUSTER_FOLDER/front.mjs" "$GITHUB" "$WORK/front.pem" "$WORK/front.key" $DOMAIN "$WORK/served" >"$WORK/proxy" &
  PIDS+=($!)
  until [ -s "$WORK/proxy" ]; do kill -0 "${PIDS[-1]}" && sleep 0.1; done
  PROXY="http://127.0.0.1:$(cat "$WORK/proxy")"
  push_policies
}

# As the guide has it: committed and pushed. Those of the guide as printed, the providers' with their
# placeholders filled in, and some that differ in one condition.
push_policies() {
  local minted folder="$WORK/repository/.github/chainguard" fill='s|NAMESPACE:SERVICE_ACCOUNT_NAME|default:github-automation|'
  export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL="$WORK/gitconfig" GIT_TERMINAL_PROMPT=0 HOME="$WORK"
  git config --global user.name Somebody
  git config --global user.email somebody@example.com
  minted="$(curl -sSf -H "Authorization: Bearer $(token gitops)" "$STS/sts/exchange?scope=octo-org/hello&identity=gitops" | jq -r .token)"
  git clone -q "http://x-access-token:$minted@${GITHUB#http://}/octo-org/hello.git" "$WORK/repository"
  for policy in k8s-automation gitops pipeline namespaces claims; do cp "$POLICIES/$policy.sts.yaml" "$folder/"; done
  sed "$fill; s|^issuer: .*|issuer: $GKE|" "$POLICIES/gke.sts.yaml" >"$folder/gke.sts.yaml"
  sed "$fill; s|^issuer: .*|issuer: $EKS|" "$POLICIES/eks.sts.yaml" >"$folder/eks.sts.yaml"
  sed "$fill; s|TENANT_ID|72f988bf-86f1-41af-91ab-2d7cd011db47|" "$POLICIES/aks.sts.yaml" >"$folder/aks.sts.yaml"
  sed 's|/$||' "$folder/aks.sts.yaml" >"$folder/aks-slash.sts.yaml"
  sed 's|^subject: .*|subject_pattern: system:serviceaccount:.*:github-automation|' "$POLICIES/claims.sts.yaml" >"$folder/claims-anywhere.sts.yaml"
  sed "s|^issuer: .*|issuer: https://127.0.0.1:$API_PORT|" "$POLICIES/k8s-automation.sts.yaml" >"$folder/cluster.sts.yaml"
  sed 's|^issuer: .*|&/|' "$POLICIES/k8s-automation.sts.yaml" >"$folder/slash.sts.yaml"
  sed 's|^subject: .*|subject: github-automation|' "$POLICIES/k8s-automation.sts.yaml" >"$folder/bare.sts.yaml"
  cp "$POLICIES/k8s-automation.sts.yaml" "$WORK/repository/.github/misplaced.sts.yaml"
  git -C "$WORK/repository" add .github
  git -C "$WORK/repository" commit -q -m "Add octo-sts trust policies for Kubernetes"
  git -C "$WORK/repository" push -q origin main
}

# A server with the issuers file on stdin, reached by its domain from now on; `in-pod` first: among the
# mounts of the pod octo-sts. Ends the server before it.
serve() {
  local bin="$OCTO_STS_BIN" inside=
  [ "${1:-}" != in-pod ] || { shift; inside=yes; }
  cat >"$WORK/issuers.yaml"
  if [ -n "${SERVE_PID:-}" ]; then kill "$SERVE_PID" && wait "$SERVE_PID" || true; fi
  [ -z "$inside" ] || OCTO_STS_BIN="$WORK/octo-sts-in-pod"
  start_serve "$WORK/env" STS_DOMAIN=$DOMAIN GITHUB_BASE_URL= OIDC_ISSUERS= OIDC_ALLOW_PRIVATE_NETWORKS= \
    "OIDC_ISSUERS_FILE=$WORK/issuers.yaml" "HTTPS_PROXY=$PROXY" "SSL_CERT_FILE=$WORK/internet.pem" \
    "STS_TLS_CERT_FILE=$WORK/front.pem" "STS_TLS_KEY_FILE=$WORK/front.key" "$@"
  OCTO_STS_BIN="$bin"
  echo "$PORT" >"$WORK/served"
}

# Exchanges a token by the policy: sets STATUS; the reply is in a file, its headers in another.
exchange() { # TOKEN POLICY
  STATUS="$(curl -sS -D "$WORK/headers" -o "$WORK/reply" -w '%{http_code}' --proxy "$PROXY" --cacert "$WORK/internet.pem" \
    --suppress-connect-headers -H "Authorization: Bearer $1" "https://$DOMAIN/sts/exchange?scope=octo-org/hello&identity=$2")"
}
granted_to() { # WHAT TOKEN POLICY
  exchange "$2" "$3"
  check "$1" granted "$(jq -r 'if .token then "granted" else "\(.details[0].reason) \(.message)" end' "$WORK/reply")"
  GRANTED=$((GRANTED + 1))
}
# Every denial says its reason and, of a policy, which conditions failed, and mints nothing.
refused_to() { # WHAT REASON FAILED TOKEN POLICY
  local before
  before="$(minted)"
  exchange "$4" "$5"
  check "$1" "$2 $3" "$(jq -r 'if .token then "granted" else "\(.details[0].reason) \(.details[0].metadata.failed)" end' "$WORK/reply")"
  audited >/dev/null
  check "  mints nothing" "$before" "$(minted)"
}
# How many tokens the server has minted, by what it records.
minted() { jq -s '[.[] | select(.token)] | length' "$AUDIT"; }
# The record of the last exchange, which is written after its reply; after a pod's script, the last one.
audited() { # [ARGUMENTS of jq]
  local waited=0 id
  id="$(sed -n 's/^x-request-id: //Ip' "$WORK/headers" | tr -d '\r')"
  until jq -e -s --arg id "$id" 'any($id == "" or .request_id == $id)' "$AUDIT" >/dev/null; do
    waited=$((waited + 1))
    [ $waited -le 100 ] || { echo "no record of $id"; exit 1; }
    sleep 0.05
  done
  tail -n 1 "$AUDIT" | jq "$@"
}

# Runs a pod's script with its variables among its mounts. What cannot be here, `gh repo` and `gh pr`, which
# need GraphQL, is replaced by sed scripts; each must change one line.
run_pod() { # NAMESPACE NAME [SED-SCRIPT …]
  local namespace="$1" name="$2" folder="$WORK/pods/$1-$2" container script edit edited
  shift 2
  container="$(kubectl get pod "$name" --namespace "$namespace" -o json | jq '.spec.containers[0]')"
  mount_pod "$namespace" "$name" "$folder"
  script="$(jq -r '(.command + .args)[-1]' <<<"$container")"
  for edit in "$@"; do
    edited="$(sed "$edit" <<<"$script")"
    check "  one line is adapted: $edit" 1 "$(diff <(echo "$script") <(echo "$edited") | grep -c '^>')"
    script="$edited"
  done
  mkdir -p "$folder/bin" "$folder/home"
  printf '#!/bin/sh\n' | tee "$folder/bin/apk" >"$folder/bin/sleep"
  chmod +x "$folder/bin"/*
  (
    cd "$folder/home"
    while read -r variable; do export "${variable?}"; done < <(jq -r '.env[] | "\(.name)=\(.value)"' <<<"$container")
    export PATH="$folder/bin:$PATH" HOME="$folder/home" HTTPS_PROXY="$PROXY" CURL_CA_BUNDLE="$WORK/internet.pem" \
      SSL_CERT_FILE="$WORK/internet.pem" GIT_SSL_CAINFO="$WORK/internet.pem" GH_NO_UPDATE_NOTIFIER=1
    "$WORK/in-pod" "$folder" /bin/sh -ec "$script"
  ) >"$WORK/printed" 2>"$WORK/complained" || { cat "$WORK/printed" "$WORK/complained"; tail -n 3 "$AUDIT"; exit 1; }
  : >"$WORK/headers"
  GRANTED=$((GRANTED + 1))
}

part() { jq -rR "split(\".\")[$2] | gsub(\"-\"; \"+\") | gsub(\"_\"; \"/\") | @base64d" <<<"$1"; }
head_of() { part "$1" 0; }
payload() { part "$1" 1; }
encoded() { base64 -w 0 | tr +/ -_ | tr -d =; }
# The token with other claims, signed by the cluster's RSA key: what an API server gives only to who waits.
signed() { # TOKEN JQ-FILTER
  local signed
  signed="${1%%.*}.$(payload "$1" | jq -c "$2" | tr -d '\n' | encoded)"
  printf '%s.%s' "$signed" "$(printf %s "$signed" | openssl dgst -sha256 -sign "$PKI/rsa-one.key" -binary | encoded)"
}
aged() { signed "$1" "(.exp, .iat, .nbf) -= $2"; }
of_issuer() { signed "$2" ".iss = \"$1\""; }
status_at_api() { curl -s -o /dev/null -w '%{http_code}' --cacert "$PKI/ca.crt" -H "Authorization: Bearer $1" "$API/api"; }
