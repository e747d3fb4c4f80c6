{{- define "octo-sts.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "octo-sts.fullname" -}}
{{- $name := include "octo-sts.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "octo-sts.selector" -}}
app.kubernetes.io/name: {{ include "octo-sts.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "octo-sts.labels" -}}
{{ include "octo-sts.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "octo-sts.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "octo-sts.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Whether an entry of the issuers file is the pod's own cluster: then the pod's token is mounted. */}}
{{- define "octo-sts.inCluster" -}}
{{- range .Values.issuers.list }}{{ if .in_cluster }}true{{ end }}{{ end -}}
{{- end -}}

{{- define "octo-sts.hasIssuers" -}}
{{- if or .Values.issuers.list .Values.issuers.onlyListed }}true{{ end -}}
{{- end -}}

{{- define "octo-sts.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* The hosts of the Ingress. A host there has no port; the domain may. */}}
{{- define "octo-sts.ingressHosts" -}}
{{- range default (list .Values.domain) .Values.ingress.hosts }}
- {{ regexReplaceAll ":[0-9]+$" . "" | quote }}
{{- end -}}
{{- end -}}

{{/* What the schema cannot say in words of use. */}}
{{- define "octo-sts.required" -}}
{{- $_ := required "domain is required: the host by which callers reach this server" .Values.domain -}}
{{- if .Values.appsFile.existingSecret -}}
{{- if or .Values.githubApp.id .Values.githubApp.existingSecret .Values.githubApp.privateKey -}}
{{- fail "appsFile: it replaces githubApp; set only one of them" -}}
{{- end -}}
{{- else -}}
{{- $_ := required "githubApp.id is required: the id of the GitHub App that mints; or set appsFile.existingSecret" .Values.githubApp.id -}}
{{- if and .Values.githubApp.existingSecret .Values.githubApp.privateKey -}}
{{- fail "githubApp: only one of existingSecret and privateKey" -}}
{{- end -}}
{{- $hasKey := or .Values.githubApp.existingSecret .Values.githubApp.privateKey -}}
{{- if and .Values.kms.keys $hasKey -}}
{{- fail "kms.keys: they replace githubApp.existingSecret and githubApp.privateKey; set only one of them" -}}
{{- end -}}
{{- if not (or $hasKey .Values.kms.keys) -}}
{{- fail "githubApp: the App's private key is required: existingSecret, or privateKey, or kms.keys" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.kms.keys .Values.appsFile.existingSecret -}}
{{- fail "kms.keys: with appsFile, the file names the keys" -}}
{{- end -}}
{{- if and .Values.kms.keys (not .Values.kms.provider) -}}
{{- fail "kms.provider is required with kms.keys: gcp, aws or akv" -}}
{{- end -}}
{{- if and .Values.proxy.url .Values.proxy.existingSecret -}}
{{- fail "proxy: only one of url and existingSecret" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not (hasKey .Values.settings "STS_TRUSTED_PROXY_HOPS")) -}}
{{- fail "settings.STS_TRUSTED_PROXY_HOPS is required with ingress.enabled: how many proxies in front add to X-Forwarded-For, as text; \"1\" where the ingress controller is the only one. Without it all callers share one address and its rate limit" -}}
{{- end -}}
{{- if and .Values.issuers.onlyListed (not .Values.issuers.list) -}}
{{- fail "issuers.onlyListed without issuers.list: nobody could exchange anything" -}}
{{- end -}}
{{- end -}}

{{/* Whether deliveries have a port of their own. */}}
{{- define "octo-sts.webhookPort" -}}
{{- if and .Values.webhook.existingSecret .Values.webhook.separatePort }}true{{ end -}}
{{- end }}
