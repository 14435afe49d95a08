//! What a server writes into its log, and counts, at the most talkative level that it has: nothing of anybody's secrets.

use std::fmt::Write as _;

use diesel::Connection as _;
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use terrace::app::App;
use terrace::auth::KeyRequest;
use terrace::model::{Caller, Role};

use crate::support::accounts::PASSWORD;
use crate::support::database::Database;
use crate::support::process::Process;
use crate::support::schema::{Schema, Session};
use crate::support::{fixture, settings_on, sqlite_url};

const EMAIL: &str = "ada@example.org";
/// What only administrators see of a record, and what the change log leaves out.
const HIDDEN: &str = "sesame-open-3141592653589793";
const REDACTED: &str = "abracadabra-2718281828459045";
/// Everybody may see this, and the log has it neither.
const EDITS: [(&str, &str); 1] = [(
    "[search]\nname = \"A\"",
    "[access.fields]\nowner = { read = \"admin\", write = \"admin\" }\n\n[audit]\nredact = [\"unindexed\"]\n\n[search]\nname = \"A\"",
)];

/// An installation with one user and one key, and a server of it.
struct Stage {
    process: Process,
    url: String,
    key: String,
    _directory: TempDir,
}

impl Stage {
    async fn set(url: String, level: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let mut settings = settings_on(url.clone());
        fixture::declare(&mut settings, directory.path());
        let app = App::open(settings).await.unwrap();
        app.migrate().await.unwrap();
        let added = app.accounts().add_user(EMAIL, PASSWORD.to_owned().into(), Role::Editor, &Caller::OPERATOR);
        added.await.unwrap();
        let created = app.accounts().create_key(KeyRequest::new("robot", Role::Admin), &Caller::OPERATOR).await.unwrap();
        let process = Process::serve_edited(&url, &[("TERRACE_LOG__LEVEL", level)], &EDITS);
        process.answers("/health/ready", 200).await;
        Self { process, url, key: created.text.expose_secret().to_owned(), _directory: directory }
    }

    async fn send(&self, method: Method, path: &str, body: &Value, credential: Option<&str>) -> Value {
        let reply = self.process.send_as(method, path, body, credential).await;
        assert!(reply.status.is_success(), "{path}: {} {}", reply.status, reply.text);
        serde_json::from_str(&reply.text).unwrap_or_default()
    }

    /// Does all that has to do with a secret; returns those that the clients have.
    async fn use_everything(&self) -> Vec<(&'static str, String)> {
        let login = json!({"email": EMAIL, "password": PASSWORD});
        let first = self.send(Method::POST, "/api/v1/auth/login", &login, None).await;
        let refresh = json!({"refresh_token": first["refresh_token"]});
        let second = self.send(Method::POST, "/api/v1/auth/refresh", &refresh, None).await;
        let token = second["access_token"].as_str().unwrap();
        let me = self.process.send_as(Method::GET, "/api/v1/auth/me", &json!({}), Some(token)).await;
        assert_eq!(me.status, 200, "{}", me.text);
        let document = json!({"sku": "A", "name": "A", "category": "a", "owner": HIDDEN, "unindexed": REDACTED});
        self.send(Method::POST, "/api/items", &document, Some(&self.key)).await;
        self.send(Method::PATCH, "/api/items/A", &json!({"tier": 1}), Some(&self.key)).await;
        let search = format!("/api/items/_changes?record=A&actor={EMAIL}");
        let refused = self.process.send_as(Method::GET, &search, &json!({}), Some(token)).await;
        assert_eq!(refused.status, 403, "{}", refused.text);
        let mistyped = format!("{}x", self.key);
        assert_eq!(self.process.send_as(Method::GET, "/api/items", &json!({}), Some(&mistyped)).await.status, 401);
        let wrong = json!({"email": EMAIL, "password": "not the right one"});
        assert_eq!(self.process.send(Method::POST, "/api/v1/auth/login", &wrong).await.status, 401);
        self.send(Method::POST, "/api/v1/auth/logout", &json!({"refresh_token": second["refresh_token"]}), None).await;
        let mut secrets = vec![
            ("the password", PASSWORD.to_owned()),
            ("a wrong password", "not the right one".to_owned()),
            ("the key", self.key.split('_').nth(2).unwrap().to_owned()),
            ("a hidden member", HIDDEN.to_owned()),
            ("a redacted member", REDACTED.to_owned()),
        ];
        for tokens in [&first, &second] {
            let signature = tokens["access_token"].as_str().unwrap().rsplit('.').next().unwrap();
            secrets.push(("an access token", signature.to_owned()));
            secrets.push(("a refresh token", tokens["refresh_token"].as_str().unwrap().to_owned()));
        }
        secrets
    }

    /// What the database has of them.
    fn stored(&self) -> Vec<(&'static str, String)> {
        let mut database = match self.url.strip_prefix("sqlite://") {
            Some(path) => Database::Sqlite(diesel::SqliteConnection::establish(path).unwrap()),
            None => Database::Postgres(Session::open(&self.url).unwrap()),
        };
        let mut found = Vec::new();
        for (what, query) in [
            ("the hash of a password", "SELECT password_hash AS value FROM users"),
            ("the hash of a key", "SELECT hash AS value FROM api_keys"),
            ("the hash of a refresh token", "SELECT newest AS value FROM sessions"),
            ("the hash of the refresh token before", "SELECT previous AS value FROM sessions WHERE previous IS NOT NULL"),
            ("what a refresh token was derived by", "SELECT step AS value FROM sessions WHERE step IS NOT NULL"),
            ("what all tokens of a session have", "SELECT family AS value FROM sessions"),
            ("a private key", "SELECT private AS value FROM signing_keys"),
            ("the secret of the installation", "SELECT value FROM installation WHERE name = 'secret'"),
        ] {
            let texts = database.texts(query);
            assert!(!texts.is_empty(), "there is no {what}");
            found.extend(texts.into_iter().map(|text| (what, text)));
        }
        found
    }

    /// Which of the secrets the log and the metrics have, in whatever spelling.
    async fn told(&self) -> Vec<String> {
        let mut secrets = self.use_everything().await;
        secrets.extend(self.stored());
        let shown = format!("{}\n{}", self.process.log(), self.process.get("/metrics").await.text).to_lowercase();
        let spellings = |secret: &str| {
            let bytes: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
            let hex = secret.bytes().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
            [secret.to_lowercase(), bytes.join(", "), hex]
        };
        let is_told = |secret: &str| spellings(secret).iter().any(|spelling| shown.contains(spelling.as_str()));
        secrets.iter().filter(|(_, secret)| is_told(secret)).map(|(what, _)| (*what).to_owned()).collect()
    }
}

#[tokio::test]
async fn a_server_that_logs_all_it_can_tells_no_secret() {
    let directory = TempDir::new().unwrap();
    let schema = Schema::create();
    for url in [sqlite_url(directory.path()), schema.url()] {
        let stage = Stage::set(url, "debug").await;
        assert_eq!(stage.told().await, Vec::<String>::new(), "{}", stage.url);
    }
}

/// What is warned of where `log.level` is documented; and the proof that a secret would be found.
#[tokio::test]
async fn parameters_of_statements_are_logged_by_who_asks_for_them_by_name() {
    let schema = Schema::create();
    let stage = Stage::set(schema.url(), "info,tokio_postgres=debug").await;
    let told = stage.told().await;
    for what in ["the hash of a refresh token", "a private key", "a hidden member"] {
        assert!(told.iter().any(|told| told == what), "{what} is not among {told:?}");
    }
}
