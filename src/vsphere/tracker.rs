//! Change tracking of one platform: what there is, and then what changes.
//!
//! Owns: a collector, a view and a filter in one session, and the [`Mirror`] that they keep. Never does: starting
//! anew by itself. All of it is gone with the session, and a wait whose answer was lost may have taken changes with
//! it: after any failure the tracker is dropped, and a new one reads everything again.
//!
//! Its calls hold no lock of the server's: a wait has a collector of its own, and others go on in the same session.

use std::time::Duration;

use super::Error;
use super::mirror::{Changes, Mirror, Reading};
use super::objects::{self, SILENT, TYPES};
use crate::budget::{Permit, Share};
use crate::soap::Object;
use crate::soap::error::SessionLost as _;
use crate::soap::fault::FaultKind;
use crate::soap::methods::changes::Told;
use crate::soap::methods::properties::From;
use crate::soap::methods::{self, changes, properties};
use crate::soap::pool::Pinned;

/// Answers of one look. Each has a hundred objects or so: a million in all.
const ANSWERS_LIMIT: usize = 10_000;

/// Objects of an answer that is waited for. The wait takes no permit, which it would hold for as long as nothing
/// changes: it is told little, and what is left is asked for at once, with a permit.
const WAIT_OBJECTS: usize = 10;

/// Bytes of such an answer: ten VMs with a hundred devices each are a quarter of it.
const WAIT_BYTES: usize = 1024 * 1024;

/// A cancellation that comes before its wait does nothing and is repeated.
const CANCEL_AGAIN: Duration = Duration::from_millis(250);

/// One platform's objects, followed.
#[derive(Debug)]
pub struct Tracker {
    session: Pinned,
    collector: Object,
    view: Object,
    version: String,
    /// Most objects of one answer.
    most_objects: usize,
    /// For answers that may be large.
    share: Option<Share>,
    mirror: Mirror,
}

impl Tracker {
    /// Reads everything; from then on changes are told. The caller has a permit for a page meanwhile. With `attributes`
    /// the custom attributes of VMs are read, too.
    pub(super) async fn start(
        session: Pinned,
        share: Option<Share>,
        attributes: bool,
    ) -> Result<Self, Error> {
        let mut sizes = changes::PAGE_OBJECTS.into_iter().peekable();
        loop {
            let most_objects = sizes.next().unwrap_or(1);
            match Self::read_all(session.clone(), share.clone(), attributes, most_objects).await {
                Err(error) if error.is_too_large() && sizes.peek().is_some() => {}
                result => return result,
            }
        }
    }

    async fn read_all(
        session: Pinned,
        share: Option<Share>,
        attributes: bool,
        most_objects: usize,
    ) -> Result<Self, Error> {
        let root = &session.content().root_folder;
        let view = methods::create_container_view(&session, root, &TYPES).await?;
        let collector = changes::create_collector(&session).await?;
        let mut tracker = Self {
            session,
            collector,
            view,
            version: String::new(),
            most_objects,
            share,
            mirror: Mirror::default(),
        };
        let read = async {
            tracker.filter(attributes).await?;
            tracker.drain(&mut Changes::default()).await?;
            tracker.read_silent().await
        };
        match read.await {
            Ok(_all) => Ok(tracker),
            Err(error) => {
                // What it has on the server would be in the way of the next try.
                if error.is_too_large() {
                    tracker.stop().await;
                }
                Err(error)
            }
        }
    }

    async fn filter(&self, attributes: bool) -> Result<(), Error> {
        let (session, collector) = (&self.session, &self.collector);
        // An ESXi host has no custom attributes.
        let fields = session.content().custom_fields_manager.as_ref();
        let fields = fields.filter(|_| attributes);
        if let Some(fields) = fields {
            changes::create_filter(session, collector, From::Object(fields), &[objects::FIELDS]).await?;
        }
        let wanted = objects::tracked(fields.is_some());
        changes::create_filter(session, collector, From::View(&self.view), &wanted).await?;
        Ok(())
    }

