//! Paths of collections and views: which are allowed, and which get into each other's way.

/// First segments that are the server's own.
const RESERVED: [&str; 5] = ["health", "metrics", "docs", "openapi.json", "admin"];

/// Below these are paths of the server's own.
const RESERVED_BELOW: &str = "/api/v1/auth";

/// Why `path` cannot be the path of a resource.
pub(super) fn check(path: &str) -> Result<(), String> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(format!("{path:?} does not begin with /"));
    };
    if path.ends_with('/') {
        return Err(format!("{path:?} ends with /"));
    }
    for segment in rest.split('/') {
        if segment.is_empty() {
            return Err(format!("{path:?} has an empty segment"));
        }
        if segment.starts_with('_') {
            return Err(format!("{path:?} has a segment that begins with _; those are reserved"));
        }
        let is_plain = segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
        if !is_plain || segment == "." || segment == ".." {
            return Err(format!("{segment:?} cannot be a segment; use A to Z, a to z, 0 to 9, - _ . and ~"));
        }
    }
    if path == RESERVED_BELOW || path.strip_prefix(RESERVED_BELOW).is_some_and(|below| below.starts_with('/')) {
        return Err(format!("{path:?} belongs to the server, as does everything below {RESERVED_BELOW}"));
    }
    match rest.split('/').next() {
        Some(first) if RESERVED.contains(&first) => {
            let reserved = RESERVED.map(|segment| format!("/{segment}")).join(", ");
            Err(format!("{path:?} belongs to the server, as do {reserved}; begin for example with /api"))
        }
        _ => Ok(()),
    }
}

/// Whether a request for `path` would also be one for the resource at `other`: its list, or one of its records.
pub(super) fn collides(path: &str, other: &str) -> bool {
    path == other
        || path.strip_prefix(other).and_then(|rest| rest.strip_prefix('/')).is_some_and(|segment| !segment.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_resources_are_plain_and_not_the_servers() {
        for good in ["/api/v1/metrics", "/metrics2", "/api/health", "/a.b/c-d~e", "/docs2", "/api/v1/authors", "/api/auth"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/",
            "api",
            "/api/",
            "/api//x",
            "/api/_batch",
            "/api/{id}",
            "/api/a b",
            "/api/a%20b",
            "/api/..",
            "/api/é",
            "/health",
            "/health/x",
            "/metrics",
            "/docs",
            "/openapi.json",
            "/admin/users",
            "/api/v1/auth",
            "/api/v1/auth/me",
            "/api/v1/auth/x/y",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_collides_with_the_list_and_the_records_of_another() {
        assert!(collides("/api/a", "/api/a"));
        assert!(collides("/api/a/b", "/api/a"));
        assert!(!collides("/api/a", "/api/a/b"));
        assert!(!collides("/api/ab", "/api/a"));
        assert!(!collides("/api/a/b/c", "/api/a"));
    }
}
