//! `terrace key`: API keys. A new one is printed once, to standard output.

use std::time::Duration;

use clap::{Args, Subcommand};
use secrecy::ExposeSecret as _;

use super::table::tabulated;
use super::{Done, Failure, print, say, session};
use crate::auth::{ApiKey, KeyRequest};
use crate::config::Settings;
use crate::model::{Caller, Quota, Role, Scope};

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key, and print it: it is not shown again
    Create(CreateArguments),
    /// List all keys, without their secrets
    List,
    /// End a key
    Revoke {
        /// What `terrace key list` shows as its prefix
        prefix: String,
    },
}

/// Make a key, and print it: it is not shown again.
///
/// A key does what its role may, as far as its scopes go: those limit what it does even where that is public.
#[derive(Debug, Args)]
pub(super) struct CreateArguments {
    /// What it is called, for example after who will use it
    name: String,
    /// viewer (reads what is not public), editor (writes as well) or admin (everything)
    #[arg(long, value_parser = super::role)]
    role: Role,
    /// What it may do of that: COLLECTION:read, COLLECTION:write or COLLECTION:*, with * for all collections and for what is none; may
    /// be repeated; by default everything
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<Scope>,
    /// The user for whom it acts, and who must be active for it to work
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// When it ends by itself, for example 90days; by default never
    #[arg(long, value_name = "DURATION", value_parser = expiry)]
    expires: Option<Duration>,
    /// How often it may ask, for example 100/15m, in place of the quota of its class
    #[arg(long, value_name = "QUOTA", value_parser = quota)]
    quota: Option<Quota>,
}

pub(super) async fn run(settings: Settings, command: &KeyCommand) -> Result<Done, Failure> {
    match command {
        KeyCommand::Create(arguments) => create(settings, arguments).await?,
        KeyCommand::List => list(settings).await?,
        KeyCommand::Revoke { prefix } => {
            let app = session::existing_accounts(settings).await?;
            app.accounts().revoke_key(prefix, &Caller::OPERATOR).await?;
            print(&format!("revoked {prefix}"))?;
        }
    }
    Ok(Done::Whole)
}

async fn create(settings: Settings, arguments: &CreateArguments) -> Result<(), Failure> {
    let request = KeyRequest {
        name: arguments.name.clone(),
        role: arguments.role,
        scopes: (!arguments.scopes.is_empty()).then(|| arguments.scopes.clone()),
        user: arguments.user.clone(),
        expires_in: arguments.expires,
        quota: arguments.quota,
    };
    let app = session::accounts(settings).await?;
    let created = app.accounts().create_key(request, &Caller::OPERATOR).await?;
    // Alone on standard output, so that a script can take it from there.
    print(created.text.expose_secret())?;
    say(&format!("It is not shown again. Send it as Authorization: Bearer …; end it with terrace key revoke {}", created.prefix));
    Ok(())
}

async fn list(settings: Settings) -> Result<(), Failure> {
    let app = session::existing_accounts(settings).await?;
    let row = |key: ApiKey| {
        let joined = |scopes: &Vec<Scope>| scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" ");
        let none = || "-".to_owned();
        let state = match (&key.revoked_at, &key.holder) {
            (Some(since), _) => format!("revoked {since}"),
            (None, Some(holder)) if holder.disabled_at.is_some() => "its user is disabled".to_owned(),
            (None, _) => key.expires_at.as_ref().map_or_else(|| "active".to_owned(), |until| format!("until {until}")),
        };
        [
            key.prefix,
            key.name,
            key.role.to_string(),
            key.scopes.as_ref().map_or_else(none, joined),
            key.holder.map_or_else(none, |holder| holder.email),
            key.quota.map_or_else(none, |quota| quota.to_string()),
            state,
            key.last_used_at.unwrap_or_else(none),
        ]
    };
    let rows = app.accounts().keys().await?.into_iter().map(row);
    print(&tabulated(["PREFIX", "NAME", "ROLE", "SCOPES", "USER", "QUOTA", "STATE", "LAST USED"], rows))
}

fn scope(text: &str) -> Result<Scope, String> {
    text.parse().map_err(|error: crate::error::Error| error.detail().to_owned())
}

fn quota(text: &str) -> Result<Quota, String> {
    text.parse().map_err(|error: crate::error::Error| error.detail().to_owned())
}

fn expiry(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero());
    parsed.ok_or_else(|| format!("{text:?} is not a duration; write for example 12h or 90days"))
}
