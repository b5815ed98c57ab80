{{- /* The Envoy configuration of deploy/envoy.yaml, with this release's routes; the reasons for each setting are there. A
       test compares the two, so that a correction there is not forgotten here. What differs on purpose: the certificate
       comes by SDS, so that a renewed one is taken up, and the upstream is a Service. */ -}}

{{- define "hookwarden.route" -}}
{{- if hasSuffix "/*" .path -}}
- match: { prefix: {{ trimSuffix "*" .path | quote }} }
{{- else -}}
- match: { path: {{ .path | quote }} }
{{- end }}
  route: { cluster: app, timeout: {{ .timeout }} }
  typed_per_filter_config:
    envoy.filters.http.ext_authz:
      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
      check_settings:
        context_extensions: { endpoint: {{ .endpoint | quote }} }
        {{- with .maxRequestBytes }}
        with_request_body: { max_request_bytes: {{ int64 . }}, allow_partial_message: false, pack_as_bytes: true }
        {{- end }}
{{- end }}

{{- define "hookwarden.envoyConfig" -}}
{{- $upstream := .Values.upstream -}}
{{- $host := include "hookwarden.upstreamHost" . -}}
# Envoy asks for it where a certificate comes by SDS.
node: { id: {{ include "hookwarden.fullname" . }}, cluster: webhooks }

admin:
  address: { socket_address: { address: 127.0.0.1, port_value: 9901 } }

