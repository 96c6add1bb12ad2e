//! A pull cursor over a request: the next element or nothing, in schema order.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Text of an element.
pub(crate) type Text<'a> = Cow<'a, str>;

/// Nesting that no request needs.
const MAX_DEPTH: usize = 64;

/// Why a request is not understood. The text resembles a real server's parser.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    /// The bytes are not XML at all (a real server then sends no fault detail).
    pub(crate) malformed: bool,
}

impl Refusal {
    pub(crate) fn schema(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            malformed: false,
        }
    }

    fn malformed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            malformed: true,
        }
    }
}

enum Node<'a> {
    Start(BytesStart<'a>),
    End,
    Eof,
}

/// A position in a request.
pub(crate) struct Cursor<'a> {
    reader: Reader<&'a [u8]>,
    next: Option<Node<'a>>,
    depth: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        Self {
            reader,
            next: None,
            depth: 0,
        }
    }

    /// Enters the next element, whatever its name.
    pub(crate) fn enter_any(&mut self) -> Result<Option<BytesStart<'a>>, Refusal> {
        self.peek()?;
        match self.next.take() {
            Some(Node::Start(start)) => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(Refusal::malformed("XML document is nested too deeply"));
                }
                Ok(Some(start))
            }
            other => {
                self.next = other;
                Ok(None)
            }
        }
    }

    /// Enters the next element if it has this local name.
    pub(crate) fn enter(&mut self, name: &str) -> Result<Option<BytesStart<'a>>, Refusal> {
        if self.at(name)? {
            self.enter_any()
        } else {
            Ok(None)
        }
    }

    /// Whether the next element has this local name.
    pub(crate) fn at(&mut self, name: &str) -> Result<bool, Refusal> {
        self.peek()?;
        Ok(matches!(&self.next, Some(Node::Start(start)) if start.local_name().as_ref() == name))
    }

    /// Leaves the present element; anything left in it is out of order or unknown.
    pub(crate) fn leave(&mut self, what: &str) -> Result<(), Refusal> {
        self.peek()?;
        match self.next.take() {
            Some(Node::End) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Some(Node::Start(start)) => Err(Refusal::schema(format!(
                "Unexpected element tag \"{}\" seen\n\nwhile parsing serialized DataObject of type \
                 {what}\nat line 1, column {}",
                start.local_name().as_ref(),
                self.reader.buffer_position()
            ))),
            _ => Err(Refusal::malformed("Unexpected end of document")),
        }
    }

    /// The present element's text; leaves it.
    pub(crate) fn text(&mut self) -> Result<Text<'a>, Refusal> {
        let mut text: Text<'a> = Cow::Borrowed("");
        loop {
            match self.event()? {
                Event::Text(part) => append(&mut text, part.into_inner()),
                Event::CData(part) => append(&mut text, part.into_inner()),
                Event::GeneralRef(reference) => {
                    let character = match reference.resolve_char_ref() {
                        Ok(Some(c)) => c,
                        Ok(None) => match &*reference.into_inner() {
                            "amp" => '&',
                            "lt" => '<',
                            "gt" => '>',
                            "quot" => '"',
                            "apos" => '\'',
                            other => {
                                return Err(Refusal::malformed(format!("Undefined entity \"{other}\"")));
                            }
                        },
                        Err(error) => return Err(Refusal::malformed(error.to_string())),
                    };
                    text.to_mut().push(character);
                }
                Event::End(_) => {
                    self.depth = self.depth.saturating_sub(1);
                    return Ok(text);
                }
                Event::Start(start) => {
                    return Err(Refusal::schema(format!(
                        "Unexpected element tag \"{}\" seen\n\nwhile parsing text",
                        start.local_name().as_ref()
                    )));
                }
                Event::Eof => return Err(Refusal::malformed("Unexpected end of document")),
                _ => {}
            }
        }
    }

    /// Text of the next element if it has this name.
    pub(crate) fn optional(&mut self, name: &str) -> Result<Option<Text<'a>>, Refusal> {
        match self.enter(name)? {
            Some(_) => self.text().map(Some),
            None => Ok(None),
        }
    }

    /// Text of the next element, which must have this name.
    pub(crate) fn required(&mut self, name: &str, owner: &str) -> Result<Text<'a>, Refusal> {
        let text = self.optional(name)?;
        text.ok_or_else(|| missing(name, owner))
    }

    /// Skips the present element with all its content.
    pub(crate) fn skip(&mut self) -> Result<(), Refusal> {
        let outside = self.depth.saturating_sub(1);
        while self.depth > outside {
            if self.enter_any()?.is_none() {
                self.leave("")?;
            }
        }
        Ok(())
    }

    /// Demands the end of the document.
    pub(crate) fn finish(&mut self) -> Result<(), Refusal> {
        self.peek()?;
        match self.next {
            Some(Node::Eof) => Ok(()),
            _ => Err(Refusal::malformed("Unexpected content after the document")),
        }
    }

    fn peek(&mut self) -> Result<(), Refusal> {
        while self.next.is_none() {
            self.next = match self.event()? {
                Event::Start(start) => Some(Node::Start(start)),
                Event::End(_) => Some(Node::End),
                Event::Eof => Some(Node::Eof),
                Event::Text(text) if !text.trim_ascii().is_empty() => {
                    return Err(Refusal::schema("Unexpected text"));
                }
                _ => None,
            };
        }
        Ok(())
    }

    fn event(&mut self) -> Result<Event<'a>, Refusal> {
        match self.reader.read_event() {
            Ok(Event::DocType(_)) => Err(Refusal::malformed("DOCTYPE is not allowed")),
            Ok(event) => Ok(event),
            Err(error) => Err(Refusal::malformed(format!(
                "XML document element is malformed: {error}"
            ))),
        }
    }
}

/// The refusal for a required element that is not there (at its place).
pub(crate) fn missing(name: &str, owner: &str) -> Refusal {
    Refusal::schema(format!(
        "Required property {name} is missing from data object of type {owner}\n\nwhile parsing \
         serialized DataObject of type {owner}"
    ))
}

fn append<'a>(text: &mut Text<'a>, part: Text<'a>) {
    if text.is_empty() {
        *text = part;
    } else {
        text.to_mut().push_str(&part);
    }
}
