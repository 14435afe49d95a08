//! Settings: what they are, their defaults, and where they come from. This room knows nothing of what the settings steer.
//!
//! Sources, later ones win: built-in defaults, `config/terrace.toml`, the file named by `--config`, and environment
//! variables `TERRACE_<SECTION>__<KEY>`. Every mistake is found, not just the first one.

mod allowed;
mod limits;
mod load;
mod mistake;
mod outside;
mod settings;

pub use limits::LimitsSettings;
pub use mistake::{Mistake, Source};
pub use outside::{Audience, CorsSettings, OperationsSettings};
pub use settings::{
    AuthSettings, CacheSettings, CollectionsSettings, DatabaseSettings, HttpSettings, LogFormat, LogSettings, RedisSettings,
    Settings,
};
