//! `terrace user`: who may log in. Passwords come from the terminal or standard input, never from arguments, which others can see.

use std::io::{self, IsTerminal as _};

use clap::Subcommand;
use secrecy::{ExposeSecret as _, SecretString};

use super::table::tabulated;
use super::{Done, Failure, print, session};
use crate::auth::UserState;
use crate::config::Settings;
use crate::model::{Caller, Role};

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a user; the password is asked for, or the first line of standard input
    Add {
        /// The e-mail address
        email: String,
        /// viewer (reads what is not public), editor (writes as well) or admin (everything)
        #[arg(long, value_parser = super::role)]
        role: Role,
    },
    /// List all users
    List,
    /// Let a user do nothing from now on, nor the user's API keys; sessions end
    Disable {
        /// The e-mail address
        email: String,
    },
    /// Let a disabled user, and the user's API keys, act again
    Enable {
        /// The e-mail address
        email: String,
    },
    /// Give a user another password, asked for, or the first line of standard input; sessions end
    Passwd {
        /// The e-mail address
        email: String,
    },
}

pub(super) async fn run(settings: Settings, command: &UserCommand) -> Result<Done, Failure> {
    let operator = &Caller::OPERATOR;
    match command {
        UserCommand::Add { email, role } => {
            let password = password()?;
            session::accounts(settings).await?.accounts().add_user(email, password, *role, operator).await?;
            print(&format!("added {email}, {role}"))?;
        }
        UserCommand::List => list(settings).await?,
        UserCommand::Disable { email } => {
            let app = session::existing_accounts(settings).await?;
            app.accounts().set_user_state(email, UserState::Disabled, operator).await?;
            print(&format!("disabled {email}"))?;
        }
        UserCommand::Enable { email } => {
            let app = session::existing_accounts(settings).await?;
            app.accounts().set_user_state(email, UserState::Active, operator).await?;
            print(&format!("enabled {email}"))?;
        }
        UserCommand::Passwd { email } => {
            let app = session::existing_accounts(settings).await?;
            app.accounts().set_password(email, password()?, operator).await?;
            print(&format!("changed the password of {email}"))?;
        }
    }
    Ok(Done::Whole)
}

async fn list(settings: Settings) -> Result<(), Failure> {
    let app = session::existing_accounts(settings).await?;
    let rows = app.accounts().users().await?.into_iter().map(|user| {
        let state = user.disabled_at.map_or_else(|| "active".to_owned(), |since| format!("disabled {since}"));
        [user.email, user.role.to_string(), state, user.created_at, user.id]
    });
    print(&tabulated(["EMAIL", "ROLE", "STATE", "CREATED", "ID"], rows))
}

/// Asked for twice at a terminal: nobody sees what was typed.
fn password() -> Result<SecretString, Failure> {
    let failed = |error: io::Error| Failure::Message(format!("the password cannot be read: {error}"));
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map_err(failed)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned().into());
    }
    let asked = |prompt| rpassword::prompt_password(prompt).map(SecretString::from).map_err(failed);
    let (one, again) = (asked("Password: ")?, asked("Again: ")?);
    if one.expose_secret() == again.expose_secret() {
        return Ok(one);
    }
    Err(Failure::Message("the two passwords are not the same".to_owned()))
}
