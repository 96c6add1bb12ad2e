//! A platform's objects as the server last told of them.
//!
//! Owns: [`Mirror`], the objects by reference, and [`Changes`], what an answer did to them. Never does: asking,
//! storing, or deciding that an object is gone because an answer does not hold it.
//!
//! Invariant: what is kept is bounded, whatever the server tells. It is beside the byte budget, since it stays.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fmt::Write as _;

use super::objects::{Body, Item};
use crate::model::ids::MoRef;
use crate::soap::Object;
use crate::soap::methods::properties::Visit;
use crate::soap::xml;
use crate::soap::xml::{Element, Reader};

/// Most that is kept of one platform, by [`size`]. A vCenter has at most 45,000 VMs: for each, more than 5 KB.
const KEPT_BYTES: usize = 256 << 20;

/// The objects of one platform.
#[derive(Debug)]
pub struct Mirror {
    items: HashMap<MoRef, Kept>,
    /// Of all items.
    size: usize,
    most: usize,
    /// Something was left out, because there was no room for it.
    is_overfull: bool,
}

#[derive(Debug)]
struct Kept {
    item: Item,
    size: usize,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            items: HashMap::new(),
            size: 0,
            most: KEPT_BYTES,
            is_overfull: false,
        }
    }
}

/// The server tells of more than is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overfull {
    /// What is kept.
    pub(super) most: usize,
}

/// What an object takes, in bytes, near enough: its length as text, with the names of its parts in place of what they
/// take beside their texts.
fn size(moref: &MoRef, item: &Item) -> usize {
    struct Count(usize);

    impl fmt::Write for Count {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }

    let mut count = Count(moref.as_str().len());
    // Counting cannot fail.
    write!(count, "{item:?}").unwrap_or_default();
    count.0
}

/// What an answer did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New objects, and those with a property that is not as it was.
    pub touched: HashSet<MoRef>,
    /// Objects that the server says have gone.
    pub left: HashSet<MoRef>,
    /// Something that other objects refer to is new, or has another name or place.
    pub moved: bool,
}

impl Changes {
    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.left.is_empty()
    }
}

impl Mirror {
    /// An object.
    #[must_use]
    pub fn get(&self, moref: &MoRef) -> Option<&Item> {
        self.items.get(moref).map(|kept| &kept.item)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (&MoRef, &Item)> {
        self.items.iter().map(|(moref, kept)| (moref, &kept.item))
    }

    /// Whether all that was told is here.
    pub(super) const fn check(&self) -> Result<(), Overfull> {
        if self.is_overfull {
            return Err(Overfull { most: self.most });
        }
        Ok(())
    }

    /// Takes an object in, where there is room for it.
    fn keep(&mut self, moref: MoRef, item: Item) {
        let size = size(&moref, &item);
        self.remove(&moref);
        if self.size + size > self.most {
            self.is_overfull = true;
            return;
        }
        self.size += size;
        self.items.insert(moref, Kept { item, size });
    }

    fn remove(&mut self, moref: &MoRef) -> bool {
        let removed = self.items.remove(moref);
        self.size -= removed.as_ref().map_or(0, |kept| kept.size);
        removed.is_some()
    }
}

/// Takes one answer in.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    mirror: &'a mut Mirror,
    changes: &'a mut Changes,
    /// Objects that are not known yet are left to the change tracking, which tells them whole.
    known_only: bool,
    /// The object whose properties come: reference, as it was, as it becomes.
    current: Option<(MoRef, Option<Item>, Item)>,
}

impl<'a> Reading<'a> {
    pub(super) const fn new(mirror: &'a mut Mirror, changes: &'a mut Changes, known_only: bool) -> Self {
        Self {
            mirror,
            changes,
            known_only,
            current: None,
        }
    }

    /// Puts the object that came last into the mirror.
    pub(super) fn settle(&mut self) {
        let Some((moref, before, item)) = self.current.take() else {
            return;
        };
        if before.as_ref() != Some(&item) {
            self.changes.left.remove(&moref);
            self.changes.touched.insert(moref.clone());
            let is_as_before = |before: &Item| (&before.name, &before.parent) == (&item.name, &item.parent);
            let is_leaf = matches!(item.body, Body::Vm(_) | Body::Datastore(_));
            self.changes.moved |= !is_leaf && !before.as_ref().is_some_and(is_as_before);
        }
        self.mirror.keep(moref, item);
    }
}

impl Visit for Reading<'_> {
    fn object(&mut self, object: Object) {
        self.settle();
        let before = self.mirror.get(&object.moref).cloned();
        let item = match &before {
            Some(item) => Some(item.clone()),
            None if self.known_only => None,
            None => Item::new(&object),
        };
        self.current = item.map(|item| (object.moref, before, item));
    }

    fn property(&mut self, path: &str, _value: &Element<'_>, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
        match &mut self.current {
            Some((_, _, item)) => item.set(path, xml),
            None => xml.skip(),
        }
    }

    fn unset(&mut self, path: &str) {
        if let Some((_, _, item)) = &mut self.current {
            item.unset(path);
        }
    }

    fn left(&mut self, object: Object) {
        self.settle();
        if self.mirror.remove(&object.moref) {
            self.changes.touched.remove(&object.moref);
            self.changes.left.insert(object.moref);
        }
    }
}

#[cfg(test)]
impl Mirror {
    /// What a first answer with these `objectSet`s makes.
    pub(crate) fn told(object_sets: &str) -> Self {
        let mut mirror = Self::default();
        mirror.tell(object_sets);
        mirror
    }

    /// What another answer makes of it.
    fn tell(&mut self, object_sets: &str) {
        let body = format!(
            "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soapenv:Body>\
             <WaitForUpdatesExResponse xmlns=\"urn:vim25\"><returnval><version>1</version><filterSet>\
             <filter type=\"PropertyFilter\">f</filter>{object_sets}</filterSet></returnval>\
             </WaitForUpdatesExResponse></soapenv:Body></soapenv:Envelope>"
        );
        let mut found = Changes::default();
        let mut reading = Reading::new(self, &mut found, false);
        let reply = crate::soap::Reply::received("WaitForUpdatesEx", body);
        crate::soap::methods::changes::read(&reply, &mut reading).unwrap();
        reading.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(number: usize, name: &str) -> String {
        format!(
            "<objectSet><kind>enter</kind><obj type=\"VirtualMachine\">vm-{number}</obj><changeSet><name>name</name>\
             <op>assign</op><val xsi:type=\"xsd:string\">{name}</val></changeSet></objectSet>"
        )
    }

    fn gone(number: usize) -> String {
        format!("<objectSet><kind>leave</kind><obj type=\"VirtualMachine\">vm-{number}</obj></objectSet>")
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_is_told() {
        let mut mirror = Mirror::told(&vm(0, "web"));
        let one = mirror.size;
        assert!(one > 300, "{one}");
        mirror.most = 10 * one;
        // Told again and again, and gone, it takes nothing more.
        for _ in 0..100 {
            mirror.tell(&(vm(0, "web") + &vm(1, &"x".repeat(200))));
            mirror.tell(&gone(1));
        }
        assert_eq!((mirror.size, mirror.check()), (one, Ok(())));
        for number in 1..1000 {
            mirror.tell(&vm(number, "web"));
        }
        assert!(mirror.size <= mirror.most && mirror.items.len() <= 10);
        assert_eq!(mirror.check(), Err(Overfull { most: 10 * one }));
        assert!(mirror.get(&MoRef::new("vm-0")).is_some());
    }
}
