//! The property collector: any number of objects, page by page.
//!
//! An expired session shows as HTTP 200 with NotAuthenticated in every `missingSet`, because the method itself
//! needs no session. It is an error here, never an empty inventory.

use crate::soap::envelope::Object;
use crate::soap::envelope::Reply;
use crate::soap::envelope::Request;
use crate::soap::error::Error;
use crate::soap::fault::Fault;
use crate::soap::fault::FaultKind;
use crate::soap::pool::Pinned;
use crate::soap::xml;
use crate::soap::xml::Element;
use crate::soap::xml::Reader;
use crate::soap::xml::Writer;

/// Objects asked for per page; servers may send fewer (100 were seen). A page that is too large is asked for again
/// with fewer.
const PAGE_OBJECTS: [usize; 4] = [500, 50, 5, 1];

/// Most bytes of a page: one of 500 objects with a dozen leaf properties is 1 MiB, the whole list of counters as well.
pub(crate) const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// A vCenter has at most 45,000 VMs and 5,000 hosts. What is found is kept in memory, beside the byte budget.
const OBJECTS_LIMIT: usize = 100_000;

/// 10,000 VMs in pages of 100 are 100 pages. A server that never stops is stopped.
const PAGES_LIMIT: usize = 10_000;

/// Which properties of which type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The type, or a base class of it.
    pub(crate) kind: &'static str,
    /// Leaf paths.
    pub(crate) paths: &'static [&'static str],
}

