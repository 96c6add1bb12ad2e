//! Writing requests: escaped, and never with a character that XML forbids.

use std::fmt;

/// A text that XML 1.0 cannot carry, not even escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("<{element}> would hold the control character U+{:04X}, which XML cannot carry; remove it", u32::from(*character))]
pub struct IllegalText {
    element: &'static str,
    character: char,
}

/// An XML document under construction. The first illegal text is remembered and reported by
/// [`finish`](Self::finish), so that building reads as a list of elements.
pub(crate) struct Writer {
    out: String,
    open: Vec<&'static str>,
    illegal: Option<IllegalText>,
}

/// Requests hold the password: not shown.
impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("bytes", &self.out.len())
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// An empty document with room for `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            out: String::with_capacity(bytes),
            open: Vec::new(),
            illegal: None,
        }
    }

    /// Opens an element.
    pub(crate) fn open(&mut self, name: &'static str) -> &mut Self {
        self.open_with(name, &[])
    }

    /// Opens an element with attributes.
    pub(crate) fn open_with(&mut self, name: &'static str, attributes: &[(&str, &str)]) -> &mut Self {
        self.out.push('<');
        self.out.push_str(name);
        for (attribute, value) in attributes {
            self.out.push(' ');
            self.out.push_str(attribute);
            self.out.push_str("=\"");
            self.push_escaped(name, value);
            self.out.push('"');
        }
        self.out.push('>');
        self.open.push(name);
        self
    }

    /// Closes the element opened last.
    pub(crate) fn close(&mut self) -> &mut Self {
        if let Some(name) = self.open.pop() {
            self.out.push_str("</");
            self.out.push_str(name);
            self.out.push('>');
        }
        self
    }

    /// An element with a text.
    pub(crate) fn text(&mut self, name: &'static str, text: &str) -> &mut Self {
        self.open(name);
        self.push_escaped(name, text);
        self.close()
    }

    /// A managed object reference.
    pub(crate) fn object(&mut self, name: &'static str, kind: &str, moref: &str) -> &mut Self {
        self.open_with(name, &[("type", kind)]);
        self.push_escaped(name, moref);
        self.close()
    }

    /// A part that was written by this writer before, as it is.
    pub(crate) fn raw(&mut self, part: &str) -> &mut Self {
        self.out.push_str(part);
        self
    }

    /// Closes what is open and hands the document over.
    ///
    /// # Errors
    /// When a text held a character that XML forbids.
    pub(crate) fn finish(mut self) -> Result<String, IllegalText> {
        while !self.open.is_empty() {
            self.close();
        }
        match self.illegal {
            Some(illegal) => Err(illegal),
            None => Ok(self.out),
        }
    }

    fn push_escaped(&mut self, element: &'static str, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                // A parser would turn these into a plain space or newline.
                '\r' => self.out.push_str("&#13;"),
                '\n' => self.out.push_str("&#10;"),
                '\t' => self.out.push_str("&#9;"),
                '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                    self.illegal.get_or_insert(IllegalText { element, character });
                }
                _ => self.out.push(character),
            }
        }
    }
}
