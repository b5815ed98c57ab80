{{- /* The containers and volumes, for the Deployment and for the patch of `sidecar`: one text, so that the two are
       hardened alike. Level `restricted` of the Pod Security Standards, and a read-only root file system. */ -}}

{{- define "hookwarden.containerSecurity" -}}
runAsUser: {{ . }}
runAsGroup: 65532
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "hookwarden.podSecurity" -}}
runAsNonRoot: true
# Owns the volumes: hookwarden may write its socket and state, and it and Envoy may read Secrets of mode 0440.
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "hookwarden.container" -}}
name: hookwarden
image: {{ include "hookwarden.image" (dict "repository" .Values.image.repository "tag" (default .Chart.AppVersion .Values.image.tag) "digest" .Values.image.digest) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, --config, /etc/hookwarden/hookwarden.yaml, --log-format, {{ .Values.logFormat }}, --log-level, {{ .Values.logLevel }}]
ports:
- { name: metrics, containerPort: 9193 }
{{- if eq .Values.mode "authorizer" }}
- { name: grpc, containerPort: {{ .Values.authorizer.port }} }
{{- end }}
# Ready means that a whole, valid configuration is loaded.
startupProbe:
  httpGet: { path: /readyz, port: metrics }
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: { path: /readyz, port: metrics }
  periodSeconds: 5
# Says only that the process answers: restarting helps against nothing else.
livenessProbe:
  httpGet: { path: /livez, port: metrics }
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
resources: {{- toYaml .Values.resources | nindent 2 }}
securityContext: {{- include "hookwarden.containerSecurity" 65532 | nindent 2 }}
volumeMounts:
# Directories and never single files: a mounted file keeps its first content, and no rotation would be seen.
- { name: hookwarden-config, mountPath: /etc/hookwarden, readOnly: true }
{{- range $index, $name := .Values.secrets }}
- { name: hookwarden-secret-{{ $index }}, mountPath: /run/secrets/{{ $name }}, readOnly: true }
{{- end }}
{{- if ne .Values.mode "authorizer" }}
- { name: hookwarden-socket, mountPath: /run/hookwarden }
{{- end }}
- { name: hookwarden-state, mountPath: /var/lib/hookwarden }
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "hookwarden.envoyContainer" -}}
{{- $scheme := ternary "HTTPS" "HTTP" .Values.envoy.tls.enabled -}}
name: envoy
image: {{ include "hookwarden.image" .Values.envoy.image }}
imagePullPolicy: {{ .Values.envoy.image.pullPolicy }}
# Hot restart would write to shared memory, and a container is replaced rather than restarted in place.
args: [envoy, --config-path, /etc/envoy/envoy.yaml, --concurrency, {{ .Values.envoy.concurrency | quote }}, --disable-hot-restart]
ports:
- { name: webhooks, containerPort: {{ .Values.envoy.port }} }
# /healthz is the one route that is not checked; it says that the listener and its TLS work.
startupProbe:
  httpGet: { path: /healthz, port: webhooks, scheme: {{ $scheme }} }
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: { path: /healthz, port: webhooks, scheme: {{ $scheme }} }
  periodSeconds: 5
livenessProbe:
  httpGet: { path: /healthz, port: webhooks, scheme: {{ $scheme }} }
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
{{- if eq .Values.mode "proxy" }}
lifecycle:
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
  preStop: { sleep: { seconds: {{ .Values.envoy.preStopSeconds }} } }
{{- else }}
  preStop: { exec: { command: [sleep, {{ .Values.envoy.preStopSeconds | quote }}] } }
{{- end }}
{{- end }}
resources: {{- toYaml .Values.envoy.resources | nindent 2 }}
# A user of its own with hookwarden's group: all that the socket's mode 0660 asks for.
securityContext: {{- include "hookwarden.containerSecurity" 65533 | nindent 2 }}
volumeMounts:
- { name: hookwarden-envoy, mountPath: /etc/envoy, readOnly: true }
{{- if .Values.envoy.tls.enabled }}
- { name: hookwarden-tls, mountPath: /etc/envoy-tls, readOnly: true }
{{- end }}
{{- if and .Values.upstream.tls.enabled .Values.upstream.tls.caSecret }}
- { name: hookwarden-upstream-ca, mountPath: /etc/envoy-upstream, readOnly: true }
{{- end }}
# Not read-only: connecting to a socket counts as writing to it.
- { name: hookwarden-socket, mountPath: /run/hookwarden }
{{- with .Values.envoy.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "hookwarden.volumes" -}}
- name: hookwarden-config
  configMap: { name: {{ include "hookwarden.configMapName" . }} }
{{- range $index, $name := .Values.secrets }}
- name: hookwarden-secret-{{ $index }}
  secret: { secretName: {{ $name }}, defaultMode: 0440 }
{{- end }}
# Lives as long as the pod, unless a claim is named.
- name: hookwarden-state
{{- if .Values.persistence.existingClaim }}
  persistentVolumeClaim: { claimName: {{ .Values.persistence.existingClaim }} }
{{- else }}
  emptyDir: { sizeLimit: 64Mi }
{{- end }}
{{- if ne .Values.mode "authorizer" }}
# Holds one socket and no data; in memory, it counts against the containers' limits, hence the size.
- name: hookwarden-socket
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
{{- end }}
{{- if include "hookwarden.hasEnvoy" . }}
- name: hookwarden-envoy
  configMap: { name: {{ include "hookwarden.fullname" . }}-envoy }
{{- if .Values.envoy.tls.enabled }}
- name: hookwarden-tls
  secret: { secretName: {{ .Values.envoy.tls.secretName }}, defaultMode: 0440 }
{{- end }}
{{- if and .Values.upstream.tls.enabled .Values.upstream.tls.caSecret }}
- name: hookwarden-upstream-ca
  secret: { secretName: {{ .Values.upstream.tls.caSecret }}, defaultMode: 0440 }
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
