"""Every name this package writes, once: attributes, metrics, environment, units and bucket edges.

A word means the same on a span, in a metric label, in a JSONL line and on a screen. Names and their order
follow the JSON format of a metric (docs/metrics.md); what OpenTelemetry has a word for keeps that word
(``error.type``, ``exception.*``: https://opentelemetry.io/docs/specs/semconv/exceptions/).
"""

from typing import Final

SCOPE: Final = "callbot_latency"
"""Instrumentation scope of our tracer and meter, and root of our logger names."""

# Span attributes, and keys of a JSONL line.
OPERATION_TYPE: Final = "operation_type"
OPERATION_NAME: Final = "operation_name"
LATENCY_MS: Final = "latency_ms"
STATUS: Final = "status"
TIMESTAMP: Final = "timestamp"
CALL_SID: Final = "call_sid"
STREAM_SID: Final = "stream_sid"
PROVIDER: Final = "provider"
ERROR_MESSAGE: Final = "error_message"
METADATA: Final = "metadata"
METADATA_PREFIX: Final = "metadata."
SEVERITY: Final = "severity"
TIME_TO_FIRST_OUTPUT_MS: Final = "time_to_first_output_ms"
LARGEST_GAP_MS: Final = "largest_gap_ms"
ITEMS: Final = "items"
BUSY_MS: Final = "busy_ms"
BYTES: Final = "bytes"
AUDIO_MS: Final = "audio_ms"
REAL_TIME_FACTOR: Final = "real_time_factor"
TRACE_ID: Final = "trace_id"
SPAN_ID: Final = "span_id"
TURN: Final = "turn"
TOLD_IN_FLIGHT: Final = "told_in_flight"
PROVIDER_REQUESTED: Final = "provider_requested"
ATTEMPTS: Final = "attempts"
SWITCH_REASON: Final = "switch_reason"
LOST_MS: Final = "lost_ms"
HEDGE_LOSERS: Final = "hedge_losers"
ATTEMPT: Final = "attempt"
HEDGE: Final = "hedge"
ERROR_TYPE: Final = "error.type"
EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

# Loggers. Public: applications set their levels, whatever module writes to them.
LOGGER_ALERTING: Final = f"{SCOPE}.alerting"
LOGGER_ALERT_CALLBACKS: Final = f"{SCOPE}.alerting.callbacks"
LOGGER_ALERT_POLICY: Final = f"{SCOPE}.alerting.policy"
LOGGER_ATTEMPTS: Final = f"{SCOPE}.attempts"
LOGGER_GUARD: Final = f"{SCOPE}.guard"
LOGGER_INFLUXDB: Final = f"{SCOPE}.reporters.influxdb"
LOGGER_JSONL: Final = f"{SCOPE}.reporters.jsonl"
LOGGER_PIPELINE: Final = f"{SCOPE}.pipeline"
LOGGER_PROVIDERS: Final = f"{SCOPE}.providers"
LOGGER_PUSHGATEWAY: Final = f"{SCOPE}.reporters.pushgateway"
LOGGER_REPORTER_PREFIX: Final = f"{SCOPE}.reporters."
"""Followed by the name under which the reporter was added."""
LOGGER_ROTATION: Final = f"{SCOPE}.reporters.rotation"
LOGGER_RUNTIME: Final = f"{SCOPE}.runtime"
LOGGER_SWITCH: Final = f"{SCOPE}.switch"
LOGGER_TRACKER: Final = f"{SCOPE}.tracker"

# OpenTelemetry's names for generative AI (https://github.com/open-telemetry/semantic-conventions-genai).
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"

SPAN_ATTRIBUTES: Final = (
    OPERATION_TYPE,
    OPERATION_NAME,
    PROVIDER,
    CALL_SID,
    STREAM_SID,
    TURN,
    STATUS,
    SEVERITY,
    TIME_TO_FIRST_OUTPUT_MS,
    LARGEST_GAP_MS,
    ITEMS,
    BUSY_MS,
    BYTES,
    AUDIO_MS,
    REAL_TIME_FACTOR,
    PROVIDER_REQUESTED,
    ATTEMPTS,
    SWITCH_REASON,
    LOST_MS,
    HEDGE_LOSERS,
    ATTEMPT,
    HEDGE,
    ERROR_TYPE,
)
"""What an operation's span may carry, besides metadata under `METADATA_PREFIX`."""

