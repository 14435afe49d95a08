//! Settings from each source, and every mistake with its place.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::*;
use crate::config::LogFormat;

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn variables(pairs: &[(&str, &str)]) -> std::vec::IntoIter<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>().into_iter()
}

fn load(
    default_file: &Path,
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Settings, Vec<Mistake>> {
    let (settings, mistakes) = Settings::read_with_default(default_file, file, environment);
    if mistakes.is_empty() { Ok(settings) } else { Err(mistakes) }
}

fn from_environment(pairs: &[(&str, &str)]) -> Result<Settings, Vec<Mistake>> {
    load(Path::new("/nonexistent/terrace.toml"), None, variables(pairs))
}

fn from_file(text: &str) -> Result<Settings, Vec<Mistake>> {
    let files = Files::new();
    let file = files.write("given.toml", text);
    load(Path::new("/nonexistent/terrace.toml"), Some(&file), variables(&[]))
}

/// `key: detail` of each mistake.
fn mistakes(result: Result<Settings, Vec<Mistake>>) -> Vec<String> {
    result.unwrap_err().into_iter().map(|mistake| format!("{}: {}", mistake.key, mistake.detail)).collect()
}

#[test]
fn later_sources_win_and_untouched_settings_stay() {
    let files = Files::new();
    let default = files.write("terrace.toml", "[http]\nlisten = \"127.0.0.1:1\"\nworkers = 3\n[cache]\nmax_ttl = \"2h\"");
    let given = files.write("given.toml", "[http]\nlisten = \"127.0.0.1:2\"\n[cache]\nl1_bytes = 1048576");
    let environment = variables(&[
        ("TERRACE_CACHE__ENABLED", "false"),
        ("TERRACE_CACHE__JITTER_PERCENT", "0"),
        ("TERRACE_LOG__FORMAT", "json"),
        ("HOME", "/root"),
    ]);
    let settings = load(&default, Some(&given), environment).unwrap();
    assert_eq!(settings.http.listen, "127.0.0.1:2");
    assert_eq!(settings.http.workers, 3);
    assert_eq!(settings.cache.max_ttl, Duration::from_secs(7200));
    assert_eq!(settings.cache.l1_bytes, ByteSize::mib(1));
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.cache.jitter_percent, 0);
    assert!(!settings.cache.enabled);
    assert_eq!(settings.log.level, "info");
}

#[test]
fn sizes_durations_and_paths_are_read_from_the_environment() {
    let settings = from_environment(&[
        ("TERRACE_CACHE__L1_BYTES", "64MiB"),
        ("TERRACE_HTTP__LISTEN", "[::]:9000"),
        ("TERRACE_LOG__SLOW_QUERY", "1s 500ms"),
        ("TERRACE_COLLECTIONS__DIR", "/srv/collections"),
    ])
    .unwrap();
    assert_eq!(settings.cache.l1_bytes, ByteSize::mib(64));
    assert_eq!(settings.log.slow_query, Duration::from_millis(1500));
    assert_eq!(settings.collections.dir, PathBuf::from("/srv/collections"));
}

#[test]
fn lists_are_separated_by_commas_in_the_environment() {
    let origins = |text| from_environment(&[("TERRACE_CORS__ORIGINS", text)]).map(|settings| settings.cors.origins);
    assert_eq!(origins("https://a.example, http://localhost:5173").unwrap(), ["https://a.example", "http://localhost:5173"]);
    assert_eq!(origins("*").unwrap(), ["*"]);
    assert!(origins("").unwrap().is_empty());
    for wrong in
        ["a.example", "https://a.example/", "https://a.example/x", "https://", "https://A.example", "*,https://a.example"]
    {
        assert_eq!(origins(wrong).unwrap_err()[0].key, "cors.origins", "{wrong}");
    }
}

#[test]
fn text_that_looks_like_a_number_stays_text() {
    let settings = from_environment(&[("TERRACE_COLLECTIONS__DIR", "0123"), ("TERRACE_COLLECTIONS__VIEWS_DIR", "true")]).unwrap();
    assert_eq!(settings.collections.dir, PathBuf::from("0123"));
    assert_eq!(settings.collections.views_dir, PathBuf::from("true"));
}

#[test]
fn every_mistake_of_every_source_is_reported() {
    let files = Files::new();
    let default = files.write("terrace.toml", "[http]\nworkers = \"many\"\nport = 80");
    let given = files.write("given.toml", "[cache]\njitter_percent = 51\n[queue]\nurl = \"\"");
    let environment = variables(&[("TERRACE_HTTP__LISTEN", "localhost"), ("TERRACE_CACHE__L1_BYTE", "1MiB")]);
    let found = load(&default, Some(&given), environment).unwrap_err();
    let mut places: Vec<_> = found.iter().map(|mistake| (mistake.source.clone(), mistake.key.as_str())).collect();
    places.sort();
    let mut expected = vec![
        (Source::File(default.clone()), "http.port"),
        (Source::File(default), "http.workers"),
        (Source::File(given.clone()), "cache.jitter_percent"),
        (Source::File(given), "queue"),
        (Source::Variable("TERRACE_CACHE__L1_BYTE".into()), "cache.l1_byte"),
        (Source::Variable("TERRACE_HTTP__LISTEN".into()), "http.listen"),
    ];
    expected.sort();
    assert_eq!(places, expected);
}

