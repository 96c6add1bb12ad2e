//! Which collectors run, and how they share platforms.
//!
//! Owns: `virt_collector`, and the rule of the fair share ([`Collectors::standing`]). Never does: announcing in time;
//! that is the collector's loop, every 10 s.
//!
//! Invariant: sharing only says who tries. Whatever two collectors believe of each other, the lease alone decides who
//! owns ([`crate::store::lease`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::types::Type;

use crate::store::connect::Database;
use crate::store::error::Error;
use crate::store::lease::{LEASE_TTL, Owner, timely};

/// Says whether the announcement before this one had run out. Rows of the dead are kept for a day, to be looked at.
const ANNOUNCE: &str = "\
WITH before AS (
    SELECT until <= clock_timestamp() AS had_run_out FROM virt_collector WHERE owner = $1
), cleared AS (
    DELETE FROM virt_collector WHERE owner <> $1 AND until < clock_timestamp() - INTERVAL '1 day'
), announced AS (
    INSERT INTO virt_collector (owner, host_name, platforms, until)
    VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
    ON CONFLICT (owner) DO UPDATE
    SET host_name = excluded.host_name, platforms = excluded.platforms, until = excluded.until
)
SELECT coalesce((SELECT had_run_out FROM before), FALSE)";

const WITHDRAW: &str = "DELETE FROM virt_collector WHERE owner = $1";

const LIVE: &str = "SELECT owner, platforms FROM virt_collector WHERE until > clock_timestamp()";

const LEASES: &str = "\
SELECT platform.name, lease.owner, lease.until > clock_timestamp()
FROM virt_platform_lease AS lease JOIN virt_platform AS platform USING (platform_id)";

/// What a platform counts in the sum of a share; every number of collectors up to 16 divides it.
const WHOLE: usize = 720_720;

impl Database {
    /// Makes this collector count as running for another [`LEASE_TTL`]. True where it had not counted any more, so
    /// that others may have taken what was its.
    ///
    /// # Errors
    /// When the database cannot be asked in time.
    pub async fn announce_collector(
        &self,
        owner: &Owner,
        host_name: &str,
        platforms: &BTreeSet<String>,
    ) -> Result<bool, Error> {
        const ATTEMPT: &str = "announce this collector";
        let platforms: Vec<&str> = platforms.iter().map(String::as_str).collect();
        timely(ATTEMPT, async {
            let connection = self.checkout_now(ATTEMPT).await?;
            let announced = connection
                .query_opt(
                    ANNOUNCE,
                    &[
                        (&owner.as_str(), Type::TEXT),
                        (&host_name, Type::TEXT),
                        (&platforms, Type::TEXT_ARRAY),
                        (&LEASE_TTL.as_secs_f64(), Type::FLOAT8),
                    ],
                )
                .await?;
            let had_run_out = announced.map_or(Ok(false), |row| connection.read(&row, 0))?;
            connection.done();
            Ok(had_run_out)
        })
        .await
    }

    /// Makes this collector count as running no longer, so that others may take its share at once.
    ///
    /// # Errors
    /// When the database cannot be asked in time; its announcement then runs out by itself.
    pub async fn withdraw_collector(&self, owner: &Owner) -> Result<(), Error> {
        const ATTEMPT: &str = "withdraw this collector";
        timely(ATTEMPT, async {
            let connection = self.checkout_now(ATTEMPT).await?;
            connection
                .execute(WITHDRAW, &[(&owner.as_str(), Type::TEXT)])
                .await?;
            connection.done();
            Ok(())
        })
        .await
    }

    /// Who runs, and who holds what.
    ///
    /// # Errors
    /// When the database cannot be asked in time.
    pub async fn collectors(&self) -> Result<Collectors, Error> {
        const ATTEMPT: &str = "read which collectors run";
        timely(ATTEMPT, async {
            let connection = self.checkout_now(ATTEMPT).await?;
            let mut collectors = Collectors::default();
            for row in connection.query(LIVE, &[]).await? {
                let platforms: Vec<String> = connection.read(&row, 1)?;
                collectors
                    .live
                    .insert(connection.read(&row, 0)?, platforms.into_iter().collect());
            }
            for row in connection.query(LEASES, &[]).await? {
                let tenure = Tenure {
                    owner: connection.read(&row, 1)?,
                    valid: connection.read(&row, 2)?,
                };
                collectors.leases.insert(connection.read(&row, 0)?, tenure);
            }
            connection.done();
            Ok(collectors)
        })
        .await
    }
}

