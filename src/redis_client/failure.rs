//! What went wrong with Redis, told to an operator: each reason names the setting to look at, and none repeats a value.

use std::io;
use std::time::Duration;

use redis::{ErrorKind, RedisError};
use rustls::Error as TlsError;

use crate::error::Error;
use crate::tls::Distrust;

/// When a client of ours that depends on Redis may try again: reconnecting takes about as long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A failed command.
#[derive(Debug)]
pub(super) enum Failure {
    /// This connection, or the server at its end, is of no more use.
    Lost(Error),
    /// The server refused this command; others may be right.
    Refused(Error),
}

const REPLICA: &str = "Redis is a replica and takes no writes; redis.url must name the master.";
const CLUSTER: &str = "redis.url names a node of a Redis cluster, and Terrace uses a single master.";
const CUT: &str = "Redis ended the connection; see redis.url.";

/// What the server answered, by the first word of the answer; and whether it is about the whole connection.
const ANSWERS: [(&str, bool, &str); 14] = [
    ("NOAUTH", true, "Redis wants a password, and redis.url has none."),
    ("WRONGPASS", true, "Redis refuses the user or the password of redis.url."),
    ("LOADING", true, "Redis is still loading its data; see redis.url."),
    ("READONLY", true, REPLICA),
    ("MASTERDOWN", true, REPLICA),
    ("MISCONF", true, "Redis takes no writes because it cannot save its data (MISCONF); mend the server that redis.url names."),
    ("NOREPLICAS", true, "Redis takes no writes because it has too few replicas (NOREPLICAS); mend the server of redis.url."),
    ("BUSY", true, "Redis is busy with somebody's script (BUSY); see redis.url."),
    ("CLUSTERDOWN", true, CLUSTER),
    ("MOVED", true, CLUSTER),
    ("ASK", true, CLUSTER),
    ("CROSSSLOT", true, CLUSTER),
    ("NOPERM", false, "The user of redis.url lacks a permission that Terrace needs."),
    (
        "OOM",
        false,
        "Redis is full and refuses values: give it more memory, or let it evict (maxmemory-policy allkeys-lru); see redis.url.",
    ),
];

/// The failure of a command.
pub(super) fn from_command(error: &RedisError) -> Failure {
    let told = error.to_string();
    for (code, text) in answers(error) {
        // A script of an older server tells the code in the middle of its own error.
        let known = |word: &str| code == word || text.contains(&format!("-{word} "));
        if let Some((_, is_whole, detail)) = ANSWERS.iter().find(|(word, ..)| known(word)) {
            let error = unavailable(detail, told);
            return if *is_whole { Failure::Lost(error) } else { Failure::Refused(error) };
        }
    }
    match error.kind() {
        // What is no answer at all ends the connection by itself.
        ErrorKind::Io => Failure::Lost(unavailable(CUT, told)),
        _ => Failure::Refused(unavailable("Redis refused a command; see redis.url.", told)),
    }
}

/// The failure of what a connection begins with.
pub(super) fn from_login(error: &RedisError) -> Error {
    let told = error.to_string();
    if told.contains("max number of clients") {
        return unavailable("Redis has no connection left (its maxclients); see redis.url.", told);
    }
    if error.kind() == ErrorKind::AuthenticationFailed {
        return unavailable("Redis refuses the user or the password of redis.url.", told);
    }
    if told.contains("DB index") || told.contains("switch database") {
        return unavailable("Redis has no such database as redis.url names.", told);
    }
    match from_command(error) {
        Failure::Lost(lost) if lost.detail() == CUT => {
            unavailable("What answers at the address in redis.url ended the connection: it is no Redis, or one with TLS.", told)
        }
        Failure::Lost(error) | Failure::Refused(error) => error,
    }
}

/// The failure of a connection's TCP.
pub(super) fn from_connect(error: &io::Error) -> Error {
    let told = error.to_string();
    // Resolvers have no kind of their own.
    let detail = if told.contains("lookup") {
        "The name of Redis's host in redis.url is not known."
    } else {
        "No Redis answers at the address in redis.url."
    };
    unavailable(detail, told)
}

/// The failure of a connection's TLS.
pub(super) fn from_tls(error: &io::Error) -> Error {
    let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    let detail = match refused.and_then(Distrust::of) {
        Some(Distrust::OtherName) => "Redis's certificate is for another host name than the one in redis.url.",
        Some(Distrust::OutOfDate) => "Redis's certificate is out of date; redis.url demands a valid one.",
        Some(Distrust::UnknownIssuer) => {
            "Redis's certificate comes from nobody whom redis.ca_file names (the system's authorities, if it is empty)."
        }
        None => "TLS with Redis failed: see whether the server at redis.url offers it, or else take redis:// there.",
    };
    unavailable(detail, error)
}

/// Nothing came in time; `within` says in which.
pub(super) fn too_slow(within: &str) -> Error {
    unavailable(&format!("Redis did not answer within {within}; see redis.url."), "no answer in time")
}

/// The connection ended while nobody waited for anything.
pub(super) fn ended() -> Error {
    unavailable(CUT, "the connection ended")
}

/// The server is not one that Terrace can use.
pub(super) fn unusable(detail: &str) -> Error {
    unavailable(detail, "the server was refused")
}

pub(super) fn replica() -> Error {
    unusable(REPLICA)
}

pub(super) fn cluster() -> Error {
    unusable(CLUSTER)
}

fn unavailable(detail: &str, told: impl std::fmt::Display) -> Error {
    Error::unavailable(detail, RETRY_AFTER, told)
}

/// The first words and the rest of what the server answered; a pipeline may have several errors.
fn answers(error: &RedisError) -> Vec<(String, String)> {
    if let Some(code) = error.code().filter(|_| error.clone().into_server_errors().is_none()) {
        return vec![(code.to_owned(), error.detail().unwrap_or_default().to_owned())];
    }
    let errors = error.clone().into_server_errors();
    let errors = errors.iter().flat_map(|errors| errors.iter());
    errors.map(|(_, error)| (error.code().to_owned(), error.details().unwrap_or_default().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answer: &str) -> Failure {
        from_command(&redis::parse_redis_value(answer.as_bytes()).unwrap().extract_error().unwrap_err())
    }

    #[test]
    fn what_is_about_the_whole_connection_ends_it_and_the_rest_does_not() {
        for lost in [
            "-READONLY You can't write against a read only replica.\r\n",
            "-LOADING Redis is loading the dataset in memory\r\n",
            "-MISCONF Redis is configured to save RDB snapshots\r\n",
            "-NOAUTH Authentication required.\r\n",
            "-MASTERDOWN Link with MASTER is down\r\n",
            "-MOVED 3999 127.0.0.1:6381\r\n",
            "-ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write\r\n",
        ] {
            assert!(matches!(of(lost), Failure::Lost(error) if error.detail().contains("redis.url")), "{lost}");
        }
        for refused in [
            "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
            "-NOPERM this user has no permissions\r\n",
            "-ERR unknown command\r\n",
        ] {
            assert!(matches!(of(refused), Failure::Refused(error) if error.detail().contains("redis.url")), "{refused}");
        }
    }
}
