//! What each setting may be: the text that a mistake shows, and the rules that types alone cannot state.

use std::net::SocketAddr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::{AuthSettings, Settings};

const AUDIENCE: &str = "public, viewer, editor or admin";
const DURATION: &str = "a duration over 0 such as \"500ms\", \"10m\" or \"1h\"";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const QUOTA: &str = "REQUESTS/PERIOD such as \"100/15m\", with a period from 1s to 31days, or \"\" for no limit";
const SIZE: &str = "a size over 0 such as \"64MiB\"";

/// Far below the 10 minutes that a change stays in the log at least: who reads it more seldom than every 5 minutes begins
/// with an empty cache each time (see `cache::reconcile`).
const LONGEST_RECONCILE_INTERVAL: Duration = Duration::from_secs(60);

/// Every setting by its dotted key. A test holds this against the fields of [`Settings`].
const ALLOWED: &[(&str, &str)] = &[
    ("http.listen", "an IP address with a port such as \"127.0.0.1:8080\" or \"[::]:8080\""),
    ("http.tls_certificate", "the path of a PEM file, or \"\" for no TLS"),
    ("http.tls_key", "the path of a PEM file, or \"\" for no TLS"),
    ("http.workers", "a whole number from 0 (one per core) to 1024"),
    ("http.max_body_bytes", SIZE),
    ("http.max_connections", "a whole number from 1 to 1000000"),
    ("http.max_in_flight", "a whole number from 1 to 1000000"),
    ("http.head_timeout", DURATION),
    ("http.body_timeout", DURATION),
    ("http.shutdown_timeout", "a duration such as \"30s\""),
    ("http.keep_alive", DURATION),
    ("http.trusted_proxies", "a list of networks such as [\"10.0.0.0/8\", \"fd00::/8\"], or [] for no proxy"),
    ("operations.listen", "an IP address with a port such as \"127.0.0.1:9090\", or \"\" for the same as http.listen"),
    ("operations.metrics", AUDIENCE),
    ("operations.docs", AUDIENCE),
    ("cors.origins", "a list of origins such as \"https://app.example.com\" without a path, or [\"*\"] for all"),
    ("cors.max_age", "a duration up to 1day such as \"1h\""),
    ("database.url", "sqlite://PATH such as \"sqlite://data/terrace.db\", or postgres://USER:PASSWORD@HOST:PORT/DATABASE"),
    ("database.ca_file", "the path of a PEM file, or \"\" for the system's certificate authorities"),
    ("database.min_connections", "a whole number from 0 to 1024"),
    ("database.max_connections", "a whole number from 1 to 1024"),
    ("database.acquire_timeout", DURATION),
    ("database.connect_timeout", DURATION),
    ("database.idle_timeout", DURATION),
    ("database.statement_timeout", DURATION),
    ("cache.enabled", "true or false"),
    ("cache.l1_bytes", SIZE),
    ("cache.max_ttl", DURATION),
    ("cache.jitter_percent", "a whole number from 0 to 50"),
    ("cache.reconcile_interval", "a duration from 10ms to 1m such as \"500ms\""),
    ("cache.honor_request_directives", "true or false"),
    ("cache.warm_loads_per_second", "a whole number from 1 to 100000"),
    ("cache.warm_before_ready", "a duration up to 10m such as \"30s\", or \"0s\" for not at all"),
    ("redis.url", "redis://USER:PASSWORD@HOST:PORT/DATABASE, rediss://… for TLS, or \"\" for no second tier"),
    ("redis.prefix", "1 to 64 letters, digits, hyphens and underscores"),
    ("redis.ca_file", "the path of a PEM file, or \"\" for the system's certificate authorities"),
    ("redis.timeout", DURATION),
    ("redis.compress_above", SIZE),
    ("redis.max_ttl", DURATION),
    ("collections.dir", "the path of a directory"),
    ("collections.views_dir", "the path of a directory"),
    ("collections.samples_dir", "the path of a directory"),
    ("changes.retention", "a duration of at least 10m such as \"90days\""),
    ("changes.streams", "a whole number up to 10000; 0 is none"),
    ("changes.streams_per_caller", "a whole number from 1 to 10000"),
    ("changes.heartbeat", "a duration from 10ms to 10m such as \"15s\""),
    ("auth.access_token_lifetime", "a duration from 10s to 1day such as \"10m\""),
    ("auth.session_lifetime", "a duration from 1m to 366days such as \"30days\", no shorter than auth.access_token_lifetime"),
    ("auth.signing_key_lifetime", "a duration from 1m to 366days such as \"30days\""),
    ("auth.stale_if_error", "a duration up to 1day such as \"1m\", or \"0s\" for not at all"),
    ("limits.burst", "a whole number; 0 is no limit"),
    ("limits.per_second", "a whole number from 1"),
    ("limits.api", QUOTA),
    ("limits.auth", QUOTA),
    ("limits.export", QUOTA),
    ("limits.webhook", QUOTA),
    ("log.format", "\"text\" or \"json\""),
    (
        "log.level",
        "off, error, warn, info, debug or trace, and TARGET=LEVEL, separated by commas, such as \"info,terrace=debug\"",
    ),
    ("log.access", "true or false"),
    ("log.slow_request", DURATION),
    ("log.slow_query", DURATION),
];

