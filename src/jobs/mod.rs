//! What the house does by itself, without a request: schedules and their work. It knows no HTTP and no cache.

mod retention;
mod tallying;
mod warming;

pub use retention::Retention;
pub use tallying::Tallying;
pub use warming::Warming;