/// Where the objects come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From<'a> {
    /// This one object.
    Object(&'a Object),
    /// All objects of a view.
    View(&'a Object),
}

/// Receives what is found. On an error it has seen a part only, and what it made of it must be thrown away.
pub(crate) trait Visit: Send {
    /// The next object begins.
    fn object(&mut self, object: Object);

    /// A property of the object that began last. `xml` stands inside `<val>` and must leave it.
    fn property(&mut self, path: &str, value: &Element<'_>, xml: &mut Reader<'_>) -> Result<(), xml::Error>;

    /// A property of the object that began last has no value any more. Only change tracking says so.
    fn unset(&mut self, _path: &str) {}

    /// An object is no longer there. Only change tracking says so.
    fn left(&mut self, _object: Object) {}
}

/// Reads properties of all objects, all pages. Returns what was made of them and how many properties the server kept
/// back.
pub(crate) async fn retrieve<V: Visit + Default>(
    session: &Pinned,
    from: From<'_>,
    wanted: &[Wanted],
) -> Result<(V, usize), Error> {
    let mut visit = V::default();
    let withheld =
        in_ever_smaller_pages(session, from, wanted, &mut visit, |visit| *visit = V::default()).await?;
    Ok((visit, withheld))
}

/// As [`retrieve`], into something in which it does no harm to read an object twice.
pub(crate) async fn retrieve_into(
    session: &Pinned,
    from: From<'_>,
    wanted: &[Wanted],
    visit: &mut impl Visit,
) -> Result<usize, Error> {
    in_ever_smaller_pages(session, from, wanted, visit, |_visit| ()).await
}

async fn in_ever_smaller_pages<V: Visit>(
    session: &Pinned,
    from: From<'_>,
    wanted: &[Wanted],
    visit: &mut V,
    start_over: impl Fn(&mut V) + Send,
) -> Result<usize, Error> {
    let mut sizes = PAGE_OBJECTS.into_iter().peekable();
    loop {
        let objects = sizes.next().unwrap_or(1);
        match retrieve_in_pages(session, from, wanted, objects, visit).await {
            Err(error) if error.is_too_large() && sizes.peek().is_some() => start_over(visit),
            result => return result,
        }
    }
}

async fn retrieve_in_pages(
    session: &Pinned,
    from: From<'_>,
    wanted: &[Wanted],
    objects: usize,
    visit: &mut impl Visit,
) -> Result<usize, Error> {
    let collector = &session.content().property_collector;
    let bytes = session.page_bytes();
    let request = Request::new("RetrievePropertiesEx", collector, 2048, |xml| {
        write_spec(xml, "specSet", from, wanted);
        xml.open("options")
            .text("maxObjects", &objects.to_string())
            .close();
    })?;
    let mut page = read_page(&session.call(&request, bytes).await?, visit)?;
    let mut withheld = page.withheld;
    let mut found = page.objects;
    let mut pages = 1;
    while let Some(token) = page.token.take() {
        if pages == PAGES_LIMIT || found > OBJECTS_LIMIT {
            cancel(session, &token).await?;
            return Err(Error::Endless {
                method: "RetrievePropertiesEx",
                pages,
            });
        }
        let request = Request::new("ContinueRetrievePropertiesEx", collector, 200, |xml| {
            xml.text("token", &token);
        })?;
        page = match session.call(&request, bytes).await {
            Ok(reply) => read_page(&reply, visit)?,
            Err(error) => {
                if error.is_too_large()
                    && let Err(error) = cancel(session, &token).await
                {
                    // Mostly it is gone with the page that was refused; else it ends with the session.
                    tracing::debug!(error = %crate::error::Chain(&error), "could not give up a result");
                }
                return Err(error);
            }
        };
        withheld += page.withheld;
        found += page.objects;
        pages += 1;
    }
    Ok(withheld)
}

async fn cancel(session: &Pinned, token: &str) -> Result<(), Error> {
    let request = Request::new(
        "CancelRetrievePropertiesEx",
        &session.content().property_collector,
        200,
        |xml| {
            xml.text("token", token);
        },
    )?;
    session
        .call(&request, session.page_bytes())
        .await?
        .read(|_xml| Ok(()))
}

/// Writes a `PropertyFilterSpec` under the name that the method has for it.
pub(super) fn write_spec(xml: &mut Writer, element: &'static str, from: From<'_>, wanted: &[Wanted]) {
    xml.open(element);
    for Wanted { kind, paths } in wanted {
        xml.open("propSet").text("type", kind);
        for path in *paths {
            xml.text("pathSet", path);
        }
        xml.close();
    }
    xml.open("objectSet");
    match from {
        From::Object(object) => {
            xml.object("obj", &object.kind, object.moref.as_str())
                .text("skip", "false");
        }
        From::View(view) => {
            xml.object("obj", &view.kind, view.moref.as_str())
                .text("skip", "true");
            xml.open_with("selectSet", &[("xsi:type", "TraversalSpec")])
                .text("name", "view");
            xml.text("type", "ContainerView")
                .text("path", "view")
                .text("skip", "false")
                .close();
        }
    }
    xml.close().close();
}

pub(in crate::soap) struct Page {
    token: Option<String>,
    objects: usize,
    withheld: usize,
}

pub(in crate::soap) fn read_page(reply: &Reply, visit: &mut impl Visit) -> Result<Page, Error> {
    let (page, gone) = reply.read(|xml| {
        let mut page = Page {
            token: None,
            objects: 0,
            withheld: 0,
        };
        let mut gone = None;
        // No returnval: nothing matched.
        while let Some(_returnval) = xml.next_child()? {
            while let Some(part) = xml.next_child()? {
                match part.name() {
                    "token" => page.token = Some(xml.text()?.into_owned()),
                    "objects" => {
                        page.objects += 1;
                        read_object(xml, visit, &mut page.withheld, &mut gone)?;
                    }
                    _ => xml.skip()?,
                }
            }
        }
        Ok((page, gone))
    })?;
    match gone {
        Some(fault) => Err(reply.fault(fault)),
        None => Ok(page),
    }
}

fn read_object(
    xml: &mut Reader<'_>,
    visit: &mut impl Visit,
    withheld: &mut usize,
    gone: &mut Option<Fault>,
) -> Result<(), xml::Error> {
    while let Some(part) = xml.next_child()? {
        match part.name() {
            "obj" => visit.object(Object::read(&part, xml)?),
            "propSet" => {
                let mut path = String::new();
                while let Some(field) = xml.next_child()? {
                    match field.name() {
                        "name" => path = xml.text()?.into_owned(),
                        "val" => visit.property(&path, &field, xml)?,
                        _ => xml.skip()?,
                    }
                }
            }
            "missingSet" => {
                *withheld += 1;
                read_missing(xml, gone)?;
            }
            _ => xml.skip()?,
        }
    }
    Ok(())
}

/// Reads a `missingSet`, and keeps its fault if it says that the session is gone.
pub(super) fn read_missing(xml: &mut Reader<'_>, gone: &mut Option<Fault>) -> Result<(), xml::Error> {
    while let Some(field) = xml.next_child()? {
        if field.name() != "fault" {
            xml.skip()?;
            continue;
        }
        let fault = Fault::read_localized(xml)?;
        if fault.kind == FaultKind::NotAuthenticated {
            gone.get_or_insert(fault);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Seen(Vec<String>);

    impl Visit for Seen {
        fn object(&mut self, object: Object) {
            self.0.push(object.moref.to_string());
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
    }

    fn page(document: &str) -> (Result<Page, Error>, Vec<String>) {
        let reply = Reply::received("RetrievePropertiesEx", document.to_owned());
        let mut seen = Seen::default();
        (read_page(&reply, &mut seen), seen.0)
    }

    const PAGE: &str = include_str!("../../../tests/it/fixtures/page.xml");

    #[test]
    fn a_page_gives_its_token_objects_and_what_was_kept_back() {
        let (page, seen) = page(PAGE);
        let page = page.unwrap();
        assert_eq!((page.token.as_deref(), page.withheld), (Some("session[52]1"), 1));
        let wanted = [
            "vm-42",
            "name=web & db",
            "runtime.host=host-9",
            "summary.config.numCpu=4",
            "vm-43",
            "group-v3",
        ];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_page_cut_at_any_byte_is_an_error() {
        let whole = PAGE.trim_end();
        for end in 0..whole.len() {
            assert!(
                page(whole.get(..end).unwrap()).0.is_err(),
                "cut after {end} bytes"
            );
        }
    }

    #[test]
    fn an_expired_session_is_an_error_however_much_else_was_read() {
        let expired = PAGE.replace("xsi:type=\"NoPermission\"", "xsi:type=\"NotAuthenticated\"");
        let error = page(&expired).0.err().unwrap();
        assert_eq!(error.fault().unwrap().kind, FaultKind::NotAuthenticated);
    }

    #[test]
    fn no_match_is_an_empty_page() {
        let empty = PAGE.split_at(PAGE.find("<returnval>").unwrap()).0.to_owned()
            + "</RetrievePropertiesExResponse></soapenv:Body></soapenv:Envelope>";
        let (page, seen) = page(&empty);
        assert!(page.unwrap().token.is_none() && seen.is_empty());
    }
}
