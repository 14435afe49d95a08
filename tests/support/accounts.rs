//! Callers for tests: keys with any role and scopes, and users.

use reqwest::Method;
use serde_json::{Value, json};
use terrace::app::App;
use terrace::auth::KeyRequest;
use terrace::model::{Caller, Role};

use super::{Reply, Server};

/// A password that is long enough.
pub const PASSWORD: &str = "correct horse battery staple";

impl Server {
    /// The application over this server's database, as a command beside it would open it.
    pub async fn app(&self) -> App {
        App::open(self.settings.clone()).await.unwrap()
    }

    /// Makes an API key; returns the value of an `Authorization` field.
    pub async fn key(&self, request: KeyRequest) -> String {
        use secrecy::ExposeSecret as _;
        let created = self.app().await.accounts().create_key(request, &Caller::OPERATOR).await.unwrap();
        format!("Bearer {}", created.text.expose_secret())
    }

    /// The same for a role, with scopes such as `items:read`, or with all if there are none.
    pub async fn key_for(&self, role: Role, scopes: &[&str]) -> String {
        let scopes = (!scopes.is_empty()).then(|| scopes.iter().map(|scope| scope.parse().unwrap()).collect());
        self.key(KeyRequest { scopes, ..KeyRequest::new("test", role) }).await
    }

    /// Adds a user with [`PASSWORD`].
    pub async fn add_user(&self, email: &str, role: Role) {
        self.app().await.accounts().add_user(email, PASSWORD.to_owned().into(), role, &Caller::OPERATOR).await.unwrap();
    }

    /// Logs a user in; returns the answer.
    pub async fn log_in(&self, email: &str, password: &str) -> Reply {
        self.post("/api/v1/auth/login", &json!({"email": email, "password": password})).await
    }

    /// The value of an `Authorization` field for a user.
    pub async fn token(&self, email: &str) -> String {
        let answer = self.log_in(email, PASSWORD).await.expect(200);
        format!("Bearer {}", answer["access_token"].as_str().unwrap())
    }

    /// A GET by whom the value of an `Authorization` field says.
    pub async fn get_as(&self, authorization: &str, path: &str) -> Reply {
        self.send_as(authorization, Method::GET, path, None).await
    }

    /// A request by whom the value of an `Authorization` field says.
    pub async fn send_as(&self, authorization: &str, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let request = self.anonymous_request(method, path).header("authorization", authorization);
        Reply::read(if let Some(body) = body { request.json(body) } else { request }).await
    }
}
