//! From the answer to QueryPerf to rows: the one place where wire values become samples.
//!
//! Owns: [`decode`], pulling events straight into [`Window`]s: no tree, no String per value, scratch buffers
//! reused from entity to entity. Both answer forms, `csv` and `normal`, are one code path: a `<value>` holds a
//! list of cells, and in the normal form a list of one.
//! Never does: I/O, or trusting the server. Series are joined by entity and counter id, never by position.
//!
//! What a server may send and what becomes of it:
//!
//! | found | result |
//! |---|---|
//! | a negative value, an empty cell, fewer values than stamps | no data: NULL |
//! | a row of nothing but NULL | no row, counted |
//! | stamps in any order | rows ascend |
//! | the same stamp twice | the first, others counted |
//! | another interval than asked for | no row, counted |
//! | a counter, instance or entity not asked for | left out, counted |
//! | an entity asked for but absent | named in [`Reply::missing`] |
//! | a number that its column cannot hold | NULL, counted |
//! | a document that stops early | an error, never a part of it |

mod scratch;

use std::collections::HashMap;
use std::ops::AddAssign;

use crate::model::ids::EntityId;
use crate::model::ids::EntityKind;
use crate::model::sample::Window;
use crate::soap;
use crate::soap::xml;
use crate::soap::xml::Reader;
use crate::vsphere::counters::Counters;
use crate::vsphere::plan::Target;
use scratch::Scratch;

/// What a decode met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecodeCounts {
    /// Rows made.
    pub rows: u64,
    /// Cells with a value in them.
    pub values: u64,
    /// Rows in which a series had a hole at its newer end.
    pub incomplete_rows: u64,
    /// Samples without any value.
    pub empty_rows: u64,
    /// Samples of another interval than asked for.
    pub other_interval: u64,
    /// Samples with a stamp that came before.
    pub duplicate_stamps: u64,
    /// Samples whose stamp or interval cannot be read.
    pub bad_stamps: u64,
    /// Cells that are neither empty nor a whole number.
    pub bad_values: u64,
    /// Numbers that their column cannot hold.
    pub out_of_range: u64,
    /// Series of counters that were not asked for.
    pub unknown_counters: u64,
    /// Series of instances that were not asked for, and wildcards that came back as they were sent.
    pub unknown_instances: u64,
    /// Series that came twice.
    pub duplicate_series: u64,
    /// Entities that were not asked for.
    pub unknown_entities: u64,
    /// Entities that came twice.
    pub duplicate_entities: u64,
    /// Most instances of one counter of a host, for estimates.
    pub host_instances: u64,
    /// Most instances of one counter of a VM.
    pub vm_instances: u64,
}

impl DecodeCounts {
    /// What should not have been there, by the word under which it is counted.
    #[must_use]
    pub const fn oddities(&self) -> [(&'static str, u64); 11] {
        [
            ("entity_unknown", self.unknown_entities),
            ("entity_twice", self.duplicate_entities),
            ("counter_unknown", self.unknown_counters),
            ("instance_unknown", self.unknown_instances),
            ("series_twice", self.duplicate_series),
            ("stamp_bad", self.bad_stamps),
            ("stamp_twice", self.duplicate_stamps),
            ("interval_other", self.other_interval),
            ("value_bad", self.bad_values),
            ("value_out_of_range", self.out_of_range),
            ("sample_empty", self.empty_rows),
        ]
    }
}

impl AddAssign for DecodeCounts {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.values += other.values;
        self.incomplete_rows += other.incomplete_rows;
        self.empty_rows += other.empty_rows;
        self.other_interval += other.other_interval;
        self.duplicate_stamps += other.duplicate_stamps;
        self.bad_stamps += other.bad_stamps;
        self.bad_values += other.bad_values;
        self.out_of_range += other.out_of_range;
        self.unknown_counters += other.unknown_counters;
        self.unknown_instances += other.unknown_instances;
        self.duplicate_series += other.duplicate_series;
        self.unknown_entities += other.unknown_entities;
        self.duplicate_entities += other.duplicate_entities;
        self.host_instances = self.host_instances.max(other.host_instances);
        self.vm_instances = self.vm_instances.max(other.vm_instances);
    }
}

/// What an answer held.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// The samples, one window per entity that has any, in the order of the answer.
    pub windows: Vec<Window>,
    /// What was met on the way.
    pub counts: DecodeCounts,
    /// Entities asked for that the answer does not name.
    pub missing: Vec<EntityId>,
    /// Entities that the answer names without any sample.
    pub empty: Vec<EntityId>,
}

