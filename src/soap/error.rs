//! What can go wrong with a call, and what follows from it.
//!
//! Owns: [`Error`], and the one table that says what each fault and each HTTP status calls for
//! ([`Error::disposition`]). Never does: retrying.

use std::fmt;
use std::time::Duration;

use crate::config::PlatformKind;
use crate::error::Disposition;
use crate::model::status::ErrorClass;
use crate::soap::fault::Fault;
use crate::soap::fault::FaultKind;
use crate::soap::tls;
use crate::soap::transport;
use crate::soap::xml;
use crate::units::Stamp;

/// The id of one request: it stands in vCenter's own logs beside what the server did (`operationID` header,
/// `opId` in vpxd.log).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationId(String);

impl OperationId {
    /// A new one, `virt-collector-` and eight random hexadecimal digits.
    pub(crate) fn random() -> Self {
        let (random, ..) = uuid::Uuid::new_v4().as_fields();
        Self(format!("virt-collector-{random:08x}"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a call has no result. Each message is one sentence that names the attempt; where a person has to act, it
/// says how.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request did not reach the server or the answer did not reach us.
    #[error("{}", unsent_or_failed(method, operation, source))]
    Transport {
        /// The method called.
        method: &'static str,
        /// The request's id.
        operation: OperationId,
        /// Why.
        #[source]
        source: Box<transport::Error>,
    },
    /// The server refused the call.
    #[error("{method} was refused ({operation}): {fault}")]
    Fault {
        /// The method called.
        method: &'static str,
        /// The request's id.
        operation: OperationId,
        /// The refusal.
        fault: Box<Fault>,
    },
    /// The answer is not what the protocol says, or stops in the middle.
    #[error("the answer to {method} cannot be read ({operation})")]
    Malformed {
        /// The method called.
        method: &'static str,
        /// The request's id.
        operation: OperationId,
        /// Why.
        #[source]
        source: Box<xml::Error>,
    },
    /// An argument cannot be written as XML.
    #[error("{method} cannot be sent")]
    Argument {
        /// The method.
        method: &'static str,
        /// Why.
        #[source]
        source: xml::IllegalText,
    },
    /// The account was refused. While `next_try` lies ahead, no request is sent: repeated failures lock accounts.
    #[error("{}; next try not before {next_try}", refusal(user, &fault.kind))]
    LoginRefused {
        /// The account.
        user: String,
        /// The refusal.
        fault: Box<Fault>,
        /// Collector time of the next attempt.
        next_try: Stamp,
        /// Time until then.
        wait: Duration,
    },
    /// The password cannot be had.
    #[error("no password for user {user:?}")]
    Password {
        /// The account.
        user: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A login was accepted without a session cookie.
    #[error(
        "the server accepted the login of {user:?} but gave no session cookie; is a proxy in between that removes cookies?"
    )]
    NoCookie {
        /// The account.
        user: String,
    },
    /// The other kind of server than configured.
    #[error("this is {found} ({full_name}), not {configured}; set type = \"{}\" or correct the host", found.as_str())]
    WrongKind {
        /// What was configured.
        configured: PlatformKind,
        /// What answers.
        found: PlatformKind,
        /// Product and version.
        full_name: String,
    },
    /// Answers like vSphere but is neither vCenter nor ESXi.
    #[error("the server is neither a vCenter nor an ESXi host: its apiType is {api_type:?}")]
    UnknownKind {
        /// What it says it is.
        api_type: String,
    },
    /// Something that this server does not have, such as a manager that only a vCenter has.
    #[error("the server has no {0}")]
    Absent(&'static str),
    /// A result in more pages than any inventory fills.
    #[error("the answer to {method} does not end after {pages} pages")]
    Endless {
        /// The method.
        method: &'static str,
        /// Pages read.
        pages: usize,
    },
    /// The platform has not answered several times in a row. Nothing was sent, and nothing will be before `wait`
    /// has passed.
    #[error("the platform does not answer, next try in {} s: {why}", wait.as_secs_f32().ceil())]
    Down {
        /// What kind of trouble it is.
        class: ErrorClass,
        /// The last failure.
        why: String,
        /// Time until the next try.
        wait: Duration,
    },
    /// The trust settings cannot be used.
    #[error("the trust settings cannot be used")]
    Trust(#[from] tls::Error),
    /// The pool was closed: the daemon stops or the platform was taken out.
    #[error("the platform's sessions are closed")]
    Closed,
}

/// Without a connection nothing was called: naming the method would only mislead.
fn unsent_or_failed(method: &str, operation: &OperationId, source: &transport::Error) -> String {
    if source.is_before_request() {
        "no connection".to_owned()
    } else {
        format!("{method} failed ({operation})")
    }
}

fn refusal(user: &str, kind: &FaultKind) -> String {
    match kind {
        FaultKind::InvalidLogin => {
            format!(
                "the server refuses user {user:?} with this password (InvalidLogin); correct the user or its password"
            )
        }
        FaultKind::PasswordExpired => {
            format!("the password of user {user:?} has expired; set a new one there, then give it here")
        }
        FaultKind::NoPermission => {
            format!(
                "user {user:?} may not log in (NoPermission); give it the Read-only role on the root folder, propagating"
            )
        }
        other => format!("the server refuses the login of user {user:?} ({other})"),
    }
}

/// Who is hurt when a call fails: decides between splitting a batch and giving up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// A batch of entities, of which one may be at fault, or which may be too large.
    Batch,
    /// One thing.
    Single,
}

fn scope(method: &str) -> Scope {
    if method == "QueryPerf" {
        Scope::Batch
    } else {
        Scope::Single
    }
}

/// What each fault calls for: the whole policy in one table.
fn of_fault(kind: &FaultKind, scope: Scope) -> Disposition {
    use FaultKind as F;
    match (kind, scope) {
        (F::NotAuthenticated, _) => Disposition::Relogin,
        // One bad entity fails the whole batch: deleted, invisible to this account, of another kind, or on a
        // host that does not answer.
        (
            F::ManagedObjectNotFound
            | F::NoPermission
            | F::InvalidArgument
            | F::InvalidState
            | F::HostNotConnected
            | F::HostNotReachable
            | F::HostCommunication
            | F::NotSupported
            | F::MethodDisabled,
            Scope::Batch,
        ) => Disposition::Split,
        (F::RestrictedByAdministrator | F::SystemError | F::Timedout | F::Other(_), Scope::Batch) => {
            Disposition::Shrink
        }
        // Views and collectors are gone with their session: a fresh one makes fresh ones.
        (
            F::ManagedObjectNotFound
            | F::InvalidCollectorVersion
            | F::RequestCanceled
            | F::TaskInProgress
            | F::ConcurrentAccess
            | F::HostNotConnected
            | F::HostNotReachable
            | F::HostCommunication
            | F::SystemError
            | F::Timedout
            | F::Other(_),
            Scope::Single,
        )
        | (
            F::InvalidCollectorVersion | F::RequestCanceled | F::TaskInProgress | F::ConcurrentAccess,
            Scope::Batch,
        ) => Disposition::Retry,
        (
            F::InvalidLogin
            | F::PasswordExpired
            | F::InvalidLocale
            | F::InvalidProperty
            | F::InvalidRequest
            | F::MethodNotFound
            | F::InvalidType
            | F::RestrictedVersion
            | F::LicenseRestricted
            | F::InvalidPowerState
            | F::ToolsUnavailable
            | F::NotImplemented
            | F::Untyped,
            _,
        )
        | (
            F::NoPermission
            | F::InvalidArgument
            | F::InvalidState
            | F::RestrictedByAdministrator
            | F::NotSupported
            | F::MethodDisabled,
            Scope::Single,
        ) => Disposition::Permanent,
    }
}

/// What each failure of the transport calls for.
fn of_transport(error: &transport::Error, scope: Scope) -> Disposition {
    use transport::Error as T;
    match (error, scope) {
        (T::Untrusted { .. }, _) => Disposition::Permanent,
        // The server could not finish a batch of this size: a smaller one may pass.
        (T::Deadline { .. } | T::TooLarge { .. } | T::Status { status: 500, .. }, Scope::Batch) => {
            Disposition::Shrink
        }
        _ => Disposition::Retry,
    }
}

impl Error {
    /// What the caller should do.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Transport { method, source, .. } => of_transport(source, scope(method)),
            Self::Fault { method, fault, .. } => of_fault(&fault.kind, scope(method)),
            Self::LoginRefused { wait, .. } | Self::Down { wait, .. } => Disposition::RetryAfter(*wait),
            // One entity may have what breaks the whole document: the others are not to wait for it.
            Self::Malformed { method, .. } if scope(method) == Scope::Batch => Disposition::Shrink,
            Self::Malformed { .. } | Self::Password { .. } | Self::NoCookie { .. } | Self::Endless { .. } => {
                Disposition::Retry
            }
            Self::Argument { .. }
            | Self::WrongKind { .. }
            | Self::UnknownKind { .. }
            | Self::Absent(_)
            | Self::Trust(_)
            | Self::Closed => Disposition::Permanent,
        }
    }

    /// The class of this failure, for the platform's status.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Transport { source, .. } => source.class(),
            Self::Fault { fault, .. } => match fault.kind {
                FaultKind::NotAuthenticated => ErrorClass::Auth,
                FaultKind::NoPermission => ErrorClass::Permission,
                FaultKind::Timedout => ErrorClass::Timeout,
                _ => ErrorClass::Unreachable,
            },
            Self::LoginRefused { fault, .. } if fault.kind == FaultKind::NoPermission => {
                ErrorClass::Permission
            }
            Self::LoginRefused { .. } | Self::Password { .. } | Self::NoCookie { .. } => ErrorClass::Auth,
            Self::WrongKind { .. } | Self::UnknownKind { .. } => ErrorClass::Identity,
            Self::Down { class, .. } => *class,
            Self::Trust(_) => ErrorClass::Tls,
            Self::Malformed { .. }
            | Self::Argument { .. }
            | Self::Absent(_)
            | Self::Endless { .. }
            | Self::Closed => ErrorClass::Unreachable,
        }
    }

    /// The fault, where the server sent one.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Fault { fault, .. } | Self::LoginRefused { fault, .. } => Some(fault),
            _ => None,
        }
    }

    /// True where the answer was larger than its cap.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Transport { source, .. } if matches!(**source, transport::Error::TooLarge { .. }))
    }

    /// A word from a closed set for metrics: the fault's type, or what kind of failure it was.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Transport { source, .. } => source.label(),
            Self::Fault { fault, .. } | Self::LoginRefused { fault, .. } => fault.kind.label(),
            Self::Malformed { .. } => "malformed",
            Self::Argument { .. } => "argument",
            Self::Password { .. } => "password",
            Self::NoCookie { .. } => "no_cookie",
            Self::WrongKind { .. } | Self::UnknownKind { .. } => "wrong_kind",
            Self::Absent(_) => "absent",
            Self::Endless { .. } => "endless",
            Self::Down { .. } => "circuit_open",
            Self::Trust(_) => "trust",
            Self::Closed => "closed",
        }
    }

    /// True where the request may have reached the server and its answer did not reach us: whether it was done is
    /// for the server to say.
    #[must_use]
    pub fn is_answer_lost(&self) -> bool {
        match self {
            Self::Transport { source, .. } => !source.is_before_request(),
            Self::Malformed { .. } | Self::Endless { .. } => true,
            Self::Fault { .. }
            | Self::Argument { .. }
            | Self::LoginRefused { .. }
            | Self::Password { .. }
            | Self::NoCookie { .. }
            | Self::WrongKind { .. }
            | Self::UnknownKind { .. }
            | Self::Absent(_)
            | Self::Down { .. }
            | Self::Trust(_)
            | Self::Closed => false,
        }
    }
}

