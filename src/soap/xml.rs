//! XML with the guards that a reply from an unknown server needs.
//!
//! Owns: [`Reader`], a pull reader that cannot be talked into unbounded depth, tags or texts and that never takes
//! a document that stops early for one that ends; [`Writer`], which cannot write illegal XML.
//! Never does: building a tree, knowing what an element means.
//!
//! Invariants:
//! - every element that is opened is closed before [`Reader::finish`] says yes: quick-xml alone reports a body
//!   that was cut at an element border as a plain end;
//! - a document with a DOCTYPE is refused: vSphere never sends one;
//! - names are compared by their local part. The one attribute that needs a namespace, `xsi:type`, is known by
//!   having a prefix at all: real servers bind `xsi` at the root, vcsim binds another prefix on the element
//!   itself, and the unprefixed `type` is that of a managed object reference.

mod writer;

use std::borrow::Cow;

use memchr::memchr2;
use quick_xml::events::BytesStart;
use quick_xml::events::Event;

pub use writer::IllegalText;
pub(crate) use writer::Writer;

/// Elements inside one another. The deepest reply is a fault with causes: below 20.
const DEPTH_LIMIT: usize = 64;

/// Bytes of one start tag. Names and the two type attributes stay below 300.
const TAG_LIMIT_BYTES: usize = 16 * 1024;

/// Bytes of one text. The largest legitimate one is the list of stamps of a day of roll-ups: below 10 KiB.
const TEXT_LIMIT_BYTES: usize = 4 * 1024 * 1024;

/// Characters of a server's text that a message repeats.
const CUT_CHARACTERS: usize = 200;

/// Why a document is not the one asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The document stops inside an element.
    #[error("it stops in the middle, {depth} elements are still open")]
    Truncated {
        /// Elements still open.
        depth: usize,
    },
    /// Not XML.
    #[error("it is not well-formed XML")]
    Syntax(#[source] quick_xml::Error),
    /// A document type declaration.
    #[error("it has a DOCTYPE")]
    Doctype,
    /// An encoding other than UTF-8.
    #[error("its encoding is {0:?}, not UTF-8")]
    Encoding(String),
    /// More elements inside one another than any reply has.
    #[error("it nests more than {DEPTH_LIMIT} elements")]
    TooDeep,
    /// A start tag longer than any reply has.
    #[error("it has a tag of more than {TAG_LIMIT_BYTES} bytes")]
    TagTooLong,
    /// A text longer than any reply has.
    #[error("it has a text of more than {TEXT_LIMIT_BYTES} bytes")]
    TextTooLong,
    /// An entity that is not one of XML's own.
    #[error("it has an unknown entity {0:?}")]
    UnknownEntity(String),
    /// Another element than the protocol puts here.
    #[error("it has <{found}> where <{expected}> belongs")]
    Unexpected {
        /// What belongs here.
        expected: String,
        /// What stands here.
        found: String,
    },
    /// An element that the protocol demands is not there.
    #[error("it has no <{0}>")]
    Missing(&'static str),
    /// A value that is not of its type.
    #[error("<{name}> holds {value:?}, which is not {wanted}")]
    Value {
        /// The element.
        name: &'static str,
        /// Its text, cut.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
}

/// Shortens what a server wrote, so that no message grows without bound, and none has lines that it did not have.
pub(crate) fn cut(text: &str) -> String {
    let plain = |character: char| {
        if character.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            character
        }
    };
    text.chars().take(CUT_CHARACTERS).map(plain).collect()
}

impl Error {
    /// A value that is not of its type.
    pub(crate) fn value(name: &'static str, value: &str, wanted: &'static str) -> Self {
        Self::Value {
            name,
            value: cut(value),
            wanted,
        }
    }

    /// Another element than the protocol puts here.
    pub(crate) fn unexpected(expected: impl Into<String>, found: &str) -> Self {
        Self::Unexpected {
            expected: expected.into(),
            found: cut(found),
        }
    }
}

impl From<quick_xml::Error> for Error {
    fn from(source: quick_xml::Error) -> Self {
        Self::Syntax(source)
    }
}

/// The start of an element.
#[derive(Debug)]
pub(crate) struct Element<'a>(BytesStart<'a>);

