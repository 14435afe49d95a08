//! Callers who are refused while something bad happens: a key that is revoked, a user who is disabled and a session that ends, on one
//! instance or by a command beside them, which may not be on the bus, or not live to announce it. No instance lets them in for longer
//! than its data may be old.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use terrace::app::App;
use terrace::auth::{Accounts, KeyRequest, UserState};
use terrace::model::{Caller, Role};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::proxy::{Rule, Rules};
use super::run::{ALLOWANCE, HOP, INTERVAL};
use super::scenarios::{alone, least};
use super::stage::{Allowed, SERVERS, Stage};
use crate::support::accounts::PASSWORD;
use crate::support::process;
use crate::support::{fixture, settings_on};

const HOLDER: &str = "holder@example.org";
const GUEST: &str = "guest@example.org";

/// Who revokes a key.
#[derive(Clone, Copy, Debug)]
enum Operator {
    /// A command with Redis.
    OnTheBus,
    /// A command without, whose changes are found in the log.
    BesideIt,
    /// A command that is killed between its commit and its announcement.
    Killed,
}

/// Whoever asks, and what became of it.
struct Watched {
    what: &'static str,
    authorization: String,
    /// When somebody began to refuse it, was told that it is done, and on which server that was.
    refused: Option<(Instant, Instant, Option<usize>)>,
}

struct Seen {
    server: usize,
    began: Instant,
    ended: Instant,
    status: u16,
}

/// What the rounds of a scenario came to.
#[derive(Default)]
struct Figures {
    refused: usize,
    reads: usize,
    let_in: usize,
    longest: Duration,
    violations: Vec<String>,
}

struct Scenario {
    stage: Arc<Stage>,
    on_the_bus: App,
    beside_it: App,
    bound: Duration,
    _directory: TempDir,
}

impl Scenario {
    async fn set(elsewhere: Duration) -> Self {
        let stage = Stage::set(1, Allowed::default(), |_| Vec::new()).await;
        let directory = TempDir::new().unwrap();
        let mut settings = settings_on(stage.postgres.lock().unwrap().url());
        fixture::declare(&mut settings, directory.path());
        settings.database.min_connections = 1;
        let beside_it = App::open(settings.clone()).await.unwrap();
        settings.redis.url = stage.redis.lock().unwrap().url();
        let on_the_bus = App::open(settings).await.unwrap();
        for email in [HOLDER, GUEST] {
            let added = beside_it.accounts().add_user(email, PASSWORD.to_owned().into(), Role::Viewer, &Caller::OPERATOR);
            added.await.unwrap();
        }
        Self { stage, on_the_bus, beside_it, bound: elsewhere + ALLOWANCE, _directory: directory }
    }

    fn accounts(&self, operator: Operator) -> &Arc<Accounts> {
        match operator {
            Operator::OnTheBus => self.on_the_bus.accounts(),
            Operator::BesideIt | Operator::Killed => self.beside_it.accounts(),
        }
    }

    async fn key(&self, user: Option<&str>) -> (String, String) {
        let request = KeyRequest { user: user.map(str::to_owned), ..KeyRequest::new("fault", Role::Viewer) };
        let created = self.beside_it.accounts().create_key(request, &Caller::OPERATOR).await.unwrap();
        (created.prefix, format!("Bearer {}", created.text.expose_secret()))
    }

    /// One of each kind is let in everywhere, then refused, and watched until no instance may let it in.
    async fn round(&self, operator: Operator, figures: &mut Figures) {
        let accounts = self.accounts(operator);
        accounts.set_user_state(HOLDER, UserState::Active, &Caller::OPERATOR).await.unwrap();
        let ((prefix, lone), (_, held)) = (self.key(None).await, self.key(Some(HOLDER)).await);
        let tokens = self.post(0, "login", &json!({"email": GUEST, "password": PASSWORD})).await;
        let token = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
        let watched = |what, authorization| Watched { what, authorization, refused: None };
        let mut watched =
            [watched("a revoked key", lone), watched("a key of a disabled user", held), watched("a session", token)];
        for watched in &watched {
            for server in (0..SERVERS).chain(0..SERVERS) {
                self.is_let_in(server, &watched.authorization).await;
            }
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let watchers: Vec<Vec<JoinHandle<Vec<Seen>>>> = watched
            .iter()
            .map(|watched| (0..SERVERS).map(|server| self.watch(server, &watched.authorization, &is_over)).collect())
            .collect();
        sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        match operator {
            Operator::OnTheBus | Operator::BesideIt => accounts.revoke_key(&prefix, &Caller::OPERATOR).await.unwrap(),
            Operator::Killed => self.revoke_and_die(&prefix).await,
        }
        watched[0].refused = Some((began, Instant::now(), None));
        let began = Instant::now();
        accounts.set_user_state(HOLDER, UserState::Disabled, &Caller::OPERATOR).await.unwrap();
        watched[1].refused = Some((began, Instant::now(), None));
        let (began, server) = (Instant::now(), fastrand::usize(..SERVERS));
        self.post(server, "logout", &json!({"refresh_token": tokens["refresh_token"]})).await;
        watched[2].refused = Some((began, Instant::now(), Some(server)));
        sleep(self.bound + Duration::from_millis(300)).await;
        is_over.store(true, Ordering::Relaxed);
        for (watched, watchers) in watched.iter().zip(watchers) {
            figures.refused += 1;
            for watcher in watchers {
                figures.judge(watched, &watcher.await.unwrap(), self.bound);
            }
        }
    }

    async fn post(&self, server: usize, path: &str, body: &Value) -> Value {
        let address = self.stage.address(server).unwrap();
        let answer = self.stage.ask(address, Method::POST, &format!("/api/v1/auth/{path}"), None, Some(body)).await;
        assert!((200..300).contains(&answer.0), "{path}: {answer:?}");
        serde_json::from_str(&answer.1).unwrap_or_default()
    }

    async fn is_let_in(&self, server: usize, authorization: &str) {
        let address = self.stage.address(server).unwrap();
        let deadline = Instant::now() + crate::support::DEADLINE;
        loop {
            let (status, text) = self.stage.ask(address, Method::GET, "/api/v1/auth/me", Some(authorization), None).await;
            if status == 200 {
                return;
            }
            assert!(Instant::now() < deadline, "server {server} does not let it in: {status} {text}");
        }
    }

    fn watch(&self, server: usize, authorization: &str, is_over: &Arc<AtomicBool>) -> JoinHandle<Vec<Seen>> {
        let (stage, authorization, is_over) = (Arc::clone(&self.stage), authorization.to_owned(), Arc::clone(is_over));
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let (began, address) = (Instant::now(), stage.address(server).unwrap());
                let (status, _) = stage.ask(address, Method::GET, "/api/v1/auth/me", Some(&authorization), None).await;
                seen.push(Seen { server, began, ended: Instant::now(), status });
                sleep(Duration::from_millis(15)).await;
            }
            seen
        })
    }

    /// As `terrace key revoke` does, if it is killed at the worst moment.
    async fn revoke_and_die(&self, prefix: &str) {
        let (directory, faults) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        std::fs::write(faults.path().join("before_announce"), "kill").unwrap();
        let (url, redis) = (self.stage.postgres.lock().unwrap().url(), self.stage.redis.lock().unwrap().url());
        let faults = faults.path().display().to_string();
        let settings = [("FAULTS_DIR", faults.as_str()), ("TERRACE_REDIS__URL", &redis)];
        let mut command = process::command(&directory, &url, &["key", "revoke", prefix], &settings);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), None, "it was not killed: {output:?}");
    }
}