static_resources:
  listeners:
  - name: webhooks
    address: { socket_address: { address: 0.0.0.0, port_value: {{ .Values.envoy.port }} } }
    per_connection_buffer_limit_bytes: 1048576
    {{- if .Values.envoy.tls.enabled }}
    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector }
    {{- end }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: webhooks
          codec_type: AUTO
          use_remote_address: true
          xff_num_trusted_hops: {{ .Values.envoy.trustedHops }}
          always_set_request_id_in_response: true
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: REJECT_REQUEST
          strip_any_host_port: true
          request_headers_timeout: 10s
          request_timeout: 30s
          stream_idle_timeout: 30s
          common_http_protocol_options:
            idle_timeout: 300s
            headers_with_underscores_action: REJECT_REQUEST
            max_headers_count: 100
          http2_protocol_options:
            max_concurrent_streams: 100
            initial_stream_window_size: 65536
            initial_connection_window_size: 1048576
          access_log:
          - name: envoy.access_loggers.stdout
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format:
                json_format:
                  time: "%START_TIME%"
                  request_id: "%REQ(X-REQUEST-ID)%"
                  method: "%REQ(:METHOD)%"
                  path: "%PATH(NQ:ORIG_OR_PATH)%"
                  protocol: "%PROTOCOL%"
                  status: "%RESPONSE_CODE%"
                  flags: "%RESPONSE_FLAGS%"
                  details: "%RESPONSE_CODE_DETAILS%"
                  bytes_in: "%BYTES_RECEIVED%"
                  ms: "%DURATION%"
                  peer: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
                  endpoint: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:endpoint)%"
                  provider: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:provider)%"
                  decision: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:decision)%"
                  reason: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:reason)%"
                  verified_by: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:verified_by)%"
                  secret_id: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:secret_id)%"
                  duplicate: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:duplicate)%"
                  check_us: "%FILTER_STATE(envoy.filters.http.ext_authz:FIELD:latency_us)%"
          - name: envoy.access_loggers.http_grpc
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig
              common_config:
                log_name: hookwarden
                transport_api_version: V3
                grpc_service: { envoy_grpc: { cluster_name: hookwarden } }
                buffer_flush_interval: 0.1s
                buffer_size_bytes: 0
          http_filters:
          - name: envoy.filters.http.header_mutation
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
              mutations:
                request_mutations:
                - remove_on_match: { key_matcher: { prefix: x-hookwarden-, ignore_case: true } }
                - remove: x-envoy-auth-partial-body
          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              grpc_service:
                envoy_grpc: { cluster_name: hookwarden }
                timeout: {{ .Values.envoy.checkTimeout }}
                retry_policy:
                  retry_on: unavailable,connect-failure,reset,refused-stream
                  num_retries: 2
                  # Envoy makes `max_interval` the timeout of each try.
                  retry_back_off: { base_interval: 0.05s, max_interval: {{ .Values.envoy.checkTimeout }} }
              with_request_body:
                max_request_bytes: {{ int64 .Values.envoy.maxRequestBytes }}
                allow_partial_message: false
                pack_as_bytes: true
              encode_raw_headers: true
              failure_mode_allow: false
              status_on_error: { code: ServiceUnavailable }
              validate_mutations: true
              include_tls_session: true
              emit_filter_state_stats: true
              stat_prefix: hookwarden
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            name: webhooks
            virtual_hosts:
            - name: webhooks
              domains: {{ toJson .Values.envoy.domains }}
              routes:
              {{- range .Values.routes }}
              {{- include "hookwarden.route" (merge (dict "timeout" (default $upstream.timeout .timeout)) .) | nindent 14 }}
              {{- end }}
              # Deliberately unverified: for load balancers and probes. It never reaches the application.
              - match: { path: /healthz }
                direct_response: { status: 200, body: { inline_string: "ok\n" } }
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    disabled: true
              # Everything else is asked about without an endpoint's name.
              - match: { prefix: / }
                route: { cluster: app, timeout: {{ $upstream.timeout }} }
            {{- if not (has "*" .Values.envoy.domains) }}
            # The probes ask by address.
            - name: probes
              domains: ["*"]
              routes:
              - match: { path: /healthz }
                direct_response: { status: 200, body: { inline_string: "ok\n" } }
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    disabled: true
            {{- end }}
      {{- if .Values.envoy.tls.enabled }}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificate_sds_secret_configs:
            - name: webhooks
              sds_config:
                resource_api_version: V3
                path_config_source: { path: /etc/envoy/certificate.yaml }
      {{- end }}

  clusters:
  - name: hookwarden
    type: STATIC
    connect_timeout: 0.25s
    per_connection_buffer_limit_bytes: 1048576
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options:
            initial_stream_window_size: 1048576
            initial_connection_window_size: 8388608
            connection_keepalive: { interval: 30s, timeout: 5s }
    circuit_breakers:
      thresholds:
      - { priority: DEFAULT, max_connections: 1024, max_pending_requests: 4096, max_requests: 4096, max_retries: 64, track_remaining: true }
    health_checks:
    - timeout: 1s
      interval: 5s
      no_traffic_interval: 5s
      unhealthy_threshold: 2
      healthy_threshold: 1
      grpc_health_check: { service_name: envoy.service.auth.v3.Authorization }
    common_lb_config: { healthy_panic_threshold: { value: 50 } }
    load_assignment:
      cluster_name: hookwarden
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { pipe: { path: /run/hookwarden/ext_authz.sock } } }
  - name: app
    type: STRICT_DNS
    dns_lookup_family: V4_PREFERRED
    connect_timeout: 1s
    {{- if $upstream.tls.enabled }}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {{ $host | quote }}
        common_tls_context:
          validation_context:
            trusted_ca: { filename: {{ ternary "/etc/envoy-upstream/ca.crt" "/etc/ssl/certs/ca-certificates.crt" (ne $upstream.tls.caSecret "") }} }
            match_typed_subject_alt_names: [{ san_type: DNS, matcher: { exact: {{ $host | quote }} } }]
    {{- end }}
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { socket_address: { address: {{ $host | quote }}, port_value: {{ $upstream.port }} } } }

overload_manager:
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: 10000
{{- end }}

{{- define "hookwarden.envoyCertificate" -}}
resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: webhooks
  tls_certificate:
    certificate_chain: { filename: /etc/envoy-tls/tls.crt }
    private_key: { filename: /etc/envoy-tls/tls.key }
    # Kubernetes renews a mounted Secret by moving a link in this directory.
    watched_directory: { path: /etc/envoy-tls }
{{- end }}
