//! Faults: what a server says when it refuses, as values.
//!
//! Owns: [`FaultKind`], [`Fault`] and reading both forms in which a fault travels (SOAP fault and
//! LocalizedMethodFault). Never does: matching on `faultstring`, which is in the server's language.

use std::fmt;

use crate::model::ids::MoRef;
use crate::soap::xml;
use crate::soap::xml::Reader;

/// Faults that call for a reaction of their own. The set is closed so that it can be a label of metrics; what
/// a newer server invents is [`FaultKind::Other`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The session is gone. A subtype of NoPermission on the wire, another thing to us.
    NotAuthenticated,
    /// The account lacks a privilege.
    NoPermission,
    /// Wrong user or password.
    InvalidLogin,
    /// The password is right but expired.
    PasswordExpired,
    /// The locale of a login is not installed.
    InvalidLocale,
    /// The object does not exist, or no longer.
    ManagedObjectNotFound,
    /// An argument does not fit.
    InvalidArgument,
    /// A property path or a page token is wrong.
    InvalidProperty,
    /// The request does not fit the schema.
    InvalidRequest,
    /// The method does not exist in this version.
    MethodNotFound,
    /// A type does not exist in this version.
    InvalidType,
    /// The version of a change tracker is stale.
    InvalidCollectorVersion,
    /// Someone cancelled the request.
    RequestCanceled,
    /// A query over more series than the administrator allows.
    RestrictedByAdministrator,
    /// The licence does not include the call.
    RestrictedVersion,
    /// The licence does not include the call.
    LicenseRestricted,
    /// Another task holds the object.
    TaskInProgress,
    /// The object is in the wrong power state.
    InvalidPowerState,
    /// The object is in the wrong state.
    InvalidState,
    /// VMware Tools do not run in the guest.
    ToolsUnavailable,
    /// vCenter has lost the host.
    HostNotConnected,
    /// vCenter cannot reach the host.
    HostNotReachable,
    /// Some trouble between vCenter and the host.
    HostCommunication,
    /// The method is disabled for this object.
    MethodDisabled,
    /// This server does not do that.
    NotSupported,
    /// This server does not do that.
    NotImplemented,
    /// The server failed inside.
    SystemError,
    /// The server gave up waiting.
    Timedout,
    /// Someone else changed the object meanwhile.
    ConcurrentAccess,
    /// A fault with no type at all: the server could not even read the request.
    Untyped,
    /// Any other type, by its name.
    Other(String),
}

impl FaultKind {
    /// From the name of the type. vcsim lets Go aliases through for two of them; "Fault" is not stripped
    /// otherwise, since `VmConfigFault` and others end with it by right.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "NotAuthenticated" => Self::NotAuthenticated,
            "NoPermission" => Self::NoPermission,
            "InvalidLogin" => Self::InvalidLogin,
            "PasswordExpired" => Self::PasswordExpired,
            "InvalidLocale" => Self::InvalidLocale,
            "ManagedObjectNotFound" => Self::ManagedObjectNotFound,
            "InvalidArgument" => Self::InvalidArgument,
            "InvalidProperty" | "InvalidPropertyFault" => Self::InvalidProperty,
            "InvalidRequest" => Self::InvalidRequest,
            "MethodNotFound" => Self::MethodNotFound,
            "InvalidType" => Self::InvalidType,
            "InvalidCollectorVersion" => Self::InvalidCollectorVersion,
            "RequestCanceled" => Self::RequestCanceled,
            "RestrictedByAdministrator" => Self::RestrictedByAdministrator,
            "RestrictedVersion" => Self::RestrictedVersion,
            "LicenseRestricted" => Self::LicenseRestricted,
            "TaskInProgress" => Self::TaskInProgress,
            "InvalidPowerState" => Self::InvalidPowerState,
            "InvalidState" | "InvalidHostState" => Self::InvalidState,
            "ToolsUnavailable" => Self::ToolsUnavailable,
            "HostNotConnected" => Self::HostNotConnected,
            "HostNotReachable" => Self::HostNotReachable,
            "HostCommunication" => Self::HostCommunication,
            "MethodDisabled" => Self::MethodDisabled,
            "NotSupported" => Self::NotSupported,
            "NotImplemented" => Self::NotImplemented,
            "SystemError" | "SystemErrorFault" => Self::SystemError,
            "Timedout" => Self::Timedout,
            "ConcurrentAccess" => Self::ConcurrentAccess,
            other => Self::Other(xml::cut(other)),
        }
    }

    /// A word from a closed set, for labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotAuthenticated => "NotAuthenticated",
            Self::NoPermission => "NoPermission",
            Self::InvalidLogin => "InvalidLogin",
            Self::PasswordExpired => "PasswordExpired",
            Self::InvalidLocale => "InvalidLocale",
            Self::ManagedObjectNotFound => "ManagedObjectNotFound",
            Self::InvalidArgument => "InvalidArgument",
            Self::InvalidProperty => "InvalidProperty",
            Self::InvalidRequest => "InvalidRequest",
            Self::MethodNotFound => "MethodNotFound",
            Self::InvalidType => "InvalidType",
            Self::InvalidCollectorVersion => "InvalidCollectorVersion",
            Self::RequestCanceled => "RequestCanceled",
            Self::RestrictedByAdministrator => "RestrictedByAdministrator",
            Self::RestrictedVersion => "RestrictedVersion",
            Self::LicenseRestricted => "LicenseRestricted",
            Self::TaskInProgress => "TaskInProgress",
            Self::InvalidPowerState => "InvalidPowerState",
            Self::InvalidState => "InvalidState",
            Self::ToolsUnavailable => "ToolsUnavailable",
            Self::HostNotConnected => "HostNotConnected",
            Self::HostNotReachable => "HostNotReachable",
            Self::HostCommunication => "HostCommunication",
            Self::MethodDisabled => "MethodDisabled",
            Self::NotSupported => "NotSupported",
            Self::NotImplemented => "NotImplemented",
            Self::SystemError => "SystemError",
            Self::Timedout => "Timedout",
            Self::ConcurrentAccess => "ConcurrentAccess",
            Self::Untyped => "Untyped",
            Self::Other(_) => "Other",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(name) => f.write_str(name),
            known => f.write_str(known.label()),
        }
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it is.
    pub kind: FaultKind,
    /// The server's words, in its language, often empty on vcsim. For people only.
    pub message: String,
    /// The object at fault, where the fault names one.
    pub object: Option<MoRef>,
    /// The property or argument at fault: `querySpec.interval`, `config.uuid`.
    pub property: Option<String>,
    /// The privilege that is missing.
    pub privilege: Option<String>,
    /// The state that was found where another was needed.
    pub existing_state: Option<String>,
    /// A reason or detail in the server's words.
    pub reason: Option<String>,
}

