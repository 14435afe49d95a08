//! What callers show to be known: how it is spelled, made and hashed. Nothing here is kept or looked up.
//!
//! An API key is `trk_PREFIX_SECRET`, a refresh token `trr_SESSION_SECRET`. Both end with a check sum, so that what somebody mistyped,
//! or made up, is refused without a look-up, and tools that search for leaked secrets find them. An access token is a JWT.

use aws_lc_rs::{constant_time, digest, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, ErrorKind, Result};

/// What API keys begin with.
const KEY: &str = "trk_";
/// What refresh tokens begin with.
const REFRESH: &str = "trr_";
/// Of what is random, five bits to a character: lower-case letters and digits that are not taken for letters.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Characters of a prefix: 60 bits, so two that are equal are not met with.
const PREFIX_LENGTH: usize = 12;
/// Characters of 256 bits.
const SECRET_LENGTH: usize = 52;
/// Characters of 128 bits.
const FAMILY_LENGTH: usize = 26;
const SUM_LENGTH: usize = 6;
/// Longer than anything that Terrace gives out.
const MAX_BYTES: usize = 2_048;

/// What an `Authorization` field carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// An API key, whole.
    Key(&'a str),
    /// What may be an access token.
    Token(&'a str),
}

/// An API key that has just been made.
pub(super) struct FreshKey {
    pub prefix: String,
    pub hash: String,
    pub text: SecretString,
}

/// A refresh token, taken apart.
pub(super) struct RefreshToken {
    pub session: String,
    /// What all tokens of the session have in common: who has it has had one of them.
    family: SecretString,
    /// What only this one has.
    secret: SecretString,
}

/// What everybody is told whose credential does not hold, whatever is wrong with it.
pub(super) fn invalid() -> Error {
    let detail = "The credential does not hold: it is malformed, unknown, expired or revoked. Send Authorization: Bearer with an \
                  access token or an API key, or nothing.";
    Error::new(ErrorKind::Unauthenticated, "invalid_token", detail)
}

impl<'a> Credential<'a> {
    /// Reads the value of an `Authorization` field (RFC 6750, 2.1).
    pub fn parse(field: &'a [u8]) -> Result<Self> {
        let text = std::str::from_utf8(field).ok().filter(|text| text.len() <= MAX_BYTES).ok_or_else(invalid)?;
        let (scheme, credential) = text.split_once(' ').ok_or_else(invalid)?;
        let credential = credential.trim_matches(' ');
        if !scheme.eq_ignore_ascii_case("bearer") || credential.is_empty() {
            return Err(invalid());
        }
        Ok(if credential.starts_with(KEY) { Self::Key(credential) } else { Self::Token(credential) })
    }

    /// What it is cached by.
    pub fn digest(self) -> [u8; 32] {
        let (Self::Key(text) | Self::Token(text)) = self;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        bytes
    }
}

impl FreshKey {
    pub fn make() -> Result<Self> {
        let prefix: String = random(PREFIX_LENGTH.div_ceil(8) * 5)?.chars().take(PREFIX_LENGTH).collect();
        let secret = random(32)?;
        let hash = hashed(&secret);
        let body = format!("{KEY}{prefix}_{secret}");
        let text = format!("{body}{}", sum(&body)).into();
        Ok(Self { prefix, hash, text })
    }
}

/// The prefix of an API key and the hash of its secret, unless its spelling shows that there is no such key.
pub(super) fn read_key(text: &str) -> Option<(&str, String)> {
    let (prefix, secret) = summed(text, KEY)?.split_once('_')?;
    let is_key = prefix.len() == PREFIX_LENGTH && secret.len() == SECRET_LENGTH && is_plain(prefix) && is_plain(secret);
    is_key.then(|| (prefix, hashed(secret)))
}

impl RefreshToken {
    /// The first one of a session.
    pub fn make(session: &str) -> Result<Self> {
        let (family, secret) = (random(16)?.into(), random(32)?.into());
        Ok(Self { session: session.to_owned(), family, secret })
    }

    /// Reads what a client sent; `None` if its spelling shows that it is none.
    pub fn read(text: &str) -> Option<Self> {
        let (session, rest) = summed(text, REFRESH)?.split_once('_')?;
        let session = uuid::Uuid::try_parse(session).ok()?.to_string();
        let (family, secret) = rest.split_at_checked(FAMILY_LENGTH)?;
        let is_token = secret.len() == SECRET_LENGTH && is_plain(family) && is_plain(secret);
        is_token.then(|| Self { session, family: family.into(), secret: secret.into() })
    }

    /// As clients get it.
    pub fn text(&self) -> SecretString {
        let (family, secret) = (self.family.expose_secret(), self.secret.expose_secret());
        let body = format!("{REFRESH}{}_{family}{secret}", self.session.replace('-', ""));
        let sum = sum(&body);
        format!("{body}{sum}").into()
    }

    pub fn family_hash(&self) -> String {
        hashed(self.family.expose_secret())
    }

    pub fn hash(&self) -> String {
        hashed(self.secret.expose_secret())
    }

    /// The one after this by `step`. Whoever has this one finds the same, so that a client which lost the answer can ask again; who has
    /// only what is stored does not.
    pub fn next(&self, step: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose_secret().as_bytes());
        let secret = spelled(hmac::sign(&key, step.as_bytes()).as_ref()).into();
        Self { session: self.session.clone(), family: self.family.clone(), secret }
    }
}

