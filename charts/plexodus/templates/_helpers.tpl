{{- define "plexodus.account" -}}
{{- .Values.serviceAccount.name | default .Release.Name -}}
{{- end -}}

{{- define "plexodus.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Labels that stay the same from version to version. */}}
{{- define "plexodus.selectorLabels" -}}
app.kubernetes.io/name: plexodus
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
plexodus.io/migration: {{ (index . 1).name }}
{{- end -}}

{{- define "plexodus.labels" -}}
app.kubernetes.io/name: plexodus
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Name of the objects of one migration. Takes a list of the root and the migration. A Job's name adds 13 characters. */}}
{{- define "plexodus.migration" -}}
{{- printf "%s-%s" (index . 0).Release.Name (index . 1).name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "plexodus.migrationLabels" -}}
{{ include "plexodus.labels" (index . 0) }}
plexodus.io/migration: {{ (index . 1).name }}
{{- with include "plexodus.fleetLabels" (index . 0) }}
{{ . }}
{{- end }}
{{- end -}}

{{- define "plexodus.secret" -}}
{{- $pairing := (index . 1).pairing | default dict -}}
{{- $pairing.existingSecret | default (printf "%s-pairing" (include "plexodus.migration" .)) -}}
{{- end -}}

{{/* Gives each migration what it does not set itself of the defaults. Every template that reads migrations begins with it. */}}
{{- define "plexodus.mergeDefaults" -}}
{{- if .Values.defaults -}}
{{- $merged := list -}}
{{- range .Values.migrations -}}
{{- $defaults := $.Values.defaults | toJson | replace "{name}" .name | fromJson -}}
{{- $merged = append $merged (mergeOverwrite $defaults .) -}}
{{- end -}}
{{- $_ := set .Values "migrations" $merged -}}
{{- $_ := unset .Values "defaults" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which a fleet is selected. */}}
{{- define "plexodus.fleetLabels" -}}
{{- with .Values.fleet.name -}}
plexodus.io/fleet: {{ . }}
{{- end -}}
{{- end -}}

{{/* Fails if two migrations would have the same objects. */}}
{{- define "plexodus.checkNames" -}}
{{- $names := list -}}
{{- range .Values.migrations -}}
{{- $name := include "plexodus.migration" (list $ .) -}}
{{- if has $name $names -}}
{{- fail (printf "migrations: two are called %s" $name) -}}
{{- end -}}
{{- $names = append $names $name -}}
{{- end -}}
{{- end -}}

{{/* One NetworkPolicy with what a pull needs. Takes a list of the root, the policy's name and the labels of its pods. */}}
{{- define "plexodus.networkPolicy" -}}
{{- $policy := (index . 0).Values.networkPolicy -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ index . 1 }}
  labels:
    {{- include "plexodus.labels" (index . 0) | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- index . 2 | toYaml | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports:
        - port: 8444
          protocol: TCP
  egress:
    # To the agents.
    - ports:
        - port: {{ $policy.agentPort }}
          protocol: TCP
      {{- with $policy.agents }}
      to:
        {{- range . }}
        - ipBlock:
            cidr: {{ . }}
        {{- end }}
      {{- end }}
    # To DNS and the API server. The chart does not know the address of either. The ports are those of their pods and nodes:
    # OpenShift's DNS has 5353, and the API server of MicroK8s has 16443.
    - ports:
        {{- range list 53 5353 }}
        - port: {{ . }}
          protocol: UDP
        - port: {{ . }}
          protocol: TCP
        {{- end }}
        {{- range list 443 6443 16443 }}
        - port: {{ . }}
          protocol: TCP
        {{- end }}
{{- end -}}

{{/* The names of this release's Jobs, as a regular expression: $1 is the migration. It has the name of each migration,
     because a release may have a name with which those of another one begin. */}}
{{- define "plexodus.jobPattern" -}}
{{- $prefix := printf "%s-" .Release.Name -}}
{{- if gt (len .Release.Name) 48 -}}
{{- $prefix = "" -}}
{{- end -}}
{{- $names := list -}}
{{- range .Values.migrations -}}
{{- $names = append $names (include "plexodus.migration" (list $ .) | trimPrefix $prefix) -}}
{{- end -}}
{{- printf "%s(%s)-(?:done|ready)-[0-9a-f]{6}" $prefix (join "|" $names) | replace "." "[.]" -}}
{{- end -}}

{{/* The names of the pods of these Jobs. The API server cuts them off after 58 characters, before its own five. A Job's name
     has up to 63, so the last ones of its hash may be missing. */}}
{{- define "plexodus.podPattern" -}}
{{- include "plexodus.jobPattern" . | replace "{6}" "{1,6}" }}.+
{{- end -}}

{{/* The label "release" of this release's figures, as a regular expression. Figures of a pod have none if no release knows
     it. They count as ours unless podName or podLabels of each migration name all of our pods. */}}
{{- define "plexodus.releasePattern" -}}
{{- $pattern := .Release.Name | replace "." "[.]" -}}
{{- $isKnown := true -}}
{{- range .Values.migrations -}}
{{- if not (or .podName .podLabels) -}}
{{- $isKnown = false -}}
{{- end -}}
{{- end -}}
{{- if $isKnown -}}
{{ $pattern }}
{{- else -}}
{{ printf "|%s" $pattern }}
{{- end -}}
{{- end -}}