/// The collectors of one database, as of one look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collectors {
    /// Those that run, and the platforms that each of them has in its configuration.
    pub live: BTreeMap<String, BTreeSet<String>>,
    /// Who holds or held each platform that was ever taken.
    pub leases: HashMap<String, Tenure>,
}

/// A platform's lease, as of one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    /// Who took it last.
    pub owner: String,
    /// False once it was given up or has run out.
    pub valid: bool,
}

/// What one collector should do about leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Platforms to take.
    pub take: BTreeSet<String>,
    /// The platform to hand over to a collector that has too few.
    pub give: Option<String>,
    /// How many platforms are this collector's fair share.
    pub share: usize,
    /// Collectors that run, this one included.
    pub n_live: usize,
}

impl Collectors {
    /// What the collector `me`, configured with the platforms `mine`, should do.
    ///
    /// - The fair share: of a platform that k running collectors have configured, each is due one k-th. The sum,
    ///   rounded up, is ceil(platforms / collectors) where all have the same ones.
    /// - A free platform is for those who hold less than their share; where no other such collector has it
    ///   configured, it is for anybody, so that none stays without owner.
    /// - Who holds more than its share gives one platform away at a time, and only to a collector that holds less
    ///   than its own and finds nothing free. Each such move makes the excess smaller, so nothing moves to and fro.
    #[must_use]
    pub fn standing(&self, me: &Owner, mine: &BTreeSet<String>) -> Standing {
        let me = me.as_str();
        let mut live: BTreeMap<&str, &BTreeSet<String>> = self
            .live
            .iter()
            .map(|(owner, platforms)| (owner.as_str(), platforms))
            .collect();
        live.insert(me, mine);
        let n_candidates = |platform: &String| live.values().filter(|has| has.contains(platform)).count();
        let share_of = |platforms: &BTreeSet<String>| {
            let parts = platforms
                .iter()
                .map(|platform| WHOLE / n_candidates(platform).max(1));
            parts.sum::<usize>().div_ceil(WHOLE)
        };
        let room: BTreeMap<&str, usize> = live
            .iter()
            .map(|(owner, platforms)| (*owner, share_of(platforms).saturating_sub(self.n_held(owner))))
            .collect();
        let has_room = |owner: &str| room.get(owner).is_some_and(|room| *room > 0);
        let others = || live.iter().filter(|(owner, _)| **owner != me);

        let share = share_of(mine);
        let give = mine
            .iter()
            .rev()
            .filter(|_| self.n_held(me) > share)
            .find(|platform| {
                self.is_held(platform, me)
                    && others().any(|(owner, has)| {
                        has_room(owner)
                            && has.contains(*platform)
                            && !has.iter().any(|other| self.is_free(other))
                    })
            });

        let mut free: Vec<&String> = mine.iter().filter(|platform| self.is_free(platform)).collect();
        // Those that nobody else can take come first; for the others each collector has an order of its own, so
        // that two that start together do not try the same ones.
        free.sort_by_cached_key(|platform| (n_candidates(platform) > 1, order(me, platform)));
        let my_room = room.get(me).copied().unwrap_or_default();
        let due = free.iter().enumerate().filter(|(rank, platform)| {
            *rank < my_room || !others().any(|(owner, has)| has_room(owner) && has.contains(**platform))
        });
        // What is mine by the lease is mine, also after an end that could not give it up.
        let kept = mine.iter().filter(|platform| self.is_held(platform, me));
        Standing {
            take: due
                .map(|(_, platform)| *platform)
                .chain(kept)
                .filter(|platform| Some(*platform) != give)
                .cloned()
                .collect(),
            give: give.cloned(),
            share,
            n_live: live.len(),
        }
    }

    /// As [`Collectors::standing`], for one that could not announce itself in time: it takes only what was its own.
    /// While nobody could reach the database every lease ran out, and who comes back first must not take them all.
    #[must_use]
    pub fn standing_after_absence(&self, me: &Owner, mine: &BTreeSet<String>) -> Standing {
        let mut standing = self.standing(me, mine);
        standing.take.retain(|platform| {
            self.leases
                .get(platform)
                .is_some_and(|tenure| tenure.owner == me.as_str())
        });
        standing
    }

