//! Change tracking of the property collector.
//!
//! A collector of its own per tracker: version and cancellation belong to a collector, and a wait on the shared one
//! would stand in the way of others.

use std::time::Duration;

use super::SMALL_REPLY_BYTES;
use super::properties::From;
use super::properties::Visit;
use super::properties::Wanted;
use super::properties::read_missing;
use super::properties::write_spec;
use crate::soap::envelope::Object;
use crate::soap::envelope::Reply;
use crate::soap::envelope::Request;
use crate::soap::error::Error;
use crate::soap::pool::Pinned;
use crate::soap::xml;
use crate::soap::xml::Reader;

/// Objects per answer; servers send as many as the first of these at most. An answer that is too large is asked for
/// anew with fewer.
pub(crate) const PAGE_OBJECTS: [usize; 3] = [100, 10, 1];

/// What an answer says beside the changes.
#[derive(Debug)]
pub(crate) struct Told {
    /// To be sent with the next wait.
    pub(crate) version: String,
    /// There is more: ask again at once.
    pub(crate) truncated: bool,
}

/// `CreatePropertyCollector`.
pub(crate) async fn create_collector(session: &Pinned) -> Result<Object, Error> {
    let shared = &session.content().property_collector;
    let request = Request::new("CreatePropertyCollector", shared, 0, |_| ())?;
    made(&session.call(&request, SMALL_REPLY_BYTES).await?)
}

/// `DestroyPropertyCollector`, with its filters.
pub(crate) async fn destroy_collector(session: &Pinned, collector: &Object) -> Result<(), Error> {
    let request = Request::new("DestroyPropertyCollector", collector, 0, |_| ())?;
    session
        .call(&request, SMALL_REPLY_BYTES)
        .await?
        .read(|_xml| Ok(()))
}

/// `CreateFilter` over one object or all of a view. Changes come as the whole value of the path that is named here.
pub(crate) async fn create_filter(
    session: &Pinned,
    collector: &Object,
    from: From<'_>,
    wanted: &[Wanted],
) -> Result<Object, Error> {
    let request = Request::new("CreateFilter", collector, 4096, |xml| {
        write_spec(xml, "spec", from, wanted);
        xml.text("partialUpdates", "false");
    })?;
    made(&session.call(&request, SMALL_REPLY_BYTES).await?)
}

/// `WaitForUpdatesEx`: what has changed since `version`, within `longest`; `None` if nothing has. An empty version
/// asks for everything. An answer has at most `bytes`.
pub(crate) async fn wait(
    session: &Pinned,
    collector: &Object,
    version: &str,
    most_objects: usize,
    bytes: usize,
    longest: Duration,
    visit: &mut impl Visit,
) -> Result<Option<Told>, Error> {
    let request = Request::new("WaitForUpdatesEx", collector, 300, |xml| {
        xml.text("version", version);
        xml.open("options")
            .text("maxWaitSeconds", &longest.as_secs().to_string())
            .text("maxObjectUpdates", &most_objects.to_string())
            .close();
    })?;
    let reply = session.call_and_wait(&request, bytes, longest).await?;
    read(&reply, visit)
}

/// `CancelWaitForUpdates`: the call that waits ends with `RequestCanceled`.
pub(crate) async fn cancel_wait(session: &Pinned, collector: &Object) -> Result<(), Error> {
    let request = Request::new("CancelWaitForUpdates", collector, 0, |_| ())?;
    session
        .call(&request, SMALL_REPLY_BYTES)
        .await?
        .read(|_xml| Ok(()))
}

fn made(reply: &Reply) -> Result<Object, Error> {
    reply.read(|xml| {
        let mut object = None;
        while let Some(returnval) = xml.next_child()? {
            object = Some(Object::read(&returnval, xml)?);
        }
        object.ok_or(xml::Error::Missing("returnval"))
    })
}

pub(crate) fn read(reply: &Reply, visit: &mut impl Visit) -> Result<Option<Told>, Error> {
    let mut gone = None;
    let told = reply.read(|xml| {
        let mut told = None;
        // No returnval: nothing has changed.
        while let Some(_returnval) = xml.next_child()? {
            let (mut version, mut truncated) = (None, false);
            while let Some(part) = xml.next_child()? {
                match part.name() {
                    "version" => version = Some(xml.text()?.into_owned()),
                    "truncated" => truncated = matches!(&*xml.text()?, "true" | "1"),
                    "filterSet" => {
                        while let Some(part) = xml.next_child()? {
                            match part.name() {
                                "objectSet" => read_object(xml, visit, &mut gone)?,
                                _ => xml.skip()?,
                            }
                        }
                    }
                    _ => xml.skip()?,
                }
            }
            let version = version.ok_or(xml::Error::Missing("version"))?;
            told = Some(Told { version, truncated });
        }
        Ok(told)
    })?;
    match gone {
        Some(fault) => Err(reply.fault(fault)),
        None => Ok(told),
    }
}

