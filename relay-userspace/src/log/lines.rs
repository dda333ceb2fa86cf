//! How a line of the log looks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::registry::LookupSpan;

use super::Format;
use crate::printable;

/// The form of the lines that come; it can be changed at any time.
pub(super) struct Form(AtomicU8);

impl Form {
    pub(super) fn new(format: Format) -> Self {
        let form = Self(AtomicU8::new(0));
        form.set(format);
        form
    }

    pub(super) fn set(&self, format: Format) {
        self.0.store(format as u8, Ordering::Relaxed);
    }

    fn is(&self, format: Format) -> bool {
        self.0.load(Ordering::Relaxed) == format as u8
    }
}

/// Writes each event in the form of the moment.
pub(super) struct Lines {
    form: Arc<Form>,
    text: format::Format<Full>,
}

impl Lines {
    pub(super) fn new(form: Arc<Form>) -> Self {
        Self { form, text: format::Format::default().with_target(false) }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.form.is(Format::Json) {
            writeln!(writer, "{}", printable::json(&object(event).to_string()))
        } else if self.form.is(Format::Journal) {
            // Without the colours of a terminal.
            let mut line = String::new();
            context.field_format().format_fields(Writer::new(&mut line), event)?;
            writeln!(writer, "<{}>{}", priority(*event.metadata().level()), line.replace('\n', "\\n"))
        } else {
            self.text.format_event(context, writer, event)
        }
    }
}

/// The priority of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn object(event: &Event<'_>) -> Value {
    let mut timestamp = String::new();
    // A clock before 1970 leaves it empty; the rest is worth a line all the same.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let mut said = Said::default();
    event.record(&mut said);
    let level = event.metadata().level().as_str().to_lowercase();
    let target = event.metadata().target();
    json!({ "timestamp": timestamp, "level": level, "target": target, "message": said.message, "fields": said.fields })
}

/// The message and the fields of an event.
#[derive(Default)]
struct Said {
    message: String,
    fields: Map<String, Value>,
}

impl Said {
    fn set(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of one event of each level.
    fn written(format: Format) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(format != Format::Text)
            .event_format(Lines::new(Arc::new(Form::new(format))));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::error!(port = 3478_u16, ratio = 0.5, is_open = true, name = "a\nb", why = %"it \"is\"", "no");
            tracing::warn!("two\nlines");
            tracing::info!("on");
            tracing::debug!("off");
        });
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_an_object_a_line() {
        let text = written(Format::Json);
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4);
        let fields = json!({ "port": 3478, "ratio": 0.5, "is_open": true, "name": "a\nb", "why": "it \"is\"" });
        assert_eq!(
            (&lines[0]["fields"], &lines[0]["message"], &lines[0]["level"]),
            (&fields, &json!("no"), &json!("error"))
        );
        assert!(lines[0]["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
        assert_eq!((&lines[1]["message"], &lines[1]["fields"]), (&json!("two\nlines"), &json!({})));
    }

    #[test]
    fn the_journal_gets_a_priority_and_neither_time_nor_colour() {
        let text = written(Format::Journal);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("<3>no port=3478 ratio=0.5 is_open=true"), "{text}");
        assert_eq!(lines[1..], ["<4>two\\nlines", "<6>on", "<7>off"]);
    }

    #[test]
    fn people_get_a_time_and_a_level() {
        let text = written(Format::Text);
        assert!(text.lines().next().unwrap().contains("Z ERROR no port=3478"), "{text}");
    }
}