ATTEMPT_SUFFIX: Final = ".attempt"
"""What an attempt's name has behind that of its operation."""
# Values of `hedge`, and of `switch_reason` besides statuses and types of exceptions.
WINNER: Final = "winner"
LOSER: Final = "loser"
REJECTED: Final = "rejected"

CALL_SPAN: Final = "call"
"""Name of a call's root span, which `call()` opens."""
CALL_PART_SPAN: Final = "call part"
"""Name of what another process, or another block of this one, does in the call."""
TURN_SPAN: Final = "turn"
"""Name of the span that `turn()` opens."""

# A turn: keys of its JSONL line, and attributes of its span.
KIND: Final = "kind"
KIND_TURN: Final = "turn"
ANCHOR: Final = "anchor"
OUTCOME: Final = "outcome"
UNMEASURED: Final = "unmeasured"
TURN_ATTRIBUTES: Final = (
    OUTCOME,
    "response_ms",
    "response_sent_ms",
    "answer_sent_ms",
    "anchor_uncertainty_ms",
    "playback_uncertainty_ms",
    UNMEASURED,
)
PART_PREFIX: Final = "part."
OVERLAPPED_PREFIX: Final = "overlapped."
BARGE_IN_PREFIX: Final = "barge_in."
OPERATIONS: Final = "operations"
PART_ENDPOINTING: Final = "endpointing"
PART_QUEUEING: Final = "queueing"
PART_STT: Final = "speech_to_text"
PART_RAG: Final = "rag_inference"
PART_SALESFORCE: Final = "salesforce_api"
PART_OTHER: Final = "other"
PART_FIRST_SENTENCE: Final = "first_sentence"
PART_TTS: Final = "text_to_speech"
PART_SENDING: Final = "sending"
PART_TWILIO_BUFFER: Final = "twilio_buffer"
PART_LEADING_SILENCE: Final = "leading_silence"
PART_LOOP_LAG: Final = "loop_lag"
PART_UNATTRIBUTED: Final = "unattributed"
PARTS: Final = (
    PART_ENDPOINTING,
    PART_QUEUEING,
    PART_STT,
    PART_RAG,
    PART_SALESFORCE,
    PART_OTHER,
    PART_FIRST_SENTENCE,
    PART_TTS,
    PART_SENDING,
    PART_TWILIO_BUFFER,
    PART_LEADING_SILENCE,
    PART_LOOP_LAG,
    PART_UNATTRIBUTED,
)
"""Parts of a response, in the order in which a turn goes through them."""
OUTCOME_ANSWERED: Final = "answered"
OUTCOME_INTERRUPTED: Final = "interrupted"
OUTCOME_HUNG_UP: Final = "hung_up"
OUTCOME_UNANSWERED: Final = "unanswered"
UNMEASURED_NO_ANCHOR: Final = "no_anchor"
UNMEASURED_NO_AUDIO: Final = "no_audio"
UNMEASURED_UNKNOWN_ANCHOR: Final = "unknown_anchor"
UNMEASURED_STALE_ANCHOR: Final = "stale_anchor"
UNMEASURED_IMPOSSIBLE_ANCHOR: Final = "impossible_anchor"
UNMEASURED_IMPOSSIBLE_PLAYBACK: Final = "impossible_playback"
ANCHOR_REASONS: Final = frozenset(
    {UNMEASURED_NO_ANCHOR, UNMEASURED_UNKNOWN_ANCHOR, UNMEASURED_STALE_ANCHOR, UNMEASURED_IMPOSSIBLE_ANCHOR}
)
"""Reasons for which what was told of the end of the caller's speech is not taken."""

