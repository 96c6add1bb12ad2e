//! One question to the source, made to succeed for all entities but those that the server refuses.
//!
//! Owns: taking permits before asking, splitting and shrinking. A fault that names one entity, or a request that is
//! too much, is cut in halves until it passes or the bad entity stands alone; the others are answered. What a reply
//! lacks or holds besides is counted; entities that it lacks stay owed, since nothing moves their watermark.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::time::Instant;

use crate::budget::{Permit, Share};
use crate::error::{Chain, Disposition};
use crate::model::ids::EntityId;
use crate::model::ids::MoRef;
use crate::telemetry::metrics::PlatformMetrics;
use crate::telemetry::seldom::Seldom;
use crate::vsphere;
use crate::vsphere::Batch;
use crate::vsphere::Estimator;
use crate::vsphere::Reply;
use crate::vsphere::Target;
use crate::vsphere::Vsphere;

/// Entities that fail alone, one after the other and without any answer, before the whole question has failed.
const FAILED_ALONE: usize = 3;

/// What a lane asks with.
#[derive(Debug, Clone)]
pub struct Source {
    /// The platform.
    pub vsphere: Vsphere,
    /// Its share of the byte budget.
    pub share: Share,
    /// Counts.
    pub metrics: PlatformMetrics,
    /// Which entities were told to be left out, and when.
    pub told: Arc<Mutex<Seldom<EntityId>>>,
}

/// One answer with its place in the budget.
#[derive(Debug)]
pub struct Answer {
    /// The targets that were asked for.
    pub targets: Vec<Target>,
    /// What came back.
    pub reply: Reply,
    /// For as long as the rows are in flight.
    pub permit: Permit,
}

/// What became of a whole question.
#[derive(Debug, Default)]
pub struct Asked {
    /// Entities that the server refused alone.
    pub skipped: Vec<(Target, vsphere::Error)>,
    /// Entities that were too much for the server alone. Where others are answered they are at fault, else it is.
    pub too_much_alone: Vec<(Target, vsphere::Error)>,
    /// Requests that were answered.
    pub n_answered: usize,
    /// The smallest number of entities that was too much.
    pub too_much: Option<usize>,
    /// Why the rest was not asked for.
    pub failed: Option<vsphere::Error>,
}

impl Source {
    /// Asks for `targets`; every answer goes to `answered` as it comes.
    pub async fn ask<F: Future<Output = ()> + Send>(
        &self,
        targets: Vec<Target>,
        estimator: &Estimator<'_>,
        answered: impl Fn(Answer) -> F + Send + Sync,
    ) -> Asked {
        let mut asked = Asked::default();
        let mut parts = vec![targets];
        while let Some(targets) = parts.pop() {
            if targets.is_empty() {
                continue;
            }
            let cost = estimator.cost_of_all(&targets);
            if cost.memory_bytes() > self.share.largest() && targets.len() > 1 {
                parts.extend(halves(targets));
                continue;
            }
            let permit = self.share.reserve(cost.memory_bytes()).await;
            let cost = cost.within(permit.bytes());
            match self
                .vsphere
                .query_batch(
                    Batch {
                        targets: &targets,
                        cost,
                    },
                    estimator.interval_seconds,
                )
                .await
            {
                Ok(reply) => {
                    asked.n_answered += 1;
                    self.metrics.received(reply.counts.rows);
                    self.metrics.odd("entity_missing", reply.missing.len() as u64);
                    for (kind, n) in reply.counts.oddities() {
                        self.metrics.odd(kind, n);
                    }
                    answered(Answer {
                        targets,
                        reply,
                        permit,
                    })
                    .await;
                }
                Err(error) => {
                    drop(permit);
                    match (error.disposition(), targets.len()) {
                        (Disposition::Shrink, 2..) => {
                            let smallest = asked.too_much.map_or(targets.len(), |n| n.min(targets.len()));
                            asked.too_much = Some(smallest);
                            parts.extend(halves(targets));
                        }
                        (Disposition::Shrink, _) => {
                            let alone = targets.into_iter().next().map(|target| (target, error));
                            asked.too_much_alone.extend(alone);
                            // It is not the entities: asking for each of the others would only add to the trouble.
                            if asked.n_answered == 0 && asked.too_much_alone.len() >= FAILED_ALONE {
                                asked.failed = asked.too_much_alone.pop().map(|(_, error)| error);
                                break;
                            }
                        }
                        (Disposition::Split, 2..) => {
                            let named = error.fault().and_then(|fault| fault.object.as_ref());
                            parts.extend(without(targets, named));
                        }
                        (Disposition::Split | Disposition::SkipEntity, _) => {
                            asked
                                .skipped
                                .extend(targets.into_iter().next().map(|target| (target, error)));
                        }
                        _ => {
                            asked.failed = Some(error);
                            break;
                        }
                    }
                }
            }
        }
        asked
    }

    /// Counts and tells who was left out.
    pub fn left_out(&self, skipped: &[(Target, vsphere::Error)]) {
        self.metrics.entities_skipped(skipped.len());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (target, error) in skipped {
            let Some(repeated) = told.due(target.entity, Instant::now()) else {
                continue;
            };
            tracing::warn!(
                entity = %target.entity,
                moref = %target.moref,
                error = %Chain(error),
                repeated = (repeated > 0).then_some(repeated),
                "left out of this poll: the server refuses it"
            );
        }
    }
}

/// Where the fault names its entity, that one alone and the rest; else halves.
fn without(targets: Vec<Target>, named: Option<&MoRef>) -> [Vec<Target>; 2] {
    if named.is_some_and(|moref| targets.iter().any(|target| target.moref == *moref)) {
        let (bad, good) = targets
            .into_iter()
            .partition(|target| Some(&target.moref) == named);
        [bad, good]
    } else {
        halves(targets)
    }
}

fn halves(mut targets: Vec<Target>) -> [Vec<Target>; 2] {
    let back = targets.split_off(targets.len() / 2);
    [back, targets]
}
