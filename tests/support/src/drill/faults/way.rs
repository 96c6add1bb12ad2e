//! The way to the database, or to the vCenter, fails: it is reset, stands still, or ends after so many bytes.

use super::super::Error;
use super::super::random::Random;
use super::super::slot::Slot;
use super::super::stage::Stage;
use super::{MEET, provoke};
use crate::proxy::{Direction, Proxy, Weather};

/// Which way, and how far what is left to chance goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    of: fn(&Slot) -> &Proxy,
    /// From what provokes it, or between two resets, ms.
    after: u64,
    /// Of a way that stands still, ms.
    still: u64,
    /// Of a hundred cuts, those of what the collector sends.
    up: u64,
    /// Before a cut.
    bytes: u64,
}

pub(super) const DATABASE: Way = Way {
    of: |slot| &slot.database,
    after: 1_500,
    still: 12_000,
    up: 60,
    bytes: 8_000,
};

pub(super) const VCENTER: Way = Way {
    of: |slot| &slot.vcenter,
    after: 1_000,
    still: 8_000,
    up: 30,
    bytes: 12_000,
};

pub(super) async fn reset(stage: &mut Stage, dice: &mut Random, way: Way) -> Result<String, Error> {
    let after = dice.millis(0, way.after);
    let times = dice.between(1, 4);
    let when = provoke(stage, dice).await?;
    for _ in 0..times {
        tokio::time::sleep(after).await;
        (way.of)(stage.holder()).reset_all();
    }
    Ok(format!("{times} times, every {} ms, {when}", after.as_millis()))
}

pub(super) async fn stalled(stage: &mut Stage, dice: &mut Random, way: Way) -> Result<String, Error> {
    let after = dice.millis(0, way.after);
    let time = dice.millis(2_000, way.still);
    let when = provoke(stage, dice).await?;
    tokio::time::sleep(after).await;
    (way.of)(stage.holder()).set_weather(Weather {
        stalled: true,
        ..Weather::default()
    });
    tokio::time::sleep(time).await;
    Ok(format!(
        "for {} ms, {} ms {when}",
        time.as_millis(),
        after.as_millis()
    ))
}

pub(super) async fn cut(stage: &mut Stage, dice: &mut Random, way: Way) -> Result<String, Error> {
    let direction = if dice.chance(way.up) {
        Direction::Up
    } else {
        Direction::Down
    };
    let bytes = dice.between(1, way.bytes);
    let before = (way.of)(stage.holder()).counts().cut_bytes;
    (way.of)(stage.holder()).cut_after(direction, bytes);
    let when = provoke(stage, dice).await?;
    // What flows in a poll may be less; renewals, looks at the health and the next polls add to it.
    let cut = tokio::time::timeout(
        MEET / 2,
        stage.met("a cut", |stage| {
            (way.of)(stage.holder()).counts().cut_bytes > before
        }),
    );
    let far = cut.await.is_err();
    Ok(format!(
        "after {bytes} bytes {direction:?}, {when}{}",
        if far { ", never reached" } else { "" }
    ))
}