impl Figures {
    fn print(&self, name: &str, bound: Duration) {
        println!(
            "{name:<44} {:>6} reads ({} let in after a refusal) of {} refused credentials; longest {:.1} ms of {:.0} ms; {} violations",
            self.reads,
            self.let_in,
            self.refused,
            self.longest.as_secs_f64() * 1e3,
            bound.as_secs_f64() * 1e3,
            self.violations.len()
        );
    }

    fn judge(&mut self, watched: &Watched, seen: &[Seen], bound: Duration) {
        let (began, done, at) = watched.refused.unwrap();
        self.reads += seen.len();
        assert!(seen.iter().any(|seen| seen.status == 200), "{}", watched.what);
        for Seen { server, began: asked, ended, status } in seen {
            let late = asked.saturating_duration_since(done);
            // Who is answered by the instance that did it is never let in after that.
            let bound = if at == Some(*server) { Duration::ZERO } else { bound };
            let what = watched.what;
            match status {
                200 if *asked > done => {
                    self.let_in += 1;
                    self.longest = self.longest.max(late);
                    if late > bound {
                        self.violations.push(format!("{what} is let in by server {server} {late:?} after it was refused"));
                    }
                }
                200 => {}
                401 if *ended < began => {
                    self.violations.push(format!("{what} is not let in by server {server} before anybody refused it"));
                }
                401 => {}
                other => self.violations.push(format!("{what} is answered {other} by server {server}")),
            }
        }
    }
}

async fn scenario(name: &str, elsewhere: Duration, misfortune: impl AsyncFn(&Stage), relief: impl AsyncFn(&Stage)) {
    let _turn = alone().await;
    let scenario = Scenario::set(elsewhere).await;
    let mut figures = Figures::default();
    let end = Instant::now() + least();
    loop {
        for operator in [Operator::OnTheBus, Operator::BesideIt, Operator::Killed] {
            misfortune(&scenario.stage).await;
            scenario.round(operator, &mut figures).await;
            relief(&scenario.stage).await;
        }
        if Instant::now() >= end {
            break;
        }
    }
    figures.print(name, scenario.bound);
    let violations = figures.violations;
    let shown: Vec<&String> = violations.iter().take(5).collect();
    assert!(violations.is_empty(), "{name}: {} violations, among them {shown:#?}\n{}", violations.len(), scenario.stage.logs());
}

/// The harness finds what it is there for: with the log unread, nobody hears of what a command beside the bus has done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_reconciling_callers_stay_let_in() {
    let _turn = alone().await;
    let scenario = Scenario::set(INTERVAL + HOP).await;
    scenario.stage.switch_off("reconcile");
    let mut figures = Figures::default();
    scenario.round(Operator::BesideIt, &mut figures).await;
    figures.print("callers, without the reconcile", scenario.bound);
    assert!(
        figures.violations.iter().any(|violation| violation.starts_with("a revoked key is let in")),
        "no violation was found"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_are_refused_while_messages_are_dropped() {
    let drop_messages = async |stage: &Stage| {
        stage.to_redis.iter().for_each(|proxy| proxy.set(Rules::bus(Rule::DropAllButHeartbeats)));
    };
    scenario("callers, messages are dropped", INTERVAL + HOP, drop_messages, async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_are_refused_while_redis_is_killed() {
    let kill = async |stage: &Stage| {
        stage.redis.lock().unwrap().stop();
    };
    let start = async |stage: &Stage| {
        stage.redis.lock().unwrap().start_again();
        sleep(Duration::from_millis(1_500)).await;
    };
    scenario("callers, Redis is killed", Duration::from_secs(2), kill, start).await;
}