    fn n_held(&self, owner: &str) -> usize {
        self.leases
            .values()
            .filter(|tenure| tenure.valid && tenure.owner == owner)
            .count()
    }

    fn is_held(&self, platform: &str, owner: &str) -> bool {
        self.leases
            .get(platform)
            .is_some_and(|tenure| tenure.valid && tenure.owner == owner)
    }

    fn is_free(&self, platform: &str) -> bool {
        self.leases.get(platform).is_none_or(|tenure| !tenure.valid)
    }
}

/// FNV-1a of both names: any order will do that differs between collectors.
fn order(owner: &str, platform: &str) -> u64 {
    owner
        .bytes()
        .chain(platform.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        names.into_iter().map(str::to_owned).collect()
    }

    fn owner(name: &str) -> Owner {
        Owner::new(name).unwrap()
    }

    /// Collectors with what they have configured, and who holds what.
    fn collectors(live: &[(&str, &[&str])], leases: &[(&str, &str)]) -> Collectors {
        let tenure = |owner: &str| Tenure {
            owner: owner.to_owned(),
            valid: true,
        };
        Collectors {
            live: live
                .iter()
                .map(|(owner, has)| ((*owner).to_owned(), names(has.iter().copied())))
                .collect(),
            leases: leases
                .iter()
                .map(|(platform, owner)| ((*platform).to_owned(), tenure(owner)))
                .collect(),
        }
    }

    fn standing(seen: &Collectors, me: &str) -> Standing {
        let mine = seen.live.get(me).cloned().unwrap_or_default();
        seen.standing(&owner(me), &mine)
    }

    const FIVE: &[&str] = &["p1", "p2", "p3", "p4", "p5"];

    #[test]
    fn a_single_collector_takes_everything_at_once_announced_or_not() {
        let all = names(FIVE.iter().copied());
        for seen in [collectors(&[("a", FIVE)], &[]), Collectors::default()] {
            let standing = seen.standing(&owner("a"), &all);
            assert_eq!((&standing.take, standing.give, standing.share), (&all, None, 5));
        }
    }

    #[test]
    fn two_that_start_together_take_their_share_and_one_above_it_gives_the_last_name() {
        let seen = collectors(&[("a", FIVE), ("b", FIVE)], &[]);
        assert_eq!(
            (standing(&seen, "a").take.len(), standing(&seen, "b").take.len()),
            (3, 3)
        );
        let all = [("p1", "a"), ("p2", "a"), ("p3", "a"), ("p4", "a"), ("p5", "a")];
        let mut seen = collectors(&[("a", FIVE), ("b", FIVE)], &all);
        let above = standing(&seen, "a");
        assert_eq!(above.give.as_deref(), Some("p5"));
        assert_eq!(
            above.take,
            names(["p1", "p2", "p3", "p4"]),
            "what it holds but gives"
        );
        assert_eq!(standing(&seen, "b").take, names([]));

        // Given up, not yet taken: nobody but the other may take it, and nothing else moves.
        seen.leases.get_mut("p5").unwrap().valid = false;
        let above = standing(&seen, "a");
        assert_eq!((above.give, above.take.contains("p5")), (None, false));
        assert_eq!(standing(&seen, "b").take, names(["p5"]));
    }

    #[test]
    fn none_stays_free_for_lack_of_a_share_and_what_only_one_has_configured_is_its_own() {
        let seen = collectors(
            &[("a", &["p1", "p2"]), ("b", &["p2", "p3"]), ("c", &["p3", "p1"])],
            &[("p1", "a"), ("p3", "b")],
        );
        // Both who have p2 hold their share; c, who holds nothing, cannot have it.
        assert_eq!(standing(&seen, "a").take, names(["p1", "p2"]));
        let apart = collectors(&[("a", FIVE), ("b", &["q1", "q2"])], &[]);
        assert_eq!(standing(&apart, "a").take.len(), 5);
        assert_eq!(standing(&apart, "b").take.len(), 2);
    }

    #[test]
    fn after_an_absence_only_what_was_ones_own_is_taken() {
        let mut seen = collectors(&[("a", FIVE)], &[("p1", "a"), ("p2", "b")]);
        for tenure in seen.leases.values_mut() {
            tenure.valid = false;
        }
        let all = names(FIVE.iter().copied());
        assert_eq!(seen.standing_after_absence(&owner("a"), &all).take, names(["p1"]));
        assert_eq!(seen.standing(&owner("a"), &all).take, all);
    }

    /// Collectors come, stop and are killed; each looks at what all of them saw at the start of the round.
    #[derive(Debug, Default)]
    struct World {
        seen: Collectors,
        n_moves: usize,
    }

    impl World {
        fn round(&mut self) -> bool {
            let before = self.seen.clone();
            for (name, mine) in &before.live {
                let standing = before.standing(&owner(name), mine);
                for platform in standing.take {
                    let tenure = Tenure {
                        owner: name.clone(),
                        valid: true,
                    };
                    // The lease goes to the first.
                    if self.seen.leases.get(&platform).is_none_or(|lease| !lease.valid) {
                        self.seen.leases.insert(platform, tenure);
                    }
                }
                if let Some(platform) = standing.give {
                    self.n_moves += 1;
                    self.free(&platform);
                }
            }
            before != self.seen
        }

        fn free(&mut self, platform: &str) {
            if let Some(lease) = self.seen.leases.get_mut(platform) {
                lease.valid = false;
            }
        }

        fn leave(&mut self, name: &str) {
            self.seen.live.remove(name);
            for lease in self.seen.leases.values_mut().filter(|lease| lease.owner == name) {
                lease.valid = false;
            }
        }
    }

    fn settle(world: &mut World) {
        let n_rounds = (0..100).take_while(|_| world.round()).count();
        assert!(n_rounds < 100, "it never comes to rest: {world:?}");
        for (name, has) in &world.seen.live {
            for platform in has {
                let lease = world.seen.leases.get(platform);
                assert!(
                    lease.is_some_and(|lease| lease.valid && world.seen.live.contains_key(&lease.owner)),
                    "{platform}, which {name} has configured, has no owner: {world:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn whoever_comes_and_goes_each_platform_finds_one_owner_and_comes_to_rest(
            configured in prop::collection::vec(prop::collection::btree_set(0..8_u8, 0..=8), 1..5),
            events in prop::collection::vec((0..5_usize, any::<bool>(), 0..6_usize), 0..12),
        ) {
            let configured: Vec<(String, BTreeSet<String>)> = configured
                .into_iter()
                .enumerate()
                .map(|(n, has)| (format!("c{n}"), has.into_iter().map(|p| format!("p{p}")).collect()))
                .collect();
            let mut world = World::default();
            for (n, comes, n_rounds) in events {
                let Some((name, has)) = configured.get(n % configured.len()) else { continue };
                if comes {
                    world.seen.live.insert(name.clone(), has.clone());
                } else {
                    world.leave(name);
                }
                for _ in 0..n_rounds {
                    world.round();
                }
            }
            world.seen.live.extend(configured);
            settle(&mut world);
        }

        #[test]
        fn with_the_same_platforms_everywhere_nobody_exceeds_the_share_and_nothing_moves_twice(
            n_platforms in 1..20_usize,
            joins in 1..6_usize,
            leaves in 0..5_usize,
        ) {
            let all: BTreeSet<String> = (0..n_platforms).map(|n| format!("p{n:02}")).collect();
            let mut world = World::default();
            let check = |world: &World| {
                let share = n_platforms.div_ceil(world.seen.live.len());
                for name in world.seen.live.keys() {
                    assert!(world.seen.n_held(name) <= share, "{name}: {world:?}");
                }
            };
            for n in 0..joins {
                let excess: usize = world.seen.live.keys().map(|name| {
                    world.seen.n_held(name).saturating_sub(n_platforms.div_ceil(n + 1))
                }).sum();
                world.seen.live.insert(format!("c{n}"), all.clone());
                world.n_moves = 0;
                settle(&mut world);
                prop_assert_eq!(world.n_moves, excess);
                check(&world);
            }
            for n in 0..leaves.min(joins - 1) {
                world.leave(&format!("c{n}"));
                world.n_moves = 0;
                settle(&mut world);
                prop_assert_eq!(world.n_moves, 0, "a free platform needs no hand-over");
                check(&world);
            }
        }
    }
}
