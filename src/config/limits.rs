//! The settings `[limits]`. Each says what goes wrong when it is too low and too high.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{LimitClass, Quota};

/// How often clients may ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSettings {
    /// Requests that one client address may send at once; 0 is no limit. Too low refuses a page that loads many
    /// records, too high lets one client keep the server from others.
    pub burst: u32,
    /// Requests that one client address may send per second on average. Too low slows honest clients, too high is no
    /// limit.
    pub per_second: u32,
    /// How often each caller, else each client address, may ask for what has no other class, on all instances together;
    /// empty for no limit. Too low refuses honest clients, too high is no limit.
    #[serde(with = "quota_text")]
    pub api: Option<Quota>,
    /// How often each client address may try to log in. Too low locks out an office behind one address, too high lets
    /// passwords be guessed.
    #[serde(with = "quota_text")]
    pub auth: Option<Quota>,
    /// The same as `api` for collections of the class `export`.
    #[serde(with = "quota_text")]
    pub export: Option<Quota>,
    /// The same as `api` for collections of the class `webhook`.
    #[serde(with = "quota_text")]
    pub webhook: Option<Quota>,
}

impl LimitsSettings {
    /// The quota of a class.
    pub fn quota(&self, class: LimitClass) -> Option<Quota> {
        match class {
            LimitClass::Api => self.api,
            LimitClass::Auth => self.auth,
            LimitClass::Export => self.export,
            LimitClass::Webhook => self.webhook,
        }
    }
}

impl Default for LimitsSettings {
    fn default() -> Self {
        let auth = Quota { requests: NonZeroU32::MIN.saturating_add(4), period: Duration::from_secs(60 * 60) };
        Self { burst: 0, per_second: 100, api: None, auth: Some(auth), export: None, webhook: None }
    }
}

/// Quotas as `100/15m`, and none as the empty text.
mod quota_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::Quota;

    pub fn serialize<S: Serializer>(quota: &Option<Quota>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&quota.map_or_else(String::new, |quota| quota.to_string()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Quota>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|error: crate::error::Error| serde::de::Error::custom(error.detail()))
    }
}