impl Element<'_> {
    /// The local name.
    pub(crate) fn name(&self) -> &str {
        self.0.local_name().into_inner()
    }

    /// The data type: `xsi:type` under whatever prefix, its own prefix removed.
    pub(crate) fn xsi_type(&self) -> Option<Cow<'_, str>> {
        self.attribute(|name| {
            name.split_once(':')
                .is_some_and(|(prefix, local)| local == "type" && prefix != "xmlns")
        })
        .map(|value| match value {
            Cow::Borrowed(text) => Cow::Borrowed(local(text)),
            Cow::Owned(text) => Cow::Owned(local(&text).to_owned()),
        })
    }

    /// The type of a managed object reference. Names of types hold nothing that is escaped.
    pub(crate) fn object_type(&self) -> Option<Cow<'_, str>> {
        self.attribute(|name| name == "type")
    }

    /// The namespace that this element declares for its own name.
    pub(crate) fn own_namespace(&self) -> Option<Cow<'_, str>> {
        let name = self.0.name();
        let declaration = match name.into_inner().split_once(':') {
            Some((prefix, _)) => Cow::Owned(format!("xmlns:{prefix}")),
            None => Cow::Borrowed("xmlns"),
        };
        self.attribute(|name| name == declaration)
    }

    fn attribute(&self, wanted: impl Fn(&str) -> bool) -> Option<Cow<'_, str>> {
        // The tag's length is capped, so is the number of attributes; the quadratic check for doubles is not
        // needed where the first match is taken.
        let mut attributes = self.0.attributes();
        attributes.with_checks(false);
        attributes
            .flatten()
            .find(|attribute| wanted(attribute.key.into_inner()))
            .map(|attribute| attribute.value)
    }
}

fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

