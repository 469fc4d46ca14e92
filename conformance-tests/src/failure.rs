//! How a property says that it doesn't hold.

use std::{error::Error, fmt};

/// Why a property failed, or why it could not be looked at.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The provider broke the property, or something in its way did; the text says what was seen.
    Broken(String),
    /// The harness has no way to do what the property needs.
    Lacking(Lacking),
}

/// What a harness can't do, and why; shown as the reason of an ignored property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking(String);

impl Lacking {
    /// A reason, in a few words: `no server to restart`.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    /// A failure with what was seen.
    #[must_use]
    pub fn new(seen: impl fmt::Display) -> Self {
        Self::Broken(seen.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(seen) => f.write_str(seen),
            Self::Lacking(lacking) => write!(f, "not available: {lacking}"),
        }
    }
}

/// Any error that meets a property by `?` is a failure, told with its causes.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            // Some errors tell their causes themselves.
            let told = error.to_string();
            if !text.contains(&told) {
                text.push_str(": ");
                text.push_str(&told);
            }
            cause = error.source();
        }
        Self::Broken(text)
    }
}

impl From<Lacking> for Failure {
    fn from(lacking: Lacking) -> Self {
        Self::Lacking(lacking)
    }
}

/// Ends the property with a failure unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($seen:tt)+) => {
        if !$condition {
            return Err($crate::Failure::new(format_args!($($seen)+)));
        }
    };
}
pub(crate) use ensure;
