//! From where to ask: the live lane's start for one entity.
//!
//! Invariant: a query never starts after the entity's own watermark, so that nothing between two polls is skipped;
//! where the watermark is too old to be reached in one poll, the step it leaves becomes a gap row with the first row
//! that is stored. How old it is says nothing of an entity that was asked for just now: its clock may be behind the
//! server's by as much.

use std::time::Duration;

use crate::ingest::chain::ServerTime;
use crate::units::Stamp;

/// Live look-back: within it one query covers everything since the watermark, whatever was late or missed.
const LEAST_LOOK_BACK: Duration = Duration::from_secs(5 * 60);

/// Polls that may fail before the live lane leaves their samples to the ring lane.
const LOOK_BACK_POLLS: u32 = 3;

/// How far the live lane looks back at this poll interval.
#[must_use]
pub fn look_back(interval: Duration) -> Duration {
    LEAST_LOOK_BACK.max(interval.saturating_mul(LOOK_BACK_POLLS))
}

/// The exclusive start of a live query. The watermark is in the source's own clock, so that no clock offset enters;
/// the server's time serves only entities without one, and as the bound of the look-back. `is_followed`: an answer for the
/// entity was stored within the look-back, so that little can have come since.
#[must_use]
pub fn live_start(watermark: Option<Stamp>, is_followed: bool, at: ServerTime, look_back: Duration) -> Stamp {
    let fresh = at.0.minus(look_back);
    match watermark {
        Some(watermark) if is_followed || watermark >= fresh => watermark,
        // That answer held nothing: by the server's clock, what the entity has may be hours old.
        None if is_followed => at.oldest(),
        _ => fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    #[test]
    fn a_reachable_watermark_is_the_start_and_an_old_one_is_left_to_the_ring_lane() {
        let now = Stamp::from_seconds(10_000);
        let start = |watermark| live_start(watermark, false, ServerTime(now), look_back(INTERVAL));
        let recent = Stamp::from_seconds(9_800);
        assert_eq!(start(Some(recent)), recent);
        assert_eq!(
            start(Some(Stamp::from_seconds(9_700))),
            Stamp::from_seconds(9_700)
        );
        assert_eq!(
            start(Some(Stamp::from_seconds(9_699))),
            Stamp::from_seconds(9_700)
        );
        assert_eq!(start(None), Stamp::from_seconds(9_700));
    }

    #[test]
    fn of_one_that_was_just_asked_for_the_age_of_its_newest_sample_says_nothing() {
        let now = Stamp::from_seconds(10_000);
        let start = |watermark| live_start(watermark, true, ServerTime(now), look_back(INTERVAL));
        let old = Stamp::from_seconds(5_000);
        assert_eq!(start(Some(old)), old);
        assert_eq!(start(None), ServerTime(now).oldest());
    }

    #[test]
    fn slow_polls_look_back_three_intervals() {
        assert_eq!(look_back(Duration::from_secs(20)), Duration::from_secs(300));
        assert_eq!(look_back(Duration::from_secs(300)), Duration::from_secs(900));
    }
}