/// A guarded pull reader, always inside some element.
///
/// The three verbs are [`next_child`](Self::next_child), and for a child that was entered exactly one of
/// [`text`](Self::text), [`skip`](Self::skip) or a loop over `next_child` until it says `None`. [`leaf`](Self::leaf)
/// and [`leaves`](Self::leaves) are short cuts through these for what a long list is made of.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    document: &'a str,
    inner: quick_xml::Reader<&'a [u8]>,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// Reads a document.
    pub(crate) fn new(document: &'a str) -> Self {
        let mut inner = quick_xml::Reader::from_str(document);
        let config = inner.config_mut();
        config.expand_empty_elements = true;
        config.check_end_names = true;
        Self {
            document,
            inner,
            depth: 0,
        }
    }

    /// The document's root element.
    pub(crate) fn root(&mut self) -> Result<Element<'a>, Error> {
        self.next_child()?.ok_or(Error::Missing("Envelope"))
    }

    /// Enters the next child of the current element; `None` closes the current element. Text in between is
    /// passed over.
    pub(crate) fn next_child(&mut self) -> Result<Option<Element<'a>>, Error> {
        loop {
            match self.event()? {
                Event::Start(start) => return Ok(Some(Element(start))),
                Event::End(_) => return Ok(None),
                Event::Eof if self.depth == 0 => return Ok(None),
                Event::Eof => return Err(Error::Truncated { depth: self.depth }),
                _ => {}
            }
        }
    }

    /// The text of the current element, which closes it. Entity references split a text into runs; they are put
    /// together here. Child elements do not belong into a text and are refused.
    pub(crate) fn text(&mut self) -> Result<Cow<'a, str>, Error> {
        let mut text = Cow::Borrowed("");
        loop {
            let run = match self.event()? {
                Event::End(_) => return Ok(text),
                Event::Text(run) => run.into_inner(),
                Event::CData(run) => run.into_inner(),
                Event::GeneralRef(reference) => Cow::Owned(resolve(&reference)?.to_string()),
                Event::Eof => return Err(Error::Truncated { depth: self.depth }),
                Event::Start(start) => {
                    return Err(Error::unexpected("text", start.local_name().into_inner()));
                }
                _ => continue,
            };
            if text.len().saturating_add(run.len()) > TEXT_LIMIT_BYTES {
                return Err(Error::TextTooLong);
            }
            if text.is_empty() {
                text = run;
            } else {
                text.to_mut().push_str(&run);
            }
        }
    }

    /// Reads the next child whole, where it stands right here and is plain: `<name>text</name>`, byte for byte,
    /// without attributes, references or comments. `None`: it is something else, nothing was consumed, and the other
    /// verbs say what. They would say the same of what is read here, only slower.
    pub(crate) fn leaf(&mut self, name: &str) -> Option<&'a str> {
        let (text, rest) = leaf(self.rest(1)?, name)?;
        *self.inner.get_mut() = rest.as_bytes();
        Some(text)
    }

    /// As [`leaf`](Self::leaf), for a child that holds exactly these leaves in this order and nothing else.
    pub(crate) fn leaves<const N: usize>(&mut self, parent: &str, names: [&str; N]) -> Option<[&'a str; N]> {
        let mut rest = tag(self.rest(2)?, "<", parent)?;
        let mut texts = [""; N];
        for (name, place) in names.into_iter().zip(&mut texts) {
            (*place, rest) = leaf(rest, name)?;
        }
        let rest = tag(rest, "</", parent)?;
        *self.inner.get_mut() = rest.as_bytes();
        Some(texts)
    }

    /// What was not read yet, where so many more elements may be opened. `None` behind an empty element: its end is
    /// an event that has no bytes and may still be to come.
    fn rest(&self, levels: usize) -> Option<&'a str> {
        let read = self.document.len().checked_sub(self.inner.get_ref().len())?;
        let (before, rest) = self.document.split_at_checked(read)?;
        (!before.ends_with("/>") && self.depth > 0 && self.depth + levels <= DEPTH_LIMIT).then_some(rest)
    }

    /// The text of the current element without that of its children, which are passed over: for parts of a
    /// reply whose form is the server's own choice.
    pub(crate) fn loose_text(&mut self) -> Result<String, Error> {
        let inside = self.depth;
        let mut text = String::new();
        while self.depth >= inside {
            let event = self.event()?;
            if matches!(event, Event::Eof) {
                return Err(Error::Truncated { depth: self.depth });
            }
            if self.depth != inside || text.len() > TAG_LIMIT_BYTES {
                continue;
            }
            match event {
                Event::Text(run) => text.push_str(&run),
                Event::CData(run) => text.push_str(&run),
                Event::GeneralRef(reference) => text.push(resolve(&reference)?),
                _ => {}
            }
        }
        Ok(text)
    }

    /// Passes over the rest of the current element, which closes it.
    pub(crate) fn skip(&mut self) -> Result<(), Error> {
        self.leave(self.depth.saturating_sub(1))
    }

    /// Elements open around the current position.
    pub(crate) const fn depth(&self) -> usize {
        self.depth
    }

    /// Passes over everything until `depth` elements are open.
    pub(crate) fn leave(&mut self, depth: usize) -> Result<(), Error> {
        while self.depth > depth {
            if matches!(self.event()?, Event::Eof) {
                return Err(Error::Truncated { depth: self.depth });
            }
        }
        Ok(())
    }

    /// Checks that the document ends here, complete.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        loop {
            match self.event()? {
                Event::Eof if self.depth == 0 => return Ok(()),
                Event::Eof => return Err(Error::Truncated { depth: self.depth }),
                Event::Start(start) if self.depth == 1 => {
                    return Err(Error::unexpected(
                        "end of document",
                        start.local_name().into_inner(),
                    ));
                }
                // Two documents run into one, or a page that somebody appended: whose answer is it?
                Event::Text(text) if self.depth == 0 && !text.trim().is_empty() => {
                    return Err(Error::unexpected("end of document", text.trim()));
                }
                Event::CData(_) | Event::GeneralRef(_) if self.depth == 0 => {
                    return Err(Error::unexpected("end of document", "text"));
                }
                _ => {}
            }
        }
    }

    /// The next event, after all guards. The only place where the inner reader is asked.
    fn event(&mut self) -> Result<Event<'a>, Error> {
        let event = self.inner.read_event()?;
        match &event {
            Event::Start(start) => {
                if start.len() > TAG_LIMIT_BYTES {
                    return Err(Error::TagTooLong);
                }
                self.depth += 1;
                if self.depth > DEPTH_LIMIT {
                    return Err(Error::TooDeep);
                }
            }
            // quick-xml refuses an end without a start.
            Event::End(_) => self.depth = self.depth.saturating_sub(1),
            Event::DocType(_) => return Err(Error::Doctype),
            Event::Decl(declaration) => {
                if let Some(Ok(encoding)) = declaration.encoding()
                    && !encoding.eq_ignore_ascii_case("utf-8")
                {
                    return Err(Error::Encoding(cut(&encoding)));
                }
            }
            _ => {}
        }
        Ok(event)
    }
}

/// A plain leaf at the start of `rest`: its text and what follows it.
fn leaf<'a>(rest: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let rest = tag(rest, "<", name)?;
    let (text, rest) = rest.split_at_checked(memchr2(b'<', b'&', rest.as_bytes())?)?;
    let rest = tag(rest, "</", name)?;
    (text.len() <= TEXT_LIMIT_BYTES).then_some((text, rest))
}

/// What follows this tag at the start of `rest`.
fn tag<'a>(rest: &'a str, open: &str, name: &str) -> Option<&'a str> {
    rest.strip_prefix(open)?.strip_prefix(name)?.strip_prefix('>')
}

/// What a reference stands for: a character by number, or one of the five names of XML.
fn resolve(reference: &quick_xml::events::BytesRef<'_>) -> Result<char, Error> {
    match reference.resolve_char_ref() {
        Ok(Some(character)) => return Ok(character),
        // `&#0;` in a name: replaced like a byte that is not UTF-8, so that one broken name does not hide the rest.
        Err(_not_a_character) => return Ok(char::REPLACEMENT_CHARACTER),
        Ok(None) => {}
    }
    match &**reference {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        other => Err(Error::UnknownEntity(cut(other))),
    }
}

#[cfg(test)]
mod tests;
