//! Reads along what a PostgreSQL client sends, as far as needed to see a COPY and a COMMIT.
//!
//! Owns: message borders in the stream, wherever it was cut. Never does: keeping more than the beginning of a
//! message, or understanding TLS: a connection that starts it is led through unread.

/// What flows through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes.
    Opaque,
    /// PostgreSQL's protocol, version 3, without TLS.
    Postgres,
}

/// Bytes of a message that are looked at: type, length and the longest text that matters.
const HEAD: usize = 64;

/// Something that matters, and where in the chunk its message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The first data of a COPY.
    Copy {
        /// Index behind its last byte in this chunk.
        end: usize,
    },
    /// A whole COMMIT. With the extended protocol, the Sync behind it.
    Commit {
        /// Index of its first byte in this chunk, 0 if it began in an earlier one.
        start: usize,
        /// Index behind its last byte.
        end: usize,
        /// The transaction held a COPY.
        rows: bool,
    },
}

/// State of one client's stream.
#[derive(Debug)]
pub(super) struct Inspector {
    /// No message has a type before the first one is answered.
    starting: bool,
    blind: bool,
    head: Vec<u8>,
    /// Bytes of the present message still to come, once its head is known.
    left: Option<usize>,
    started_here: usize,
    copying: bool,
    rows: bool,
    /// A COMMIT was parsed and waits for its Sync; where it began in this chunk.
    pending: Option<usize>,
}

impl Inspector {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self {
            starting: true,
            blind: protocol == Protocol::Opaque,
            head: Vec::with_capacity(HEAD),
            left: None,
            started_here: 0,
            copying: false,
            rows: false,
            pending: None,
        }
    }

    /// Reads one chunk.
    pub(super) fn read(&mut self, chunk: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        self.started_here = 0;
        if self.pending.is_some() {
            self.pending = Some(0);
        }
        let mut at = 0;
        while !self.blind {
            let rest = chunk.get(at..).unwrap_or_default();
            let wanted = self.wanted();
            let taken = wanted.min(rest.len());
            let bytes = rest.get(..taken).unwrap_or_default();
            let room = HEAD.saturating_sub(self.head.len());
            self.head
                .extend_from_slice(bytes.get(..room.min(taken)).unwrap_or_default());
            at += taken;
            if let Some(left) = &mut self.left {
                *left -= taken;
            }
            if taken < wanted {
                break;
            }
            match self.left {
                None => self.left = self.length(),
                Some(_) => {
                    events.extend(self.message(at));
                    self.head.clear();
                    self.left = None;
                    self.started_here = at;
                }
            }
        }
        events
    }

    /// Bytes up to the next thing to know.
    fn wanted(&self) -> usize {
        let header = if self.starting { 4 } else { 5 };
        self.left.unwrap_or_else(|| header - self.head.len())
    }

    /// Bytes that follow the header of which all is there now.
    fn length(&mut self) -> Option<usize> {
        let skipped = usize::from(!self.starting);
        let bytes = self.head.get(skipped..)?.first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*bytes)).ok()?;
        // A length counts itself. What is shorter, or longer than a server takes, is no such message.
        let most = if self.starting { 10_000 } else { 1 << 30 };
        match length.checked_sub(4).filter(|left| *left < most) {
            Some(left) => Some(left),
            None => {
                self.blind = true;
                Some(0)
            }
        }
    }

    /// A whole message is over.
    fn message(&mut self, end: usize) -> Option<Event> {
        if self.starting {
            const TLS: [u8; 4] = 80_877_103_u32.to_be_bytes();
            const GSS: [u8; 4] = 80_877_104_u32.to_be_bytes();
            let code = self.head.get(4..8);
            if code == Some(TLS.as_slice()) || code == Some(GSS.as_slice()) {
                // Either the same again in plain text, or TLS, of which nothing can be seen.
                return None;
            }
            self.starting = false;
            return None;
        }
        let body = self.head.get(5..).unwrap_or_default();
        match self.head.first() {
            Some(b'd') if !self.copying => {
                self.copying = true;
                self.rows = true;
                return Some(Event::Copy { end });
            }
            Some(b'c' | b'f') => self.copying = false,
            Some(b'Q') if is_commit(body) => return Some(self.commit(self.started_here, end)),
            Some(b'P') => {
                let query = body.split(|byte| *byte == 0).nth(1).unwrap_or_default();
                if is_commit(query) {
                    self.pending = Some(self.started_here);
                }
            }
            Some(b'S') => {
                if let Some(start) = self.pending.take() {
                    return Some(self.commit(start, end));
                }
            }
            _ => {}
        }
        None
    }

    fn commit(&mut self, start: usize, end: usize) -> Event {
        Event::Commit {
            start,
            end,
            rows: std::mem::take(&mut self.rows),
        }
    }
}

fn is_commit(query: &[u8]) -> bool {
    let ended = query.strip_suffix(b"\0").unwrap_or(query).trim_ascii();
    let word = ended.strip_suffix(b";").unwrap_or(ended).trim_ascii_end();
    word.eq_ignore_ascii_case(b"COMMIT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn startup() -> Vec<u8> {
        let body = b"\0\x03\0\0user\0me\0\0";
        let mut bytes = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
        bytes.extend(body);
        bytes
    }

    fn conversation() -> Vec<u8> {
        let mut all = startup();
        all.extend(message(b'Q', b"BEGIN\0"));
        all.extend(message(b'Q', b"COPY t FROM STDIN\0"));
        all.extend(message(b'd', &[0; 300]));
        all.extend(message(b'd', &[0; 300]));
        all.extend(message(b'c', b""));
        all.extend(message(b'Q', b"commit;\0"));
        all.extend(message(b'P', b"\0COMMIT\0\0\0"));
        all.extend(message(b'B', b"\0\0"));
        all.extend(message(b'S', b""));
        all.extend(message(b'Q', b"SELECT 'COMMIT'\0"));
        all
    }

    #[test]
    fn commits_and_copies_are_seen_wherever_the_stream_is_cut() {
        let all = conversation();
        let mut whole = Inspector::new(Protocol::Postgres);
        let events = whole.read(&all);
        let [copy, first, second] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert!(matches!(copy, Event::Copy { .. }));
        let Event::Commit { start, end, rows } = *first else {
            panic!("{first:?}")
        };
        assert_eq!(
            (&all[start..end], rows),
            (message(b'Q', b"commit;\0").as_slice(), true)
        );
        assert!(matches!(second, Event::Commit { rows: false, .. }));

        for size in [1, 2, 3, 7, 64, 311] {
            let mut inspector = Inspector::new(Protocol::Postgres);
            let mut found = Vec::new();
            for (number, chunk) in all.chunks(size).enumerate() {
                for event in inspector.read(chunk) {
                    let (Event::Copy { end } | Event::Commit { end, .. }) = event;
                    found.push(number * size + end);
                }
            }
            let expected: Vec<usize> = events
                .iter()
                .map(|event| match event {
                    Event::Copy { end } | Event::Commit { end, .. } => *end,
                })
                .collect();
            assert_eq!(found, expected, "chunks of {size}");
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_led_through_unread() {
        let mut tls = 8_u32.to_be_bytes().to_vec();
        tls.extend(80_877_103_u32.to_be_bytes());
        let mut inspector = Inspector::new(Protocol::Postgres);
        assert!(inspector.read(&tls).is_empty());
        assert!(inspector.read(&[0x16, 3, 1, 0xFF, 0xFF, 0xFF]).is_empty());
        assert!(inspector.blind);
        assert!(Inspector::new(Protocol::Opaque).read(&conversation()).is_empty());
    }
}
