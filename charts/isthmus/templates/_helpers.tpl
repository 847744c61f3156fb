{{- /* The installation id: the value, else the one that a former installation has left. */ -}}
{{- define "isthmus.installationId" -}}
{{- $kept := lookup "v1" "ConfigMap" .Release.Namespace "isthmus-installation" -}}
{{- $former := dig "data" "installationId" "" (default dict $kept) -}}
{{- $given := .Values.installationId -}}
{{- if and $former $given (ne $former $given) -}}
{{- fail (printf "installationId is %q, but this installation is %q and its SLURM jobs carry that in their names. Remove the value; to change it, first delete all ModelDeployments, then the ConfigMap isthmus-installation." $given $former) -}}
{{- end -}}
{{- if not (or $given $former) -}}
{{- fail "installationId is missing: write 8 characters of a-z and 0-9 that no other installation on the same SLURM account has, such as --set installationId=prod0001, and keep them for the life of the installation." -}}
{{- end -}}
{{- default $former $given -}}
{{- end -}}

{{- define "isthmus.image" -}}
{{ .repository }}:{{ .tag }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}

{{- /* Settings by name as environment variables. */ -}}
{{- define "isthmus.settings" -}}
{{- $prefix := .prefix -}}
{{- range $name, $value := .settings }}
- name: {{ $prefix }}{{ upper $name }}
  value: {{ $value | toString | quote }}
{{- end -}}
{{- end -}}

{{- /* The setting front_pods: what is given for the pods of fronts; "" where nothing is. */ -}}
{{- define "isthmus.frontPods" -}}
{{- $given := omit .Values.front "image" -}}
{{- if not $given.imagePullSecrets -}}
{{- $given = set $given "imagePullSecrets" .Values.imagePullSecrets -}}
{{- end -}}
{{- $pods := dict -}}
{{- range $name, $value := $given -}}
{{- if $value -}}
{{- $pods = set $pods $name $value -}}
{{- end -}}
{{- end -}}
{{- if $pods -}}
{{- toJson $pods -}}
{{- end -}}
{{- end -}}

{{- define "isthmus.selector" -}}
app.kubernetes.io/name: isthmus
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{- define "isthmus.labels" -}}
{{ include "isthmus.selector" .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{- /* What both pods share; its argument has the values of the component. */ -}}
{{- define "isthmus.scheduling" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