/// So many random bytes, spelled.
pub(super) fn random(length: usize) -> Result<String> {
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes).map_err(|_| Error::internal("the system has no random numbers"))?;
    Ok(spelled(&bytes))
}

/// Whether it may be what [`random`] made of so many bytes.
pub(super) fn is_random(text: &str, length: usize) -> bool {
    text.len() == (8 * length).div_ceil(5) && is_plain(text)
}

/// The hash that is stored of something that has 128 random bits or more; nothing slower is needed for these.
pub(super) fn hashed(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, secret.as_bytes()))
}

/// Whether two hashes are the same, in a time that does not say where they differ.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| ALPHABET.contains(&byte))
}

fn spelled(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((8 * bytes.len()).div_ceil(5));
    let (mut held, mut bits) = (0_u32, 0);
    let mut put = |five: u32| text.push(char::from(ALPHABET.get((five & 31) as usize).copied().unwrap_or_default()));
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            put(held >> bits);
        }
    }
    if bits > 0 {
        put(held << (5 - bits));
    }
    text
}

/// It finds mistakes, and keeps nobody from anything.
fn sum(text: &str) -> String {
    spelled(&xxh3_64(text.as_bytes()).to_be_bytes()).chars().take(SUM_LENGTH).collect()
}

/// What stands between the beginning and the check sum, if that is right.
fn summed<'a>(text: &'a str, beginning: &str) -> Option<&'a str> {
    let (body, its_sum) = text.split_at_checked(text.len().checked_sub(SUM_LENGTH)?)?;
    if sum(body) != its_sum {
        return None;
    }
    body.strip_prefix(beginning)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made_and_a_mistyped_one_is_refused() {
        let key = FreshKey::make().unwrap();
        let text = key.text.expose_secret();
        assert_eq!(text.len(), 4 + PREFIX_LENGTH + 1 + SECRET_LENGTH + SUM_LENGTH, "{text}");
        assert_eq!(read_key(text), Some((key.prefix.as_str(), key.hash.clone())));
        for at in 0..text.len() {
            let mut mistyped = text.to_owned().into_bytes();
            mistyped[at] = if mistyped[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(read_key(std::str::from_utf8(&mistyped).unwrap()), None, "{at}");
        }
        assert!(!key.hash.contains(text));
        assert_ne!(FreshKey::make().unwrap().text.expose_secret(), text);
    }

    #[test]
    fn a_refresh_token_leads_to_one_next_and_is_not_found_by_its_hash() {
        let session = uuid::Uuid::now_v7().to_string();
        let first = RefreshToken::make(&session).unwrap();
        let read = RefreshToken::read(first.text().expose_secret()).unwrap();
        assert_eq!((&read.session, read.hash(), read.family_hash()), (&session, first.hash(), first.family_hash()));
        let (next, again, other) = (first.next("step"), read.next("step"), first.next("other"));
        assert_eq!((next.hash(), next.family_hash()), (again.hash(), first.family_hash()));
        assert!(next.hash() != first.hash() && next.hash() != other.hash());
        assert_eq!(RefreshToken::read(next.text().expose_secret()).unwrap().hash(), next.hash());
        assert!(RefreshToken::read(FreshKey::make().unwrap().text.expose_secret()).is_none());
    }

    #[test]
    fn the_field_has_a_scheme_and_one_credential() {
        let is = |field: &str, credential| Credential::parse(field.as_bytes()).ok() == credential;
        assert!(is("Bearer trk_x", Some(Credential::Key("trk_x"))) && is("bEARER  a.b.c ", Some(Credential::Token("a.b.c"))));
        for wrong in ["", "Bearer", "Bearer ", "Basic dTpw", "trk_x", " Bearer x", "Bearer\tx"] {
            let error = Credential::parse(wrong.as_bytes()).err().unwrap();
            assert_eq!((error.kind(), error.code()), (ErrorKind::Unauthenticated, "invalid_token"), "{wrong:?}");
        }
        assert!(Credential::parse(format!("Bearer {}", "x".repeat(MAX_BYTES)).as_bytes()).is_err());
        assert!(Credential::parse(b"Bearer \xff").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange_to_be_read(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,120}") {
            if let Ok(credential) = Credential::parse(&bytes) {
                credential.digest();
            }
            let token = format!("Bearer {text}");
            drop(Credential::parse(token.as_bytes()));
            for beginning in [KEY, REFRESH] {
                let body = format!("{beginning}{text}");
                let summed = format!("{body}{}", sum(&body));
                read_key(&summed);
                drop(RefreshToken::read(&summed));
            }
        }
    }
}