# Headers to the team's own services, which alone may see them (LATENCY_PROPAGATE_TO).
HEADER_CALL_SID: Final = "x-callbot-call-sid"
HEADER_STREAM_SID: Final = "x-callbot-stream-sid"
HEADER_TURN: Final = "x-callbot-turn"

# Metric instruments.
OPERATION_DURATION: Final = "callbot.operation.duration"
OPERATION_TIME_TO_FIRST_OUTPUT: Final = "callbot.operation.time_to_first_output"
ATTEMPT_DURATION: Final = "callbot.attempt.duration"
TURN_RESPONSE: Final = "callbot.turn.response"
TURN_CONTRIBUTION: Final = "callbot.turn.contribution"
TURNS_UNMEASURED: Final = "callbot.turns.unmeasured"
PART: Final = "part"
UNTIL: Final = "until"
UNTIL_HEARD: Final = "heard"
UNTIL_SENT: Final = "sent"
THRESHOLD_BREACHES: Final = "callbot.threshold.breaches"
OPERATIONS_ACTIVE: Final = "callbot.operations.active"
TELEMETRY_DROPPED: Final = "callbot.telemetry.dropped"
REASON: Final = "reason"

METRICS: Final = (
    OPERATION_DURATION,
    OPERATION_TIME_TO_FIRST_OUTPUT,
    ATTEMPT_DURATION,
    TURN_RESPONSE,
    TURN_CONTRIBUTION,
    TURNS_UNMEASURED,
    THRESHOLD_BREACHES,
    OPERATIONS_ACTIVE,
    TELEMETRY_DROPPED,
)
METRIC_LABELS: Final = (OPERATION_TYPE, OPERATION_NAME, PROVIDER, STATUS, SEVERITY, REASON, ANCHOR, UNTIL, PART)

OTHER: Final = "other"
"""Label of every operation name, and of every provider, after the first `MAX_NAMES`."""
MAX_NAMES: Final = 200

DURATION_EDGES_S: Final = (
    0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25,
    1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0, 15.0, 30.0, 60.0,
)  # fmt: skip
"""Bucket edges in seconds before the configured thresholds are added: dense where a caller notices (0.1 s to 3 s)."""

# Reasons of `callbot.telemetry.dropped`.
DROPPED_QUEUE_FULL: Final = "queue_full"
DROPPED_INVALID: Final = "invalid"
DROPPED_INTERNAL_ERROR: Final = "internal_error"
DROPPED_NAME_LABEL: Final = "operation_name_label"
DROPPED_PROVIDER_LABEL: Final = "provider_label"
DROPPED_FULL_SUFFIX: Final = "_lane_full"
DROPPED_FAILED_SUFFIX: Final = "_failed"
DROPPED_REFUSED_SUFFIX: Final = "_refused"
DROPPED_GAVE_UP_SUFFIX: Final = "_gave_up"
DROPPED_UNCONFIRMED_SUFFIX: Final = "_unconfirmed"
DROPPED_CALLBACKS_LOOP_FULL: Final = "callbacks_loop_full"
DROPPED_AFTER_SHUTDOWN: Final = "after_shutdown"
DROPPED_NO_TIME: Final = "no_time"