/// Errors of operations in a session.
pub trait SessionLost {
    /// True when the server no longer knows the session, so that the operation is worth one more.
    fn session_lost(&self) -> bool;

    /// The label of a failure that showed only when the answer was read, and that the call could not count.
    fn found_in_answer(&self) -> Option<&'static str>;
}

impl SessionLost for Error {
    fn session_lost(&self) -> bool {
        self.disposition() == Disposition::Relogin
    }

    fn found_in_answer(&self) -> Option<&'static str> {
        matches!(self, Self::Malformed { .. } | Self::Endless { .. }).then(|| self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(method: &'static str, name: &str) -> Error {
        let xml = format!("<f><fault xsi:type=\"{name}\"/></f>");
        let mut xml = xml::Reader::new(&xml);
        xml.root().unwrap();
        let fault = Box::new(Fault::read_localized(&mut xml).unwrap());
        Error::Fault {
            method,
            operation: OperationId::random(),
            fault,
        }
    }

    #[test]
    fn every_fault_has_one_consequence() {
        use Disposition as D;
        for (name, batch, single) in [
            ("NotAuthenticated", D::Relogin, D::Relogin),
            ("NoPermission", D::Split, D::Permanent),
            ("InvalidLogin", D::Permanent, D::Permanent),
            ("ManagedObjectNotFound", D::Split, D::Retry),
            ("InvalidArgument", D::Split, D::Permanent),
            ("InvalidProperty", D::Permanent, D::Permanent),
            ("InvalidRequest", D::Permanent, D::Permanent),
            ("InvalidCollectorVersion", D::Retry, D::Retry),
            ("RestrictedByAdministrator", D::Shrink, D::Permanent),
            ("RestrictedVersion", D::Permanent, D::Permanent),
            ("TaskInProgress", D::Retry, D::Retry),
            ("HostNotConnected", D::Split, D::Retry),
            ("HostNotReachable", D::Split, D::Retry),
            ("HostCommunication", D::Split, D::Retry),
            ("NotSupported", D::Split, D::Permanent),
            ("SystemError", D::Shrink, D::Retry),
            ("Timedout", D::Shrink, D::Retry),
            ("InventedByVersion99", D::Shrink, D::Retry),
        ] {
            assert_eq!(fault("QueryPerf", name).disposition(), batch, "{name} in a batch");
            assert_eq!(fault("CurrentTime", name).disposition(), single, "{name} alone");
        }
    }

    #[test]
    fn every_failure_below_soap_has_one_consequence() {
        let transport = |method, source| {
            let error = Error::Transport {
                method,
                operation: OperationId::random(),
                source: Box::new(source),
            };
            (error.disposition(), error.class())
        };
        let address = || "vc:443".to_owned();
        let late = || transport::Error::Deadline {
            address: address(),
            after: Duration::from_secs(60),
        };
        assert_eq!(
            transport("QueryPerf", late()),
            (Disposition::Shrink, ErrorClass::Timeout)
        );
        assert_eq!(
            transport("CurrentTime", late()),
            (Disposition::Retry, ErrorClass::Timeout)
        );
        let status = |status| transport::Error::Status {
            address: address(),
            status,
        };
        assert_eq!(transport("QueryPerf", status(500)).0, Disposition::Shrink);
        assert_eq!(transport("QueryPerf", status(503)).0, Disposition::Retry);
        assert_eq!(transport("CurrentTime", status(500)).0, Disposition::Retry);
        let large = transport::Error::TooLarge {
            address: address(),
            limit: 1,
        };
        assert_eq!(transport("QueryPerf", large).0, Disposition::Shrink);
        let refused = transport::Error::Refused { address: address() };
        assert_eq!(
            transport("QueryPerf", refused),
            (Disposition::Retry, ErrorClass::Unreachable)
        );
    }
}
