//! A span of a record, named as OpenTelemetry's semantic conventions have it where they know of such a thing.

use std::time::{Duration, SystemTime};

use hairpin_proto::address::{AddressFamily, Transport};
use hairpin_proto::stun::ErrorCode;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};

use super::Record;
use crate::clock::monotonic_nanoseconds;

/// A moment by two clocks, to tell the one by the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    wall: SystemTime,
    monotonic: u64,
}

impl Clocks {
    pub(super) fn now() -> Self {
        Self { wall: SystemTime::now(), monotonic: monotonic_nanoseconds() }
    }

    /// When it was so late on the monotonic clock.
    fn at(self, monotonic: u64) -> SystemTime {
        let ago = Duration::from_nanos(self.monotonic.saturating_sub(monotonic));
        self.wall.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Where spans come from: this program, this host, and what `OTEL_RESOURCE_ATTRIBUTES` says besides or instead.
pub(super) fn resource() -> Resource {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let known =
        [("service.name", "hairpin"), ("service.version", env!("CARGO_PKG_VERSION")), ("host.name", host.trim())];
    let known = known.into_iter().filter(|(_, value)| !value.is_empty());
    let detectors: [Box<dyn ResourceDetector>; 2] =
        [Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())];
    Resource::builder_empty()
        .with_attributes(known.map(|(key, value)| KeyValue::new(key, value.to_owned())))
        .with_detectors(&detectors)
        .build()
}

/// The span of a record, in a trace of its own: STUN has no way to say which one it belongs to.
pub(super) fn span(record: &Record, clocks: Clocks) -> SpanData {
    let ids = RandomIdGenerator::default();
    let (trace, span) = (ids.new_trace_id(), ids.new_span_id());
    SpanData {
        span_context: SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Server,
        name: format!("stun.{}", record.response.method.label()).into(),
        start_time: clocks.at(record.began),
        end_time: clocks.at(record.ended),
        attributes: attributes(record),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: error(record).map_or(Status::Unset, |code| Status::error(code.reason())),
        instrumentation_scope: InstrumentationScope::builder("hairpin").with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}

fn attributes(record: &Record) -> Vec<KeyValue> {
    let network = if record.transport.is_stream() { Transport::Tcp } else { Transport::Udp };
    let family = match record.family {
        AddressFamily::V4 => "ipv4",
        AddressFamily::V6 => "ipv6",
    };
    let mut attributes = vec![
        KeyValue::new("stun.method", record.response.method.label()),
        KeyValue::new("network.transport", network.label()),
        KeyValue::new("network.type", family),
        KeyValue::new("hairpin.transport", record.transport.label()),
        KeyValue::new("hairpin.shard", i64::from(record.shard)),
        KeyValue::new("hairpin.has_allocation", record.has_allocation),
    ];
    if let Some(code) = record.response.code {
        attributes.push(KeyValue::new("stun.error_code", i64::from(code.number())));
    }
    if let Some(cause) = record.cause {
        attributes.push(KeyValue::new("hairpin.cause", cause.label()));
    }
    if let Some(error) = error(record) {
        attributes.push(KeyValue::new("error.type", error.number().to_string()));
    }
    if let Some(client) = record.client {
        attributes.push(KeyValue::new("client.address", client.ip().to_string()));
        attributes.push(KeyValue::new("client.port", i64::from(client.port())));
    }
    attributes
}

/// An error is what a client cannot have. A challenge or another server is a part of how clients come in.
fn error(record: &Record) -> Option<ErrorCode> {
    record.response.code.filter(|code| match *code {
        ErrorCode::TRY_ALTERNATE => false,
        ErrorCode::UNAUTHENTICATED | ErrorCode::STALE_NONCE => record.cause.is_some(),
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use hairpin_proto::stun::Method;
    use hairpin_proto::turn::Cause;

    use super::super::Response;
    use super::*;

    const RECORD: Record = Record {
        response: Response { method: Method::ALLOCATE, code: None },
        cause: None,
        transport: Transport::Tls,
        family: AddressFamily::V6,
        client: None,
        shard: 3,
        has_allocation: true,
        began: 1_000,
        ended: 4_000,
    };

    fn of(code: Option<ErrorCode>, cause: Option<Cause>) -> SpanData {
        let record = Record { response: Response { code, ..RECORD.response }, cause, ..RECORD };
        span(&record, Clocks { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(9), monotonic: 5_000 })
    }

    fn has(span: &SpanData, attribute: &KeyValue) -> bool {
        span.attributes.contains(attribute)
    }

    #[test]
    fn a_span_says_what_was_asked_how_and_when() {
        let span = of(None, None);
        assert_eq!((span.name.as_ref(), span.status.clone()), ("stun.allocate", Status::Unset));
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(9) - Duration::from_micros(1);
        assert_eq!((span.start_time, span.end_time), (end - Duration::from_micros(3), end));
        assert!(has(&span, &KeyValue::new("network.transport", "tcp")), "{span:?}");
        assert!(has(&span, &KeyValue::new("hairpin.transport", "tls")), "{span:?}");
        assert!(span.attributes.iter().all(|attribute| !attribute.key.as_str().starts_with("client.")), "{span:?}");
        assert!(span.span_context.is_valid() && span.span_context != of(None, None).span_context);
    }

    #[test]
    fn only_what_a_client_cannot_have_is_an_error() {
        for code in [ErrorCode::UNAUTHENTICATED, ErrorCode::STALE_NONCE, ErrorCode::TRY_ALTERNATE] {
            assert_eq!(of(Some(code), None).status, Status::Unset, "{code:?}");
        }
        let elsewhere = of(Some(ErrorCode::TRY_ALTERNATE), Some(Cause::Draining));
        assert!(has(&elsewhere, &KeyValue::new("hairpin.cause", "draining")), "{elsewhere:?}");
        assert_eq!(elsewhere.status, Status::Unset);
        let refused = of(Some(ErrorCode::UNAUTHENTICATED), Some(Cause::WrongPassword));
        assert_eq!(refused.status, Status::error("Unauthenticated"));
        assert!(has(&refused, &KeyValue::new("hairpin.cause", "wrong_password")), "{refused:?}");
        assert!(has(&refused, &KeyValue::new("stun.error_code", 401_i64)), "{refused:?}");
        assert!(has(&refused, &KeyValue::new("error.type", "401")), "{refused:?}");
        assert_eq!(of(Some(ErrorCode::FORBIDDEN), None).status, Status::error("Forbidden"));
    }

    #[test]
    fn a_moment_before_the_clock_was_looked_at_is_none_after_it() {
        let clocks = Clocks::now();
        assert_eq!(clocks.at(u64::MAX), clocks.wall);
        assert!(clocks.at(0) < clocks.wall);
    }
}