#[test]
fn unknown_keys_and_sections_name_the_allowed_ones() {
    let found = mistakes(from_file("cache = 5\n[http]\nlistn = \"x\"\n[databases]\nurl = \"x\""));
    assert_eq!(
        found,
        [
            "cache: this is a section, [cache], with the keys enabled, l1_bytes, max_ttl, jitter_percent, reconcile_interval, \
             honor_request_directives, warm_loads_per_second, warm_before_ready",
            "databases: there is no such section; allowed are http, operations, cors, database, cache, redis, collections, changes, auth, limits, log",
            "http.listn: there is no such setting; [http] has listen, tls_certificate, tls_key, workers, max_body_bytes, max_connections, \
             max_in_flight, head_timeout, body_timeout, shutdown_timeout, keep_alive, trusted_proxies",
        ]
    );
    let found = from_environment(&[("TERRACE_LISTEN", "x"), ("TERRACE_HTTP", "x"), ("TERRACE_QUEUE__URL", "x")]).unwrap_err();
    let shown: Vec<_> = found.iter().map(Mistake::to_string).collect();
    assert!(
        shown[0].starts_with("TERRACE_HTTP: http: a setting is named TERRACE_<SECTION>__<KEY>; the keys of http are listen,")
    );
    assert!(shown[1].starts_with("TERRACE_LISTEN: listen: there is no such setting;"), "{shown:?}");
    assert!(shown[2].starts_with("TERRACE_QUEUE__URL: queue.url: there is no section queue;"), "{shown:?}");
}

#[test]
fn values_out_of_range_say_what_is_allowed() {
    for (text, key) in [
        ("[http]\nlisten = \"example.org:80\"", "http.listen"),
        ("[http]\nlisten = 8080", "http.listen"),
        ("[http]\nmax_body_bytes = 0", "http.max_body_bytes"),
        ("[http]\nkeep_alive = \"soon\"", "http.keep_alive"),
        ("[database]\nmax_connections = 0", "database.max_connections"),
        ("[database]\nmax_connections = \"8\"", "database.max_connections"),
        ("[cache]\nl1_bytes = \"0B\"", "cache.l1_bytes"),
        ("[cache]\nl1_bytes = -1", "cache.l1_bytes"),
        ("[cache]\nenabled = \"yes\"", "cache.enabled"),
        ("[cache]\njitter_percent = 300", "cache.jitter_percent"),
        ("[cache]\nreconcile_interval = \"1ms\"", "cache.reconcile_interval"),
        ("[collections]\ndir = \"\"", "collections.dir"),
        ("[log]\nlevel = \"inof\"", "log.level"),
        ("[log]\nformat = \"xml\"", "log.format"),
        ("[log]\naccess = { a = 1 }", "log.access"),
    ] {
        let found = mistakes(from_file(text));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].starts_with(key) && found[0].contains("is not allowed; write "), "{text}: {found:?}");
    }
}

#[test]
fn a_database_address_is_not_repeated() {
    let found = mistakes(from_environment(&[("TERRACE_DATABASE__URL", "mysql://me:secret@host/db")]));
    let allowed = "sqlite://PATH such as \"sqlite://data/terrace.db\", or postgres://USER:PASSWORD@HOST:PORT/DATABASE";
    assert_eq!(found, [format!("database.url: this value is not allowed; write {allowed}")]);
}

#[test]
fn a_file_that_is_not_toml_names_the_line() {
    let found = mistakes(from_file("[http]\nworkers = 1\nlisten = "));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("line 3: this is not TOML: "), "{found:?}");
}

#[test]
fn a_file_named_on_the_command_line_must_exist() {
    let missing = Path::new("/nonexistent/given.toml");
    let found = load(missing, Some(missing), variables(&[])).unwrap_err();
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().starts_with("/nonexistent/given.toml: the file cannot be read: "));
}

#[test]
fn what_is_right_beside_a_mistake_is_kept() {
    let environment = variables(&[("TERRACE_HTTP__LISTEN", "nowhere"), ("TERRACE_COLLECTIONS__DIR", "/srv")]);
    let (settings, mistakes) = Settings::read_with_default(Path::new("/nonexistent/terrace.toml"), None, environment);
    assert_eq!(mistakes.len(), 1);
    assert_eq!(settings.collections.dir, PathBuf::from("/srv"));
    assert_eq!(settings.http.listen, "127.0.0.1:8080");
}
