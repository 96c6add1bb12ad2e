//! Faults as a real server writes them: HTTP 500, a typed detail whose element name ends in `Fault`.

use super::read::Refusal;
use super::write::{element, envelope, escape, moref};
use crate::world::{Field, Trouble};

/// A fault.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: String,
    message: String,
    code: &'static str,
    /// Inner XML of the detail.
    fields: String,
}

impl From<&Trouble> for Fault {
    fn from(trouble: &Trouble) -> Self {
        let fault = Self::new(&trouble.kind, &trouble.message);
        trouble
            .fields
            .iter()
            .fold(fault, |fault, (name, field)| match field {
                Field::Text(text) => fault.with(name, text),
                Field::Ref(kind, value) => fault.with_ref(name, kind, value),
            })
    }
}

impl Fault {
    pub(crate) fn new(kind: &str, message: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            message: message.to_owned(),
            code: "ServerFaultCode",
            fields: String::new(),
        }
    }

    pub(crate) fn with(mut self, name: &str, text: &str) -> Self {
        element(&mut self.fields, name, text);
        self
    }

    pub(crate) fn with_ref(mut self, name: &str, kind: &str, value: &str) -> Self {
        moref(&mut self.fields, name, kind, value);
        self
    }

    pub(crate) fn not_authenticated(kind: &str, value: &str) -> Self {
        Self::new("NotAuthenticated", "The session is not authenticated.")
            .with_ref("object", kind, value)
            .with("privilegeId", "System.View")
    }

    pub(crate) fn not_found(kind: &str, value: &str) -> Self {
        let message = format!(
            "The object 'vim.{kind}:{value}' has already been deleted or has not been completely \
             created"
        );
        Self::new("ManagedObjectNotFound", &message).with_ref("obj", kind, value)
    }

    pub(crate) fn invalid_argument(property: &str) -> Self {
        let message = format!("A specified parameter was not correct: {property}");
        Self::new("InvalidArgument", &message).with("invalidProperty", property)
    }

    pub(crate) fn invalid_property(name: &str) -> Self {
        Self::new("InvalidProperty", "").with("name", name)
    }

    /// A fault by its type alone, with the fields that clients look at.
    pub(crate) fn by_type(kind: &str, message: &str, object: Option<(&str, &str)>) -> Self {
        let (object_kind, object) = object.unwrap_or(("ManagedEntity", ""));
        let fault = match kind {
            "NotAuthenticated" => Self::not_authenticated(object_kind, object),
            "NoPermission" => Self::new(kind, "Permission to perform this operation was denied.")
                .with_ref("object", object_kind, object)
                .with("privilegeId", "System.Read"),
            "ManagedObjectNotFound" => Self::not_found(object_kind, object),
            "InvalidArgument" => Self::invalid_argument("querySpec.interval"),
            "InvalidProperty" => Self::invalid_property("name"),
            "RestrictedByAdministrator" => {
                Self::new(kind, "Operation restricted by the administrator.").with("details", "querySize")
            }
            "SystemError" => {
                Self::new(kind, "A general system error occurred: injected").with("reason", "injected")
            }
            "InvalidLogin" => Self::new(
                kind,
                "Cannot complete login due to an incorrect user name or password.",
            ),
            _ => Self::new(kind, ""),
        };
        if message.is_empty() {
            fault
        } else {
            Self {
                message: message.to_owned(),
                ..fault
            }
        }
    }

    pub(crate) fn refusal(refusal: Refusal) -> Self {
        Self {
            code: "ClientFaultCode",
            kind: if refusal.malformed {
                String::new()
            } else {
                "InvalidRequest".to_owned()
            },
            message: refusal.message,
            fields: String::new(),
        }
    }

    /// The fault as the body of a reply.
    pub(crate) fn body(&self) -> String {
        let mut out = String::with_capacity(1024);
        envelope(&mut out);
        out.push_str("<soapenv:Fault>");
        element(&mut out, "faultcode", self.code);
        element(&mut out, "faultstring", &self.message);
        if !self.kind.is_empty() {
            out.push_str("<detail><");
            escape(&mut out, &self.kind);
            out.push_str("Fault xmlns=\"urn:vim25\" xsi:type=\"");
            escape(&mut out, &self.kind);
            out.push_str("\">");
            out.push_str(&self.fields);
            out.push_str("</");
            escape(&mut out, &self.kind);
            out.push_str("Fault></detail>");
        }
        out.push_str("</soapenv:Fault>\n</soapenv:Body>\n</soapenv:Envelope>\n");
        out
    }

    /// The fault as the content of a `missingSet`'s `fault`.
    pub(crate) fn localized(&self, out: &mut String) {
        out.push_str("<fault xsi:type=\"");
        escape(out, &self.kind);
        out.push_str("\">");
        out.push_str(&self.fields);
        out.push_str("</fault>");
        element(out, "localizedMessage", &self.message);
    }
}
