//! How many entities go into one request: halved when the server finds a request too much, grown back slowly.

/// The size, between one and what is configured.
#[derive(Debug, Clone, Copy)]
pub struct BatchSize {
    now: usize,
    most: usize,
}

impl BatchSize {
    /// Starts at the configured size.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { now: most, most }
    }

    /// Entities per request.
    #[must_use]
    pub const fn get(self) -> usize {
        self.now
    }

    /// The server found `asked` entities too much (time-out, HTTP 500, RestrictedByAdministrator). Several requests
    /// of one poll fail together; only the first of them halves.
    pub fn shrink(&mut self, asked: usize) {
        if asked <= self.now {
            self.now = (asked / 2).max(1);
        }
    }

    /// A whole poll went well: a tenth more, so that a server that failed once is not asked for everything at once.
    pub fn grow(&mut self) {
        self.now = (self.now + self.now.div_ceil(10)).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_halves_at_once_per_poll_and_grows_back_slowly() {
        let mut size = BatchSize::new(100);
        size.shrink(100);
        size.shrink(100);
        assert_eq!(size.get(), 50);
        size.grow();
        assert_eq!(size.get(), 55);
        for _ in 0..20 {
            size.grow();
        }
        assert_eq!(size.get(), 100);
        for _ in 0..20 {
            size.shrink(size.get());
        }
        assert_eq!(size.get(), 1);
    }
}
