//! Who is asking. Until accounts exist (issue 5) everybody is anonymous, and only public collections answer.

/// The caller of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody Terrace knows.
    Anonymous,
    /// The operator at the command line, who owns the database file.
    Operator,
}

impl Principal {
    /// The name under which the change log records the caller.
    pub fn actor(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Operator => "operator",
        }
    }
}
