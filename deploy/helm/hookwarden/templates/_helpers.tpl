{{- define "hookwarden.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "hookwarden.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hookwarden.labels" -}}
{{ include "hookwarden.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "hookwarden.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "hookwarden.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- /* An image's name: a digest says exactly which, a tag only what somebody called it. */ -}}
{{- define "hookwarden.image" -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository .tag -}}
{{- end -}}
{{- end }}

{{- define "hookwarden.hasEnvoy" -}}
{{- if or (eq .Values.mode "proxy") (and (eq .Values.mode "sidecar") .Values.sidecar.envoy) }}true{{ end -}}
{{- end }}

{{- define "hookwarden.configMapName" -}}
{{- default (include "hookwarden.fullname" .) .Values.existingConfigMap -}}
{{- end }}

{{- define "hookwarden.upstreamHost" -}}
{{- if eq .Values.mode "sidecar" }}{{ default "127.0.0.1" .Values.upstream.host }}{{ else }}{{ .Values.upstream.host }}{{ end -}}
{{- end }}

{{- /* hookwarden.yaml: what the operator wrote, and what follows from how it is deployed. */ -}}
{{- define "hookwarden.config" -}}
{{- $listen := dict "admin" "0.0.0.0:9193" -}}
{{- if eq .Values.mode "authorizer" -}}
{{- $_ := set $listen "ext_authz" (printf "0.0.0.0:%d" (int .Values.authorizer.port)) -}}
{{- $_ := set $listen "allow_plaintext" true -}}
{{- else -}}
{{- $_ := set $listen "ext_authz" "unix:///run/hookwarden/ext_authz.sock" -}}
{{- $_ := set $listen "socket_mode" "0660" -}}
{{- end -}}
{{- $store := .Values.store -}}
{{- if eq $store "file" }}{{ $store = "file:///var/lib/hookwarden/state.redb" }}{{ end -}}
{{- $outcomes := default (ternary "access_log" "none" (eq (include "hookwarden.hasEnvoy" .) "true")) .Values.outcomes -}}
{{- toYaml (merge (dict "listen" $listen "store" $store "outcomes" $outcomes) .Values.config) -}}
{{- end }}

{{- /* What no schema of single values can see. Every template that makes something asks this first. */ -}}
{{- define "hookwarden.refuse" -}}
{{- $endpoints := default (dict) .Values.config.endpoints -}}
{{- range $key, $instead := dict "listen" "it follows from `mode`" "store" "set the value `store`, beside `config`" "outcomes" "set the value `outcomes`, beside `config`" }}
{{- if hasKey $.Values.config $key }}
{{- fail (printf "config.%s is the chart's to write: %s" $key $instead) }}
{{- end }}
{{- end }}
{{- if and (not .Values.existingConfigMap) (not $endpoints) }}
{{- fail "config.endpoints is empty, so every delivery would be refused; name at least one endpoint, or an existingConfigMap" }}
{{- end }}
{{- if not .Values.existingConfigMap }}
{{- range .Values.routes }}
{{- if not (hasKey $endpoints .endpoint) }}
{{- fail (printf "routes: %s names the endpoint `%s`, which is not in config.endpoints" .path .endpoint) }}
{{- end }}
{{- end }}
{{- $secrets := .Values.secrets }}
{{- range regexFindAll "/run/secrets/[^/\\s\"']+" (toYaml .Values.config) -1 }}
{{- $name := trimPrefix "/run/secrets/" . }}
{{- if not (has $name $secrets) }}
{{- fail (printf "config reads %s, but `secrets` does not name `%s`; a Secret is mounted at /run/secrets/<name>/, with a file per key" . $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (include "hookwarden.hasEnvoy" .) (not (include "hookwarden.upstreamHost" .)) }}
{{- fail "upstream.host is empty; name the Service that verified deliveries go to" }}
{{- end }}
{{- if and (include "hookwarden.hasEnvoy" .) .Values.envoy.tls.enabled (not .Values.envoy.tls.secretName) }}
{{- fail "envoy.tls.secretName is empty; name a Secret of type kubernetes.io/tls, or set envoy.tls.enabled to false where something in front ends TLS" }}
{{- end }}
{{- if and .Values.persistence.existingClaim (ne .Values.store "file") }}
{{- fail "persistence.existingClaim is used by `store: file` alone" }}
{{- end }}
{{- if and .Values.persistence.existingClaim (gt (int .Values.replicaCount) 1) }}
{{- fail "persistence.existingClaim holds a file with one writer: set replicaCount to 1, or share a store by redis://…" }}
{{- end }}
{{- if and (hasPrefix "redis" .Values.store) (ne .Values.mode "sidecar") .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) }}
{{- fail "store is a Redis, which the NetworkPolicy closes off; add a rule to networkPolicy.egress" }}
{{- end }}
{{- if and (eq .Values.mode "authorizer") .Values.networkPolicy.enabled (not .Values.authorizer.allowFrom) }}
{{- fail "authorizer.allowFrom is empty, so no gateway could ask; name the gateway's pods or namespace as NetworkPolicy peers" }}
{{- end }}
{{- if and .Values.upstream.protect (not .Values.upstream.podSelector) }}
{{- fail "upstream.protect needs upstream.podSelector, to know whose pods they are" }}
{{- end }}
{{- if and (ne .Values.mode "authorizer") .Values.sidecar.native (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "Kubernetes %s has no native sidecars; set sidecar.native to false" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and (eq .Values.mode "sidecar") .Values.podMonitor.enabled }}
{{- fail "podMonitor selects the chart's own pods, and `sidecar` has none; add port `metrics` to the monitor of your Deployment" }}
{{- end }}
{{- end }}
