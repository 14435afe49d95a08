//! Access tokens that somebody has made or changed, knowing all that is public: none of them is one.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use terrace::model::Role;

use crate::support::Server;
use crate::support::accounts::PASSWORD;
use crate::support::database::Database;

const ME: &str = "/api/v1/auth/me";
const EMAIL: &str = "ada@example.org";

/// A token in its parts.
struct Token {
    header: Value,
    claims: Value,
    signature: String,
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

impl Token {
    async fn of(server: &Server) -> Self {
        let answer = server.log_in(EMAIL, PASSWORD).await.expect(200);
        let parts: Vec<&str> = answer["access_token"].as_str().unwrap().split('.').collect();
        Self { header: decoded(parts[0]), claims: decoded(parts[1]), signature: parts[2].to_owned() }
    }

    fn signed(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let text = format!("{}.{}", encoded(header), encoded(claims));
        let signature = URL_SAFE_NO_PAD.encode(sign(text.as_bytes()));
        format!("Bearer {text}.{signature}")
    }

    fn with(&self, header: &Value, claims: &Value) -> String {
        format!("Bearer {}.{}.{}", encoded(header), encoded(claims), self.signature)
    }
}

/// The key that has signed, as the database has it.
fn signing_key(server: &Server) -> Ed25519KeyPair {
    let private = Database::of(server).texts("SELECT private AS value FROM signing_keys").remove(0);
    Ed25519KeyPair::from_pkcs8(&STANDARD.decode(private).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_that_was_changed_or_signed_by_another_key_is_refused() {
    let server = Server::fixture();
    server.add_user(EMAIL, Role::Viewer).await;
    server.add_user("eve@example.org", Role::Admin).await;
    let token = Token::of(&server).await;
    let (header, claims) = (&token.header, &token.claims);
    let own = signing_key(&server);
    let sign = |header: &Value, claims: &Value| Token::signed(header, claims, |text| own.sign(text).as_ref().to_vec());
    // What is built here is a token, if the right key signs it.
    server.get_as(&sign(header, claims), ME).await.expect(200);

    let changed = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let spelled = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        header
    };
    let public = own.public_key().as_ref();
    let other = Ed25519KeyPair::generate().unwrap();
    let by_other = |header: &Value, claims: &Value| Token::signed(header, claims, |text| other.sign(text).as_ref().to_vec());
    let by_public = |header: &Value, key: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Token::signed(header, claims, |text| hmac::sign(&key, text).as_ref().to_vec())
    };
    let spki = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], public].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&spki));
    let symmetric = spelled("alg", json!("HS256"));
    let mut nameless = header.clone();
    nameless.as_object_mut().unwrap().remove("kid");
    let eve = Database::of(&server).texts("SELECT id AS value FROM users WHERE email = 'eve@example.org'").remove(0);
    // Spelled as they are.
    let kid = header["kid"].as_str().unwrap();
    let foreign = format!("{}{}", if kid.starts_with('a') { 'b' } else { 'a' }, &kid[1..]);
    let ended = claims["iat"].as_i64().unwrap() - 10;
    for (what, forged) in [
        ("another role", token.with(header, &changed("role", json!("admin")))),
        ("another user", token.with(header, &changed("sub", json!(eve)))),
        ("another session", token.with(header, &changed("sid", json!("x")))),
        ("a later end", token.with(header, &changed("exp", json!(9_999_999_999_i64)))),
        ("a past end", sign(header, &changed("exp", json!(ended)))),
        ("no algorithm", format!("Bearer {}.{}.", encoded(&spelled("alg", json!("none"))), encoded(claims))),
        ("no algorithm, and a signature", token.with(&spelled("alg", json!("none")), claims)),
        ("HS256 by the public key", by_public(&symmetric, public)),
        ("HS256 by the public key as DER", by_public(&symmetric, &spki)),
        ("HS256 by the public key as PEM", by_public(&symmetric, pem.as_bytes())),
        ("HS256 by nothing", by_public(&symmetric, &[])),
        ("another key under this kid", by_other(header, claims)),
        ("another key under its own kid", by_other(&spelled("kid", json!(foreign)), claims)),
        ("the right key under another kid", sign(&spelled("kid", json!(foreign)), claims)),
        ("a kid that is a path", sign(&spelled("kid", json!("../../dev/null")), claims)),
        ("no kid", sign(&nameless, claims)),
        ("a key in the header", by_other(&spelled("jwk", json!({"kty": "OKP", "crv": "Ed25519"})), claims)),
        ("no signature", format!("Bearer {}.{}.", encoded(header), encoded(claims))),
        ("a signature that is cut", token.with(header, claims).strip_suffix(&token.signature[80..]).unwrap().to_owned()),
    ] {
        let reply = server.get_as(&forged, ME).await;
        assert_eq!(reply.status, 401, "{what}: {}", reply.text);
        reply.problem(401, "invalid_token");
    }
    // Whose it is counts, and not what it says: the role is the user's.
    let promoted = server.get_as(&sign(header, &changed("role", json!("admin"))), ME).await.expect(200);
    assert_eq!(promoted["role"], "viewer");
    server.get_as(&sign(header, claims), ME).await.expect(200);
}

/// A user's id with another user's session.
#[tokio::test]
async fn a_token_of_one_user_with_the_session_of_another_is_refused_even_if_it_is_signed() {
    let server = Server::fixture();
    server.add_user(EMAIL, Role::Viewer).await;
    server.add_user("eve@example.org", Role::Admin).await;
    let token = Token::of(&server).await;
    let own = signing_key(&server);
    let mut claims = token.claims.clone();
    claims["sub"] = Database::of(&server).texts("SELECT id AS value FROM users WHERE email = 'eve@example.org'").remove(0).into();
    let mixed = Token::signed(&token.header, &claims, |text| own.sign(text).as_ref().to_vec());
    server.get_as(&mixed, ME).await.problem(401, "invalid_token");
}