# Environment.
ENV_TRACKING_ENABLED: Final = "LATENCY_TRACKING_ENABLED"
ENV_LOGGING_ENABLED: Final = "LATENCY_LOGGING_ENABLED"
ENV_FILE_LOGGING_ENABLED: Final = "LATENCY_FILE_LOGGING_ENABLED"
ENV_METRICS_FILE_PATH: Final = "LATENCY_METRICS_FILE_PATH"
ENV_METRICS_FILE_MAX_MB: Final = "LATENCY_METRICS_FILE_MAX_MB"
ENV_METRICS_FILE_BACKUPS: Final = "LATENCY_METRICS_FILE_BACKUPS"
ENV_STT_WARNING_MS: Final = "LATENCY_STT_WARNING_MS"
ENV_STT_CRITICAL_MS: Final = "LATENCY_STT_CRITICAL_MS"
ENV_TTS_WARNING_MS: Final = "LATENCY_TTS_WARNING_MS"
ENV_TTS_CRITICAL_MS: Final = "LATENCY_TTS_CRITICAL_MS"
ENV_SALESFORCE_WARNING_MS: Final = "LATENCY_SALESFORCE_WARNING_MS"
ENV_SALESFORCE_CRITICAL_MS: Final = "LATENCY_SALESFORCE_CRITICAL_MS"
ENV_RAG_WARNING_MS: Final = "LATENCY_RAG_WARNING_MS"
ENV_RAG_CRITICAL_MS: Final = "LATENCY_RAG_CRITICAL_MS"
ENV_TRACE_KEY: Final = "LATENCY_TRACE_KEY"
ENV_PHONE_NUMBERS: Final = "LATENCY_PHONE_NUMBERS"
ENV_PROPAGATE_TO: Final = "LATENCY_PROPAGATE_TO"
ENV_TRACE_URL: Final = "LATENCY_TRACE_URL"
ENV_RAG_URL: Final = "LATENCY_RAG_URL"
ENV_ALERT_COOLDOWN_S: Final = "LATENCY_ALERT_COOLDOWN_S"
ENV_ALERT_BURST: Final = "LATENCY_ALERT_BURST"
ENV_ALERT_RULES_FILE: Final = "LATENCY_ALERT_RULES_FILE"
ENV_SCRUB_PATTERNS_FILE: Final = "LATENCY_SCRUB_PATTERNS_FILE"
ENV_PUSHGATEWAY_URL: Final = "PROMETHEUS_PUSHGATEWAY_URL"
ENV_PUSHGATEWAY_JOB: Final = "LATENCY_PUSHGATEWAY_JOB"
ENV_PUSHGATEWAY_INTERVAL_S: Final = "LATENCY_PUSHGATEWAY_INTERVAL_S"
ENV_INFLUXDB_URL: Final = "INFLUXDB_URL"
ENV_INFLUXDB_TOKEN: Final = "INFLUXDB_TOKEN"  # noqa: S105 - a name
ENV_INFLUXDB_ORG: Final = "INFLUXDB_ORG"
ENV_INFLUXDB_BUCKET: Final = "INFLUXDB_BUCKET"
ENV_INFLUXDB_TIMEOUT_MS: Final = "LATENCY_INFLUXDB_TIMEOUT_MS"
ENV_SLACK_WEBHOOK_URL: Final = "SLACK_WEBHOOK_URL"
ENV_SLACK_CHANNEL: Final = "SLACK_CHANNEL"
ENV_SLACK_SEVERITY: Final = "LATENCY_SLACK_SEVERITY"
ENV_APPRISE_URLS: Final = "LATENCY_APPRISE_URLS"
ENV_APPRISE_SEVERITY: Final = "LATENCY_APPRISE_SEVERITY"
ENV_LANGUAGE: Final = "LATENCY_LANGUAGE"
ENV_FOREIGN_SPANS: Final = "LATENCY_FOREIGN_SPANS"

# OpenTelemetry's own names that decide what init() builds; every other OTEL_* is read by the SDK itself.
OTEL_TRACES_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
OTEL_METRICS_EXPORTER: Final = "OTEL_METRICS_EXPORTER"
OTEL_EXPORTER_OTLP_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
OTEL_EXPORTER_OTLP_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"
OTEL_SEMCONV_STABILITY_OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
OTEL_EXPORTER_PROMETHEUS_HOST: Final = "OTEL_EXPORTER_PROMETHEUS_HOST"
OTEL_EXPORTER_PROMETHEUS_PORT: Final = "OTEL_EXPORTER_PROMETHEUS_PORT"

ENVIRONMENT: Final = tuple(
    value for name, value in sorted(globals().items()) if name.startswith(("ENV_", "OTEL_")) and isinstance(value, str)
)
"""Every environment name that this package reads itself."""