impl Fault {
    fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            message: String::new(),
            object: None,
            property: None,
            privilege: None,
            existing_state: None,
            reason: None,
        }
    }

    /// Reads the `Fault` of a SOAP body, whose start was just entered.
    pub(crate) fn read_soap(xml: &mut Reader<'_>) -> Result<Self, xml::Error> {
        let mut fault = None;
        let mut message = String::new();
        while let Some(part) = xml.next_child()? {
            match part.name() {
                "faultstring" => message = xml::cut(&xml.loose_text()?),
                "detail" => {
                    while let Some(detail) = xml.next_child()? {
                        if fault.is_some() {
                            xml.skip()?;
                            continue;
                        }
                        // The element of a real server is the type's name and "Fault"; the type itself is
                        // exact where it is given.
                        let kind = match detail.xsi_type() {
                            Some(name) => FaultKind::from_name(&name),
                            None => {
                                let name = detail.name();
                                FaultKind::from_name(name.strip_suffix("Fault").unwrap_or(name))
                            }
                        };
                        fault = Some(Self::read_fields(kind, xml)?);
                    }
                }
                _ => xml.skip()?,
            }
        }
        let mut fault = fault.unwrap_or_else(|| Self::new(FaultKind::Untyped));
        fault.message = message;
        Ok(fault)
    }

    /// Reads a LocalizedMethodFault (`missingSet.fault`, `TaskInfo.error`), whose start was just entered.
    pub(crate) fn read_localized(xml: &mut Reader<'_>) -> Result<Self, xml::Error> {
        let mut fault = None;
        let mut message = String::new();
        while let Some(part) = xml.next_child()? {
            match part.name() {
                "fault" => {
                    let kind = part
                        .xsi_type()
                        .map_or(FaultKind::Untyped, |name| FaultKind::from_name(&name));
                    fault = Some(Self::read_fields(kind, xml)?);
                }
                "localizedMessage" => message = xml::cut(&xml.loose_text()?),
                _ => xml.skip()?,
            }
        }
        let mut fault = fault.unwrap_or_else(|| Self::new(FaultKind::Untyped));
        fault.message = message;
        Ok(fault)
    }

    fn read_fields(kind: FaultKind, xml: &mut Reader<'_>) -> Result<Self, xml::Error> {
        let mut fault = Self::new(kind);
        while let Some(field) = xml.next_child()? {
            match field.name() {
                "object" | "obj" => fault.object = Some(MoRef::new(xml::cut(&xml.loose_text()?))),
                "name" | "invalidProperty" => fault.property = Some(xml::cut(&xml.loose_text()?)),
                "privilegeId" => fault.privilege = Some(xml::cut(&xml.loose_text()?)),
                "existingState" => fault.existing_state = Some(xml::cut(&xml.loose_text()?)),
                "reason" | "details" => fault.reason = Some(xml::cut(&xml.loose_text()?)),
                _ => xml.skip()?,
            }
        }
        Ok(fault)
    }
}

/// One clause for a message: the kind and whatever the server added.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        let details = [
            ("object", self.object.as_ref().map(MoRef::as_str)),
            ("property", self.property.as_deref()),
            ("privilege", self.privilege.as_deref()),
            ("state", self.existing_state.as_deref()),
            ("reason", self.reason.as_deref()),
        ];
        let mut separator = " (";
        for (name, value) in details {
            if let Some(value) = value {
                write!(f, "{separator}{name} {}", value.escape_debug())?;
                separator = ", ";
            }
        }
        if separator == ", " {
            f.write_str(")")?;
        }
        if !self.message.is_empty() {
            write!(f, ", {:?}", self.message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
