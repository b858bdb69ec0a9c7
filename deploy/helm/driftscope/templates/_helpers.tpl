{{- define "driftscope.name" -}}
{{- if contains "driftscope" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-driftscope" (.Release.Name | trunc 39 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "driftscope.selector" -}}
app.kubernetes.io/name: driftscope
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "driftscope.labels" -}}
{{ include "driftscope.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "driftscope.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* What one replica may have of its own, several must share. */}}
{{- define "driftscope.checked" -}}
{{- if and .Values.storage.url .Values.storage.existingClaim -}}
{{- fail "storage.url and storage.existingClaim are both set: files lie in one place. Leave one empty." -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- if not .Values.database.existingSecret -}}
{{- fail (printf "replicas is %d and database.existingSecret is empty: replicas share one PostgreSQL. Name the secret that has its address, or set replicas to 1." (int .Values.replicas)) -}}
{{- end -}}
{{- if not (or .Values.storage.url .Values.storage.existingClaim) -}}
{{- fail (printf "replicas is %d, and storage.url and storage.existingClaim are empty: replicas share the files of steps and reports. Set one of them, or set replicas to 1." (int .Values.replicas)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.webhook }}
{{- if and .existingSecret (eq .format "json") (not .secretKey) -}}
{{- fail "webhook.format is json and webhook.secretKey is empty: what is sent is signed. Name the entry of webhook.existingSecret that has at least 16 characters, or set webhook.format to slack." -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.serviceMonitor.keySecret) -}}
{{- fail "serviceMonitor.enabled without serviceMonitor.keySecret: /metrics needs a key with the scope read. Put one into a secret and name it." -}}
{{- end -}}
{{- end -}}

{{/* Of the service and of the container that makes the first key: both open the same database. */}}
{{- define "driftscope.environment" -}}
- name: DRIFTSCOPE_ALLOWED_HOSTS
  {{- $name := include "driftscope.name" . }}
  {{- $own := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) }}
  value: {{ concat $own .Values.allowedHosts | toJson | quote }}
{{- if .Values.database.existingSecret }}
- name: DRIFTSCOPE_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.existingSecret }}
      key: {{ .Values.database.key }}
{{- end }}
{{- if .Values.storage.url }}
- name: DRIFTSCOPE_STORAGE_URL
  value: {{ .Values.storage.url | quote }}
{{- else if .Values.storage.existingClaim }}
- name: DRIFTSCOPE_STORAGE_URL
  value: file:///shared
{{- end }}
{{- if .Values.publicUrl }}
- name: DRIFTSCOPE_PUBLIC_URL
  value: {{ .Values.publicUrl | quote }}
{{- end }}
{{- with .Values.webhook }}
{{- if .existingSecret }}
- name: DRIFTSCOPE_WEBHOOK_URL
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .urlKey }}
- name: DRIFTSCOPE_WEBHOOK_FORMAT
  value: {{ .format }}
{{- if .secretKey }}
- name: DRIFTSCOPE_WEBHOOK_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .secretKey }}
{{- end }}
{{- end }}
{{- end }}
{{- range $setting, $value := .Values.settings }}
- name: DRIFTSCOPE_{{ upper $setting }}
  value: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ $value | toJson | quote }}{{ end }}
{{- end }}
{{- end -}}

{{/* Of each page of metrics that Prometheus asks for. */}}
{{- define "driftscope.scraped" -}}
port: http
interval: {{ .Values.serviceMonitor.interval }}
authorization:
  credentials:
    name: {{ .Values.serviceMonitor.keySecret }}
    key: {{ .Values.serviceMonitor.key }}
{{- end -}}

{{- define "driftscope.mounts" -}}
- name: data
  mountPath: /data
- name: tmp
  mountPath: /tmp
- name: shm
  mountPath: /dev/shm
{{- if .Values.storage.existingClaim }}
- name: shared
  mountPath: /shared
{{- end }}
{{- end -}}

{{- define "driftscope.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
