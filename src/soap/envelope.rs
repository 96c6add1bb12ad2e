//! SOAP envelopes: a method call as XML, and the way into an answer.
//!
//! Owns: [`Request`], [`Reply`], [`Object`]. Never does: knowing what a method means.
//!
//! Elements are written in the order of the schema, base type first: real servers refuse any other order.

use std::borrow::Cow;

use crate::model::ids::MoRef;
use crate::soap::error::Error;
use crate::soap::error::OperationId;
use crate::soap::fault::Fault;
use crate::soap::xml;
use crate::soap::xml::Element;
use crate::soap::xml::Reader;
use crate::soap::xml::Writer;

const SOAP_NAMESPACE: &str = "http://schemas.xmlsoap.org/soap/envelope/";

const PROLOGUE: &str = concat!(
    r#"<?xml version="1.0" encoding="UTF-8"?>"#,
    r#"<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/""#,
    r#" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">"#,
    "<soapenv:Header><operationID>",
);
const BETWEEN: &str = "</operationID></soapenv:Header><soapenv:Body>";
const EPILOGUE: &str = "</soapenv:Body></soapenv:Envelope>";

/// A reference with its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// `VirtualMachine`, `PropertyCollector`, ...
    pub kind: Cow<'static, str>,
    /// Its reference.
    pub moref: MoRef,
}

impl Object {
    /// A reference whose type is known here.
    #[must_use]
    pub fn new(kind: &'static str, moref: impl Into<Box<str>>) -> Self {
        Self {
            kind: Cow::Borrowed(kind),
            moref: MoRef::new(moref),
        }
    }

    /// Reads the reference in the element that was just entered.
    pub(crate) fn read(element: &Element<'_>, xml: &mut Reader<'_>) -> Result<Self, xml::Error> {
        let kind = element.object_type().unwrap_or_default().into_owned();
        Ok(Self {
            kind: Cow::Owned(kind),
            moref: MoRef::new(xml.text()?.into_owned()),
        })
    }
}

/// A method call, complete but for the envelope around it, so that it can be sent again in another session.
#[derive(Debug)]
pub(crate) struct Request {
    method: &'static str,
    body: String,
}

impl Request {
    /// A call of `method` on `this`, with the arguments that `write` adds.
    pub(crate) fn new(
        method: &'static str,
        this: &Object,
        bytes: usize,
        write: impl FnOnce(&mut Writer),
    ) -> Result<Self, Error> {
        let mut xml = Writer::new(bytes + 200);
        xml.open_with(method, &[("xmlns", "urn:vim25")]);
        xml.object("_this", &this.kind, this.moref.as_str());
        write(&mut xml);
        let body = xml
            .finish()
            .map_err(|source| Error::Argument { method, source })?;
        Ok(Self { method, body })
    }

    pub(crate) const fn method(&self) -> &'static str {
        self.method
    }

    /// The whole envelope under this id.
    pub(crate) fn envelope(&self, operation: &OperationId) -> String {
        [PROLOGUE, operation.as_str(), BETWEEN, &self.body, EPILOGUE].concat()
    }
}

/// An answer that claims success.
pub(crate) struct Reply {
    /// The method called.
    pub(crate) method: &'static str,
    pub(crate) operation: OperationId,
    pub(crate) body: String,
}

impl Reply {
    /// An answer that came otherwise than through a session: from a file.
    pub(crate) fn received(method: &'static str, body: String) -> Self {
        Self {
            method,
            operation: OperationId::random(),
            body,
        }
    }

    /// Reads the answer with `read`, which finds itself inside `<MethodResponse>`.
    ///
    /// # Errors
    /// [`Error::Fault`] where the body is a fault, [`Error::Malformed`] where it is not the answer to this
    /// method or not complete. Nothing that `read` made of a document that turns out to be cut is returned.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, xml::Error>,
    ) -> Result<T, Error> {
        let malformed = |source| Error::Malformed {
            method: self.method,
            operation: self.operation.clone(),
            source: Box::new(source),
        };
        match self.read_body(read).map_err(malformed)? {
            Ok(value) => Ok(value),
            Err(fault) => Err(self.fault(fault)),
        }
    }

    /// This answer's error for a fault found inside it.
    pub(crate) fn fault(&self, fault: Fault) -> Error {
        Error::Fault {
            method: self.method,
            operation: self.operation.clone(),
            fault: Box::new(fault),
        }
    }

    fn read_body<T>(
        &self,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, xml::Error>,
    ) -> Result<Result<T, Fault>, xml::Error> {
        let mut xml = Reader::new(&self.body);
        let root = xml.root()?;
        if root.name() != "Envelope" || root.own_namespace().as_deref() != Some(SOAP_NAMESPACE) {
            return Err(xml::Error::unexpected("soapenv:Envelope", root.name()));
        }
        loop {
            match xml.next_child()? {
                Some(part) if part.name() == "Body" => break,
                Some(_) => xml.skip()?,
                None => return Err(xml::Error::Missing("Body")),
            }
        }
        let outcome = match xml.next_child()? {
            Some(content) if content.name() == "Fault" => Err(Fault::read_soap(&mut xml)?),
            Some(content) if content.name().strip_suffix("Response") == Some(self.method) => {
                let outside = xml.depth().saturating_sub(1);
                let value = read(&mut xml)?;
                xml.leave(outside)?;
                Ok(value)
            }
            Some(content) => {
                return Err(xml::Error::unexpected(
                    format!("{}Response", self.method),
                    content.name(),
                ));
            }
            None => return Err(xml::Error::Missing("Response")),
        };
        xml.leave(0)?;
        xml.finish()?;
        Ok(outcome)
    }
}
