//! Operations by which callers become known.

use serde_json::{Value, json};

use super::responses::{header_references, problem_references};
use super::{component, parameters};

/// Of what takes a body.
const PROBLEMS: [&str; 11] = ["400", "401", "406", "408", "413", "414", "415", "422", "429", "500", "503"];

/// The paths.
pub(super) fn paths() -> Vec<(String, Value)> {
    let tokens =
        || json!({"200": answer("The tokens.", &json!({"application/json": {"schema": component("schemas", "Tokens")}}))});
    let ended = json!({"204": {"description": "The session has ended, if there was one.", "headers": headers()}});
    let login = Operation {
        id: "log_in",
        summary: "Begins a session.",
        description: "An address that nobody has, a wrong password and a disabled user are the same 401, after the same time.",
        body: "Credentials",
        answers: tokens(),
    };
    let refresh = Operation {
        id: "refresh_session",
        summary: "Takes a refresh token for an access token and the next refresh token.",
        description: "A refresh token is taken once. Within 10 seconds it brings the same next one again, for a client that lost the \
                      answer; after that it ends the session, for two have it.",
        body: "RefreshToken",
        answers: tokens(),
    };
    let logout = Operation {
        id: "log_out",
        summary: "Ends the session of a refresh token, and with it all its access tokens, everywhere.",
        description: "Any refresh token of the session will do. What is none ends nothing, and is answered alike (RFC 7009).",
        body: "RefreshToken",
        answers: ended,
    };
    let posts = [("login", login), ("refresh", refresh), ("logout", logout)];
    let me = ("/api/v1/auth/me".to_owned(), json!({"get": describe_caller()}));
    posts.into_iter().map(|(path, operation)| (format!("/api/v1/auth/{path}"), operation.post())).chain([me]).collect()
}

struct Operation {
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    body: &'static str,
    answers: Value,
}

impl Operation {
    fn post(self) -> Value {
        let mut responses = problem_references(&PROBLEMS);
        if let Value::Object(answers) = self.answers {
            responses.extend(answers);
        }
        let content = json!({"application/json": {"schema": component("schemas", self.body)}});
        json!({"post": {
            "operationId": self.id, "summary": self.summary, "description": self.description, "tags": ["authentication"],
            "parameters": parameters::references(&["RequestId"]), "requestBody": {"required": true, "content": content},
            "responses": responses, "security": [],
        }})
    }
}

fn describe_caller() -> Value {
    let mut responses = problem_references(&["400", "401", "406", "414", "429", "500", "503"]);
    let content = json!({"application/json": {"schema": component("schemas", "Caller")}});
    responses.insert("200".to_owned(), answer("Who is asking.", &content));
    json!({
        "operationId": "describe_caller", "summary": "Who is asking, and what the caller may do.", "tags": ["authentication"],
        "parameters": parameters::references(&["RequestId"]), "responses": responses, "security": [{"bearer": []}],
    })
}

fn headers() -> Value {
    Value::Object(header_references(&["X-Request-Id", "Cache-Control"]))
}

fn answer(description: &str, content: &Value) -> Value {
    json!({"description": description, "headers": headers(), "content": content})
}

/// The schemas.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let text = || json!({"type": "string"});
    vec![
        (
            "Credentials",
            json!({
                "type": "object", "required": ["email", "password"], "additionalProperties": false,
                "properties": {"email": text(), "password": {"type": "string", "format": "password"}},
            }),
        ),
        (
            "RefreshToken",
            json!({
                "type": "object", "required": ["refresh_token"], "additionalProperties": false,
                "properties": {"refresh_token": text()},
            }),
        ),
        (
            "Tokens",
            json!({
                "type": "object", "required": ["access_token", "token_type", "expires_in", "refresh_token"],
                "properties": {
                    "access_token": {"type": "string", "description": "A JWT, signed by Ed25519: its claims are sub, sid, role, iat and exp."},
                    "token_type": {"const": "Bearer"},
                    "expires_in": {"type": "integer", "description": "For how many seconds the access token holds."},
                    "refresh_token": text(),
                },
            }),
        ),
        (
            "Caller",
            json!({
                "type": "object", "required": ["actor", "subject", "role", "scopes", "quota"],
                "properties": {
                    "actor": {"type": "string", "description": "The name in the change log: user:ID or key:PREFIX."},
                    "subject": {"type": "string", "description": "What the owner field of the caller's records holds."},
                    "role": {"type": "string", "enum": ["viewer", "editor", "admin"]},
                    "scopes": {"type": ["array", "null"], "items": text(), "description": "What an API key may do of that; null for all."},
                    "quota": {"type": ["string", "null"], "description": "The quota of the key itself."},
                },
            }),
        ),
    ]
}
