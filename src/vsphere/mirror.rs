//! A platform's objects as the server last told of them.
//!
//! Owns: [`Mirror`], the objects by reference, and [`Changes`], what an answer did to them. Never does: asking,
//! storing, or deciding that an object is gone because an answer does not hold it.

use std::collections::{HashMap, HashSet};

use super::objects::{Body, Item};
use crate::model::ids::MoRef;
use crate::soap::Object;
use crate::soap::methods::properties::Visit;
use crate::soap::xml;
use crate::soap::xml::{Element, Reader};

/// The objects of one platform.
#[derive(Debug, Default)]
pub struct Mirror {
    items: HashMap<MoRef, Item>,
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
        self.items.get(moref)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (&MoRef, &Item)> {
        self.items.iter()
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
        self.mirror.items.insert(moref, item);
    }
}

impl Visit for Reading<'_> {
    fn object(&mut self, object: Object) {
        self.settle();
        let before = self.mirror.items.get(&object.moref).cloned();
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
        if self.mirror.items.remove(&object.moref).is_some() {
            self.changes.touched.remove(&object.moref);
            self.changes.left.insert(object.moref);
        }
    }
}

#[cfg(test)]
impl Mirror {
    /// What a first answer with these `objectSet`s makes.
    pub(crate) fn told(object_sets: &str) -> Self {
        let body = format!(
            "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soapenv:Body>\
             <WaitForUpdatesExResponse xmlns=\"urn:vim25\"><returnval><version>1</version><filterSet>\
             <filter type=\"PropertyFilter\">f</filter>{object_sets}</filterSet></returnval>\
             </WaitForUpdatesExResponse></soapenv:Body></soapenv:Envelope>"
        );
        let (mut mirror, mut found) = (Self::default(), Changes::default());
        let mut reading = Reading::new(&mut mirror, &mut found, false);
        let reply = crate::soap::Reply::received("WaitForUpdatesEx", body);
        crate::soap::methods::changes::read(&reply, &mut reading).unwrap();
        reading.settle();
        mirror
    }
}
