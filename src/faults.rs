//! Faults on demand, for the tests that prove what happens after them. They exist in debug builds only, and there only
//! where the environment names a directory: `FAULTS_DIR`. In it, a file with the name of a point holds what happens to
//! whoever comes by: `kill` ends the process as SIGKILL does, `pause 500` keeps it for 500 ms. An empty file with the
//! name of a part of the protocol switches that part off.

#[cfg(debug_assertions)]
pub use armed::{is_switched_off, point};

#[cfg(debug_assertions)]
mod armed {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::time::Duration;

    fn directory() -> Option<&'static PathBuf> {
        static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
        DIRECTORY.get_or_init(|| std::env::var_os("FAULTS_DIR").map(PathBuf::from)).as_ref()
    }

    /// A place where a test may hold or end the process.
    pub async fn point(name: &str) {
        let Some(directory) = directory() else { return };
        let Ok(order) = std::fs::read_to_string(directory.join(name)) else { return };
        match order.trim().split_once(' ') {
            None if order.trim() == "kill" => {
                // Nothing of the process may run on, not even destructors.
                let _ = std::process::Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status();
                std::future::pending().await
            }
            Some(("pause", ms)) => tokio::time::sleep(Duration::from_millis(ms.parse().unwrap_or_default())).await,
            None | Some(_) => {}
        }
    }

    /// Whether a test has switched a part of the protocol off.
    pub fn is_switched_off(part: &str) -> bool {
        directory().is_some_and(|directory| directory.join(part).exists())
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub async fn point(_: &str) {}

/// Never, in a release build.
#[cfg(not(debug_assertions))]
pub fn is_switched_off(_: &str) -> bool {
    false
}
