{{- define "imageloom.labels" -}}
app.kubernetes.io/name: imageloom
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "imageloom.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The same for every pod: no root, nothing written but where it is mounted. */}}
{{- define "imageloom.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "imageloom.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Settings of every process, and of one kind of them. Takes root and env. */}}
{{- define "imageloom.env" -}}
- name: IMAGELOOM_STORAGE_URL
  value: {{ .root.Values.storageUrl | quote }}
{{- range $name, $value := merge (deepCopy .env) .root.Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "imageloom.envFrom" -}}
{{- with .Values.secrets.storage }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}
