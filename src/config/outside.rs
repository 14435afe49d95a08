//! The settings of who reaches the server from where: operators, and pages of other origins.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::AccessRule;

/// What is for operators.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OperationsSettings {
    /// A second address with a port, for `/health`, `/metrics`, `/admin`, `/docs` and `/openapi.json`. All of them but `/health` then
    /// answer nowhere else. Empty for one address for all.
    pub listen: String,
    /// Who may read `/metrics`.
    pub metrics: Audience,
    /// Who may read `/docs` and `/openapi.json`.
    pub docs: Audience,
}

impl Default for OperationsSettings {
    fn default() -> Self {
        Self { listen: String::new(), metrics: Audience::Public, docs: Audience::Public }
    }
}

/// The least that somebody must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Anybody.
    Public,
    /// A user who may read.
    Viewer,
    /// A user who may write.
    Editor,
    /// An administrator.
    Admin,
}

impl Audience {
    /// The same as a rule.
    pub fn rule(self) -> AccessRule {
        match self {
            Self::Public => AccessRule::Public,
            Self::Viewer => AccessRule::Viewer,
            Self::Editor => AccessRule::Editor,
            Self::Admin => AccessRule::Admin,
        }
    }
}

/// Pages of other origins.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorsSettings {
    /// The origins whose pages may send requests and read answers, such as `https://app.example.com`; `*` for all; none for none.
    pub origins: Vec<String>,
    /// How long browsers may keep what they were told of that. Too low makes them ask before each request, too high makes them
    /// remember what has been changed.
    #[serde(with = "super::settings::humantime_text")]
    pub max_age: Duration,
}

impl Default for CorsSettings {
    fn default() -> Self {
        Self { origins: Vec::new(), max_age: Duration::from_secs(3600) }
    }
}
