//! How platforms and the database fare, as people and dashboards see it.

use std::fmt;

/// Why a platform is in error. A closed set: also a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// No connection: refused, no route, no such name.
    Unreachable,
    /// The server's certificate is not trusted.
    Tls,
    /// Account or password refused.
    Auth,
    /// The account may not do what collection needs.
    Permission,
    /// No answer in time.
    Timeout,
    /// Another server answers than the one whose objects are stored.
    Identity,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 6] = [
        Self::Unreachable,
        Self::Tls,
        Self::Auth,
        Self::Permission,
        Self::Timeout,
        Self::Identity,
    ];

    /// The word in the database and in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Permission => "permission",
            Self::Timeout => "timeout",
            Self::Identity => "identity",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlatformState {
    /// Nobody collects it.
    Disconnected,
    /// It answers.
    Connected,
    /// It does not.
    Error(ErrorClass),
    /// A person paused it.
    Maintenance,
}

impl PlatformState {
    /// The word in the database and in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connected => "connected",
            Self::Error(_) => "error",
            Self::Maintenance => "maintenance",
        }
    }

    /// Every state, each class of error being one.
    pub fn all() -> impl Iterator<Item = Self> {
        let errors = ErrorClass::ALL.into_iter().map(Self::Error);
        [Self::Disconnected, Self::Connected, Self::Maintenance]
            .into_iter()
            .chain(errors)
    }

    /// One word for it: an error is its class.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error(class) => class.as_str(),
            other => other.as_str(),
        }
    }

    /// The class of an error.
    #[must_use]
    pub const fn error_class(self) -> Option<ErrorClass> {
        match self {
            Self::Error(class) => Some(class),
            Self::Disconnected | Self::Connected | Self::Maintenance => None,
        }
    }
}

/// The state of a platform, why, and what the server said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformStatus {
    /// The state.
    pub state: PlatformState,
    /// One line for the operator; what is wrong and what to do.
    pub reason: Option<String>,
    /// `about.version`; what is not known leaves the stored one.
    pub version: Option<String>,
    /// `about.build`.
    pub build: Option<String>,
    /// `about.apiType`.
    pub api_type: Option<String>,
}

impl PlatformStatus {
    /// A state without more to say.
    #[must_use]
    pub const fn of(state: PlatformState) -> Self {
        Self {
            state,
            reason: None,
            version: None,
            build: None,
            api_type: None,
        }
    }
}
/// Whether the database can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseHealth {
    /// It answers and its schema fits.
    Up,
    /// It does not, and why.
    Down(String),
}
