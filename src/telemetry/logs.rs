//! Log lines: where they go, which are kept, and how they look. Every line that is written while a request is served
//! carries that request's id.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::RequestId;
use crate::config::{LogFormat, LogSettings};
use crate::error::{Error, Result};

/// What libraries write at `info` is noise to an operator; and the dispatcher writes an error for each request that is malformed,
/// with which any client could bury all other lines. At `debug` the client of PostgreSQL writes every value that a statement binds:
/// hashes of passwords and of refresh tokens, the private keys that sign access tokens, whole records. A directive of `log.level` for
/// the same target wins.
const QUIETER: &str = "actix_server=warn,actix_web=warn,actix_http=warn,actix_http::h1::dispatcher=off,tokio_postgres=info";

/// Sends log lines to standard error for the rest of the process. Fails if `log.level` is not a filter, or if the process
/// has a subscriber already.
pub fn init(settings: &LogSettings) -> Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIETER},{}", settings.level)).map_err(|error| {
        let detail = format!("log.level: {:?} is not a filter such as \"info\" or \"terrace=debug\": {error}", settings.level);
        Error::bad_request("invalid_setting", detail)
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let outcome = match settings.format {
        LogFormat::Text => builder.event_format(TextLine(Format::default())).finish().try_init(),
        LogFormat::Json => {
            let line = JsonLine(Format::default().json().flatten_event(true).with_current_span(false));
            builder.fmt_fields(JsonFields::new()).event_format(line).finish().try_init()
        }
    };
    outcome.map_err(Error::internal)
}

/// A line for people, with the request id at its end.
struct TextLine(Format<Full>);

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(request_id) = RequestId::current() else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{} request_id={request_id}", line.trim_end_matches('\n'))
    }
}

/// A JSON object, with the request id as its first member. An id needs no escaping.
struct JsonLine(Format<Json>);

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    Format<Json>: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(request_id) = RequestId::current() else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        write!(writer, "{{\"request_id\":\"{request_id}\",{}", line.trim_start_matches('{'))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    async fn log_twice() {
        tracing::warn!(ms = 12, "outside");
        let id = RequestId::accept(b"abc-1").unwrap();
        id.scope(async { tracing::warn!(ms = 12, "a \"slow\" request") }).await;
    }

    #[tokio::test]
    async fn a_text_line_in_a_request_carries_its_id() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(TextLine(Format::default()))
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        log_twice().await;
        drop(guard);
        let lines: Vec<String> = captured.text().lines().map(str::to_owned).collect();
        assert!(!lines[0].contains("request_id"), "{lines:?}");
        assert!(lines[1].ends_with("a \"slow\" request ms=12 request_id=abc-1"), "{lines:?}");
    }

    #[tokio::test]
    async fn a_json_line_in_a_request_carries_its_id() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields::new())
            .event_format(JsonLine(Format::default().json().flatten_event(true)))
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        log_twice().await;
        drop(guard);
        let lines: Vec<serde_json::Value> = captured.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0].get("request_id"), None);
        assert_eq!(lines[1]["request_id"], "abc-1");
        assert_eq!(lines[1]["message"], "a \"slow\" request");
        assert_eq!(lines[1]["ms"], 12);
    }
}