    /// The objects.
    #[must_use]
    pub const fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Says what has changed, as soon as something has; without any change after `longest`, or when `interrupted`
    /// comes first, an empty one. Whole seconds count.
    ///
    /// # Errors
    /// When a call fails: the tracker is of no use any more.
    pub async fn wait(
        &mut self,
        longest: Duration,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Changes, Error> {
        let Self {
            session,
            collector,
            version,
            most_objects,
            mirror,
            ..
        } = self;
        let longest = longest.max(Duration::from_secs(1));
        let mut found = Changes::default();
        let mut reading = Reading::new(mirror, &mut found, false);
        let told = {
            let call = changes::wait(
                session,
                collector,
                version,
                WAIT_OBJECTS.min(*most_objects),
                WAIT_BYTES.min(session.page_bytes()),
                longest,
                &mut reading,
            );
            tokio::pin!(call);
            let early = tokio::select! {
                told = &mut call => Some(told),
                () = interrupted => None,
            };
            match early {
                Some(told) => told,
                // The answer has to be had: dropping the call could lose changes that are under way.
                None => loop {
                    changes::cancel_wait(session, collector).await?;
                    tokio::select! {
                        told = &mut call => break told,
                        () = tokio::time::sleep(CANCEL_AGAIN) => {}
                    }
                },
            }
        };
        reading.settle();
        mirror.check()?;
        let told = match told {
            Err(crate::soap::Error::Fault { fault, .. }) if fault.kind == FaultKind::RequestCanceled => None,
            told => told?,
        };
        if let Some(Told {
            version: next,
            truncated,
        }) = told
        {
            *version = next;
            if truncated {
                let _permit = self.room_for_a_page().await;
                self.drain(&mut found).await?;
            }
        }
        Ok(found)
    }

    /// Says what has changed up to now, without waiting.
    ///
    /// # Errors
    /// When a call fails: the tracker is of no use any more.
    pub async fn look(&mut self) -> Result<Changes, Error> {
        let _permit = self.room_for_a_page().await;
        let mut found = Changes::default();
        self.drain(&mut found).await?;
        Ok(found)
    }

    async fn room_for_a_page(&self) -> Option<Permit> {
        match &self.share {
            Some(share) => Some(share.reserve(self.session.page_bytes()).await),
            None => None,
        }
    }

    async fn drain(&mut self, found: &mut Changes) -> Result<(), Error> {
        for _ in 0..ANSWERS_LIMIT {
            let mut reading = Reading::new(&mut self.mirror, found, false);
            let told = changes::wait(
                &self.session,
                &self.collector,
                &self.version,
                self.most_objects,
                self.session.page_bytes(),
                Duration::ZERO,
                &mut reading,
            )
            .await?;
            reading.settle();
            self.mirror.check()?;
            let Some(told) = told else { return Ok(()) };
            self.version = told.version;
            if !told.truncated {
                return Ok(());
            }
        }
        Err(crate::soap::Error::Endless {
            method: "WaitForUpdatesEx",
            pages: ANSWERS_LIMIT,
        }
        .into())
    }

    /// Reads again what changes without a word, and says what has.
    ///
    /// # Errors
    /// When a call fails: the tracker is of no use any more.
    pub async fn reread(&mut self) -> Result<Changes, Error> {
        let _permit = self.room_for_a_page().await;
        self.read_silent().await
    }

    async fn read_silent(&mut self) -> Result<Changes, Error> {
        let mut found = Changes::default();
        let mut reading = Reading::new(&mut self.mirror, &mut found, true);
        properties::retrieve_into(&self.session, From::View(&self.view), &SILENT, &mut reading).await?;
        reading.settle();
        self.mirror.check()?;
        Ok(found)
    }

    /// Takes down what it has on the server; all of it ends with the session at the latest.
    pub async fn stop(self) {
        let collector = changes::destroy_collector(&self.session, &self.collector).await;
        for result in [collector, methods::destroy_view(&self.session, &self.view).await] {
            if let Err(error) = result {
                tracing::debug!(error = %crate::error::Chain(&error), "could not take down change tracking");
            }
        }
    }

    /// Gives up after a failure; if it means that the session is gone, whoever asks next logs in again.
    pub fn give_up(self, error: &Error) {
        if error.session_lost() {
            self.session.lost();
        }
    }
}
