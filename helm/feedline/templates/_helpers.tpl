{{- /* At most 52 characters: with the 11 of a revision's checksum it is still a label. */ -}}
{{- define "feedline.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $made := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- regexReplaceAll "-+$" (.Values.fullnameOverride | default $made | trunc 52) "" -}}
{{- end -}}

{{- define "feedline.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "feedline.labels" -}}
{{ include "feedline.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: connector
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "feedline.configMap" -}}
{{- printf "%s-%s" (include "feedline.fullname" .) (.Values.config | default "" | sha256sum | trunc 10) -}}
{{- end -}}

{{- /* What extraEnv sets, by name. It overrides the configuration, and upper and lower case are equal. A value from a Secret or ConfigMap is empty here. */ -}}
{{- define "feedline.extraEnv" -}}
{{- $set := dict -}}
{{- range .Values.extraEnv -}}
{{- $_ := set $set (ternary (upper .name) .name (hasPrefix "FEEDLINE__" .name)) (.value | default "") -}}
{{- end -}}
{{- $set | toJson -}}
{{- end -}}

{{- /* The bytes of a size like 64Mi. The API server may write the same size in another unit. */ -}}
{{- define "feedline.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[A-Za-z]*$" .) | default 1) -}}
{{- end -}}

{{- /* Describes the volume of the checkpoint, which a StatefulSet can never change. */ -}}
{{- define "feedline.claim" -}}
{{- with .persistence -}}
{{- if and .enabled (not .existingClaim) -}}
{{- printf "%s bytes, class %q, %s" (include "feedline.bytes" .size) (.storageClass | default "") (join ", " .accessModes) -}}
{{- else -}}
none
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "feedline.claimThatIsThere" -}}
{{- with first (.spec.volumeClaimTemplates | default list) -}}
{{- printf "%s bytes, class %q, %s" (include "feedline.bytes" .spec.resources.requests.storage) (.spec.storageClassName | default "") (join ", " .spec.accessModes) -}}
{{- else -}}
none
{{- end -}}
{{- end -}}

{{- define "feedline.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "feedline.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "feedline.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}