fn read_object(
    xml: &mut Reader<'_>,
    visit: &mut impl Visit,
    gone: &mut Option<crate::soap::fault::Fault>,
) -> Result<(), xml::Error> {
    let mut leaves = false;
    while let Some(part) = xml.next_child()? {
        match part.name() {
            "kind" => leaves = xml.text()? == "leave",
            "obj" if leaves => visit.left(Object::read(&part, xml)?),
            "obj" => visit.object(Object::read(&part, xml)?),
            "changeSet" => {
                let (mut path, mut has_value) = (String::new(), false);
                while let Some(field) = xml.next_child()? {
                    match field.name() {
                        "name" => path = xml.text()?.into_owned(),
                        "val" => {
                            has_value = true;
                            visit.property(&path, &field, xml)?;
                        }
                        _ => xml.skip()?,
                    }
                }
                if !has_value {
                    visit.unset(&path);
                }
            }
            "missingSet" => read_missing(xml, gone)?,
            _ => xml.skip()?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soap::xml::Element;

    #[derive(Debug, Default)]
    struct Seen(Vec<String>);

    impl Visit for Seen {
        fn object(&mut self, object: Object) {
            self.0.push(format!("+{}", object.moref));
        }

        fn property(
            &mut self,
            path: &str,
            _value: &Element<'_>,
            xml: &mut Reader<'_>,
        ) -> Result<(), xml::Error> {
            self.0.push(format!("{path}={}", xml.text()?));
            Ok(())
        }

        fn unset(&mut self, path: &str) {
            self.0.push(format!("{path}!"));
        }

        fn left(&mut self, object: Object) {
            self.0.push(format!("-{}", object.moref));
        }
    }

    fn body(content: &str) -> String {
        format!(
            "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soapenv:Body>\
             <WaitForUpdatesExResponse xmlns=\"urn:vim25\">{content}</WaitForUpdatesExResponse>\
             </soapenv:Body></soapenv:Envelope>"
        )
    }

    fn answer(content: &str) -> (Result<Option<Told>, Error>, Vec<String>) {
        read_body(body(content))
    }

    fn read_body(body: String) -> (Result<Option<Told>, Error>, Vec<String>) {
        let mut seen = Seen::default();
        let told = read(&Reply::received("WaitForUpdatesEx", body), &mut seen);
        (told, seen.0)
    }

    const CHANGES: &str = "\
        <returnval><version>7</version><filterSet><filter type=\"PropertyFilter\">f</filter>\
        <objectSet><kind>modify</kind><obj type=\"VirtualMachine\">vm-1</obj>\
        <changeSet><name>name</name><op>assign</op><val>a</val></changeSet>\
        <changeSet><name>snapshot</name><op>assign</op></changeSet></objectSet>\
        <objectSet><kind>leave</kind><obj type=\"VirtualMachine\">vm-2</obj></objectSet></filterSet>\
        <truncated>true</truncated></returnval>";

    #[test]
    fn an_answer_cut_at_any_byte_is_an_error() {
        let whole = body(CHANGES);
        for end in 0..whole.len() {
            let told = read_body(whole.chars().take(end).collect()).0;
            assert!(told.is_err(), "cut after {end} bytes: {told:?}");
        }
    }

    #[test]
    fn a_session_that_is_gone_in_the_middle_of_the_changes_is_an_error() {
        let (told, _seen) = answer(
            "<returnval><version>7</version><filterSet><filter type=\"PropertyFilter\">f</filter>\
             <objectSet><kind>enter</kind><obj type=\"VirtualMachine\">vm-1</obj>\
             <missingSet><path>name</path><fault><fault xsi:type=\"NotAuthenticated\"/></fault></missingSet>\
             </objectSet></filterSet></returnval>",
        );
        assert!(matches!(told, Err(Error::Fault { .. })), "{told:?}");
    }

    #[test]
    fn an_assignment_without_a_value_takes_the_value_away_and_who_left_is_gone() {
        let (told, seen) = answer(CHANGES);
        let told = told.unwrap().unwrap();
        assert!(told.truncated && told.version == "7");
        assert_eq!(seen, ["+vm-1", "name=a", "snapshot!", "-vm-2"]);
        assert!(answer("").0.unwrap().is_none(), "nothing has changed");
    }
}