/// Decodes an answer to QueryPerf.
///
/// # Errors
/// When the document is a fault, is not an answer to QueryPerf, or is not complete.
pub fn decode(
    document: &str,
    targets: &[Target],
    counters: &Counters,
    interval_seconds: u32,
) -> Result<Reply, soap::Error> {
    let reply = soap::Reply::received("QueryPerf", document.to_owned());
    decode_reply(&reply, targets, counters, interval_seconds)
}

pub(crate) fn decode_reply(
    reply: &soap::Reply,
    targets: &[Target],
    counters: &Counters,
    interval_seconds: u32,
) -> Result<Reply, soap::Error> {
    let mut decoder = Decoder::new(targets, counters, interval_seconds);
    reply.read(|xml| {
        while let Some(_returnval) = xml.next_child()? {
            decoder.entity(xml)?;
        }
        Ok(())
    })?;
    Ok(decoder.finish())
}

struct Decoder<'a> {
    targets: &'a [Target],
    places: HashMap<(EntityKind, &'a str), usize>,
    seen: Vec<bool>,
    counters: &'a Counters,
    interval_seconds: u32,
    scratch: Scratch,
    reply: Reply,
}

impl<'a> Decoder<'a> {
    fn new(targets: &'a [Target], counters: &'a Counters, interval_seconds: u32) -> Self {
        let places = targets
            .iter()
            .enumerate()
            .map(|(place, target)| ((target.entity.kind, target.moref.as_str()), place))
            .collect();
        Self {
            targets,
            places,
            seen: vec![false; targets.len()],
            counters,
            interval_seconds,
            scratch: Scratch::default(),
            reply: Reply {
                windows: Vec::with_capacity(targets.len()),
                ..Reply::default()
            },
        }
    }

    /// One `<returnval>`: an entity, its stamps, its series. The schema puts the entity first.
    fn entity(&mut self, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
        self.scratch.clear();
        let mut target = None;
        while let Some(part) = xml.next_child()? {
            match part.name() {
                "entity" if target.is_some() => return Err(xml::Error::unexpected("value", "entity")),
                "entity" => {
                    let kind = part.object_type().and_then(|kind| kind_of(&kind));
                    let moref = xml.text()?;
                    let place = kind.and_then(|kind| self.places.get(&(kind, &*moref)).copied());
                    target = self.claim(place);
                    if target.is_none() {
                        return xml.skip();
                    }
                }
                "sampleInfoCSV" => self.scratch.read_stamps(&xml.text()?, &mut self.reply.counts)?,
                "sampleInfo" => self.scratch.read_stamp(xml, &mut self.reply.counts)?,
                "value" => match target {
                    Some(target) => {
                        let counters = self.counters.of(target.entity.kind);
                        self.scratch.read_series(xml, counters, &mut self.reply.counts)?;
                    }
                    None => return Err(xml::Error::Missing("entity")),
                },
                _ => xml.skip()?,
            }
        }
        match target {
            Some(target) => self.close(target),
            None => self.reply.counts.unknown_entities += 1,
        }
        Ok(())
    }

    /// The target in this place, if it has not been answered yet.
    fn claim(&mut self, place: Option<usize>) -> Option<&'a Target> {
        let found = place.and_then(|place| Some((self.targets.get(place)?, self.seen.get_mut(place)?)));
        let Some((target, seen)) = found else {
            self.reply.counts.unknown_entities += 1;
            return None;
        };
        if std::mem::replace(seen, true) {
            self.reply.counts.duplicate_entities += 1;
            return None;
        }
        Some(target)
    }

    fn close(&mut self, target: &Target) {
        let counters = self.counters.of(target.entity.kind);
        let window = self
            .scratch
            .window(target, counters, self.interval_seconds, &mut self.reply.counts);
        if window.is_empty() {
            self.reply.empty.push(target.entity);
        } else {
            self.reply.windows.push(window);
        }
    }

    fn finish(mut self) -> Reply {
        let absent = self.targets.iter().zip(&self.seen).filter(|(_, seen)| !**seen);
        self.reply.missing = absent.map(|(target, _)| target.entity).collect();
        self.reply
    }
}

fn kind_of(vim_type: &str) -> Option<EntityKind> {
    EntityKind::ALL
        .into_iter()
        .find(|kind| kind.vim_type() == vim_type)
}

#[cfg(test)]
mod tests;