/// What the setting `key` may be.
pub(super) fn allowed(key: &str) -> &'static str {
    ALLOWED.iter().find(|(name, _)| *name == key).map_or("a value of another type", |(_, text)| text)
}

/// Whether every setting of `settings` is in its range.
pub(super) fn in_range(settings: &Settings) -> bool {
    let Settings { http, operations, cors, database, cache, redis, collections, changes, auth, limits, log } = settings;
    let positive = [
        http.head_timeout,
        http.body_timeout,
        http.keep_alive,
        database.acquire_timeout,
        database.connect_timeout,
        database.idle_timeout,
        database.statement_timeout,
        cache.max_ttl,
        redis.timeout,
        redis.max_ttl,
        log.slow_request,
        log.slow_query,
    ];
    http.listen.parse::<SocketAddr>().is_ok()
        && (operations.listen.is_empty() || operations.listen.parse::<SocketAddr>().is_ok())
        && cors.origins.iter().all(|origin| is_origin(origin))
        && (cors.origins.len() <= 1 || !cors.origins.iter().any(|origin| origin == "*"))
        && cors.max_age <= Duration::from_secs(24 * 60 * 60)
        && http.workers <= 1024
        && http.max_body_bytes.as_u64() > 0
        && (1..=1_000_000).contains(&http.max_connections)
        && (1..=1_000_000).contains(&http.max_in_flight)
        && ["sqlite://", "postgres://", "postgresql://"]
            .iter()
            .any(|scheme| database.url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
        && database.min_connections <= 1024
        && (1..=1024).contains(&database.max_connections)
        && cache.l1_bytes.as_u64() > 0
        && cache.jitter_percent <= 50
        && (1..=100_000).contains(&cache.warm_loads_per_second)
        && cache.warm_before_ready <= Duration::from_secs(10 * 60)
        && (Duration::from_millis(10)..=LONGEST_RECONCILE_INTERVAL).contains(&cache.reconcile_interval)
        && (redis.url.is_empty() || ["redis://", "rediss://"].iter().any(|scheme| redis.url.starts_with(scheme)))
        && (1..=64).contains(&redis.prefix.len())
        && redis.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && redis.compress_above.as_u64() > 0
        && [&collections.dir, &collections.views_dir, &collections.samples_dir].iter().all(|path| !path.as_os_str().is_empty())
        && changes.retention >= Duration::from_secs(10 * 60)
        && changes.streams <= 10_000
        && (1..=10_000).contains(&changes.streams_per_caller)
        && (Duration::from_millis(10)..=Duration::from_secs(10 * 60)).contains(&changes.heartbeat)
        && are_lifetimes_in_range(auth)
        && limits.per_second > 0
        && is_log_filter(&log.level)
        && positive.iter().all(|duration| !duration.is_zero())
}

/// As browsers spell it (RFC 6454, 6.2): a scheme, a host and perhaps a port, without a path; or all of them.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b':' | b'[' | b']');
    text == "*" || !host.is_empty() && host.bytes().all(is_plain) && text.parse::<http::Uri>().is_ok()
}

fn are_lifetimes_in_range(auth: &AuthSettings) -> bool {
    let AuthSettings { access_token_lifetime, session_lifetime, signing_key_lifetime, stale_if_error } = auth;
    let long = Duration::from_secs(60)..=Duration::from_secs(366 * 24 * 60 * 60);
    let day = Duration::from_secs(24 * 60 * 60);
    (Duration::from_secs(10)..=day).contains(access_token_lifetime)
        && long.contains(session_lifetime)
        && session_lifetime >= access_token_lifetime
        && long.contains(signing_key_lifetime)
        && *stale_if_error <= day
}

/// Stricter than [`EnvFilter`] in one point: it reads a misspelt level such as `inof` as the name of a target, and then
/// logs nothing at all.
fn is_log_filter(text: &str) -> bool {
    let bare_words_are_levels = text
        .split(',')
        .map(str::trim)
        .filter(|directive| !directive.contains(['=', '[']))
        .all(|word| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level)));
    bare_words_are_levels && EnvFilter::builder().parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_says_what_it_may_be() {
        let template = serde_json::to_value(Settings::default()).unwrap();
        let mut keys = Vec::new();
        for (section, settings) in template.as_object().unwrap() {
            keys.extend(settings.as_object().unwrap().keys().map(|key| format!("{section}.{key}")));
        }
        let documented: Vec<_> = ALLOWED.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(keys, documented);
        assert!(in_range(&Settings::default()));
    }

    #[test]
    fn the_log_is_read_often_enough_to_miss_nothing() {
        let with = |interval| {
            let mut settings = Settings::default();
            settings.cache.reconcile_interval = interval;
            in_range(&settings)
        };
        let bounds = [9, 10, 60_000, 60_001].map(|milliseconds| with(Duration::from_millis(milliseconds)));
        assert_eq!(bounds, [false, true, true, false]);
    }

    #[test]
    fn a_misspelt_level_is_no_log_filter() {
        for good in ["info", "WARN", "info,terrace=debug", "terrace::cache=trace"] {
            assert!(is_log_filter(good), "{good}");
        }
        for bad in ["", "inof", "info,", "terrace=loud", "info;warn"] {
            assert!(!is_log_filter(bad), "{bad}");
        }
    }
}
