{{/* The Job of one migration: a list of the root and the migration goes in. Nothing of a Job's template can be changed, so
     another one has another name: helm takes the old one away, and its puller ends with the journal in order. A new
     pairing is another Job, too, because the old one may have failed without it. */}}
{{- define "plexodus.job" -}}
{{- $job := (index . 1).job -}}
{{- $pairing := dig "pairing" "string" "" (index . 1) | default "" -}}
{{- $hash := printf "%s%s" (include "plexodus.jobSpec" .) $pairing | sha256sum | trunc 6 -}}
{{- printf "%s-%s-%s" (include "plexodus.migration" .) ($job.until | default "ready") $hash -}}
{{- end -}}

{{- define "plexodus.jobSpec" -}}
{{- $root := index . 0 -}}
{{- $migration := index . 1 -}}
{{- $job := $migration.job -}}
{{- $owner := splitList ":" ($job.owner | default "1000:1000") -}}
# An agent that is away is waited for, some hours; what another try does not mend ends the Job at once.
backoffLimit: 100
{{- /* From here on, comments that are rendered would give each Job another name. */}}
{{- with $job.deadlineSeconds }}
activeDeadlineSeconds: {{ int64 . }}
{{- end }}
podFailurePolicy:
  rules:
    # A node that is drained is no failure.
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
    {{- /* 17 is missing on purpose, like 1, 11 and 16. Most of what it reports passes: the agent's pause between two stops
           of Plex, a Plex that is still being started, a cutover that ended because the VM was rebooted. What does not
           pass costs Plex nothing: without the right to stop it, after a stop_command that failed, and after a move to
           elsewhere, the agent refuses before Plex is stopped (agent/cutover). Only after --max-downtime, or if a part of
           Plex would not end, is Plex stopped again, with growing pauses. The alert PlexodusMigrationIsRetried names the
           migration after five failures. */}}
    # docs/exit-codes.md
    - action: FailJob
      onExitCodes:
        operator: In
        values: [2, 10, 12, 13, 14, 15]
template:
  metadata:
    labels:
      {{- include "plexodus.selectorLabels" . | nindent 6 }}
      {{- with include "plexodus.fleetLabels" $root }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with $root.Values.podLabels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    annotations:
      {{- with $root.Values.podAnnotations }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      # Other settings are another Job, too: they may be what was wrong.
      plexodus.io/settings: {{ toJson $migration.settings | sha256sum | trunc 12 | quote }}
  spec:
    restartPolicy: Never
    serviceAccountName: {{ include "plexodus.account" $root }}
    automountServiceAccountToken: false
    securityContext:
      {{- mergeOverwrite (dict "seccompProfile" (dict "type" "RuntimeDefault")) ($job.podSecurityContext | default dict) | toYaml | nindent 6 }}
    {{- with $root.Values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $root.Values.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- $affinity := deepCopy $root.Values.affinity }}
    {{- if $root.Values.fleet.onePerNode }}
    {{- $same := dict "labelSelector" (dict "matchLabels" (include "plexodus.fleetLabels" $root | fromYaml)) "topologyKey" "kubernetes.io/hostname" }}
    {{- $others := dig "podAntiAffinity" "requiredDuringSchedulingIgnoredDuringExecution" list $affinity }}
    {{- $affinity = mergeOverwrite $affinity (dict "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (append $others $same))) }}
    {{- end }}
    {{- with $affinity }}
    affinity:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $root.Values.fleet.priorityClassName }}
    priorityClassName: {{ . }}
    {{- end }}
    {{- with $root.Values.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    containers:
      - name: plexodus
        image: {{ include "plexodus.image" $root | quote }}
        imagePullPolicy: {{ $root.Values.image.pullPolicy }}
        args: [pull]
        envFrom:
          - configMapRef:
              name: {{ include "plexodus.migration" . }}-settings
        env:
          - name: PLEXODUS_TARGET
            value: /config
          - name: PLEXODUS_PAIRING_FILE
            value: /run/plexodus/PLEXODUS_PAIRING
          - name: PLEXODUS_LISTEN
            value: "[::]:8444"
          - name: PLEXODUS_UNTIL
            value: {{ $job.until | default "ready" }}
          {{- /* Without root, files can only have the user of the pod. */}}
          {{- if or $job.owner (not $job.securityContext) }}
          - name: PLEX_UID
            value: {{ first $owner | quote }}
          - name: PLEX_GID
            value: {{ last $owner | quote }}
          {{- end }}
          - name: POD_NAME
            valueFrom:
              fieldRef:
                fieldPath: metadata.name
          - name: POD_UID
            valueFrom:
              fieldRef:
                fieldPath: metadata.uid
        ports:
          - name: plexodus
            containerPort: 8444
        livenessProbe:
          httpGet:
            path: /healthz
            port: plexodus
          periodSeconds: 20
          failureThreshold: 6
        resources:
          {{- toYaml $root.Values.resources | nindent 10 }}
        securityContext:
          {{- if $job.securityContext }}
          {{- toYaml $job.securityContext | nindent 10 }}
          {{- else }}
          # Files get their owner, which only root can give.
          runAsUser: 0
          runAsGroup: 0
          runAsNonRoot: false
          readOnlyRootFilesystem: true
          allowPrivilegeEscalation: false
          capabilities:
            drop: [ALL]
            add: [CHOWN, DAC_OVERRIDE, FOWNER]
          {{- end }}
        volumeMounts:
          - name: config
            mountPath: /config
          - name: pairing
            mountPath: /run/plexodus
            readOnly: true
          - name: api
            mountPath: /var/run/secrets/kubernetes.io/serviceaccount
            readOnly: true
    volumes:
      - name: config
        persistentVolumeClaim:
          claimName: {{ $job.claim.name }}
      - name: pairing
        secret:
          secretName: {{ include "plexodus.secret" . }}
      - name: api
        projected:
          sources:
            - serviceAccountToken:
                path: token
            - configMap:
                name: kube-root-ca.crt
                items:
                  - key: ca.crt
                    path: ca.crt
            - downwardAPI:
                items:
                  - path: namespace
                    fieldRef:
                      fieldPath: metadata.namespace
{{- end -}}
