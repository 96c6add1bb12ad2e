//! Whatever arrives around a login, as a page or as a fault: an error, or a value that is whole.

use crate::error::Disposition;
use crate::soap::Object;
use crate::soap::Reply;
use crate::soap::ServiceContent;
use crate::soap::error::Error;
use crate::soap::methods::changes;
use crate::soap::methods::properties::Visit;
use crate::soap::methods::properties::read_page;
use crate::soap::methods::versions;
use crate::soap::xml;
use crate::soap::xml::Element;
use crate::soap::xml::Reader;

/// Text of an error is bounded whatever a server wrote.
const LONGEST_MESSAGE: usize = 16 * 1024;

fn reply(method: &'static str, document: &str) -> Reply {
    Reply::received(method, document.to_owned())
}

fn without_its_end(document: &str) -> Option<&str> {
    let whole = document.trim_end();
    whole.get(..whole.len().checked_sub(1)?)
}

fn is_told_in_bounds(error: &Error) {
    let told = crate::error::Chain(error).to_string();
    assert!(told.len() < LONGEST_MESSAGE, "{} bytes", told.len());
    assert!(!error.label().is_empty());
    // Leaving an entity out is decided where entities are known.
    assert_ne!(error.disposition(), Disposition::SkipEntity);
}

#[test]
fn fuzz_service_content() {
    support::fuzz::run("service_content", |document| {
        match ServiceContent::read(&reply("RetrieveServiceContent", document)) {
            Ok(content) => {
                assert!(content.about.full_name.chars().count() <= 200);
                if let Some(cut) = without_its_end(document) {
                    assert!(ServiceContent::read(&reply("RetrieveServiceContent", cut)).is_err());
                }
            }
            Err(error) => is_told_in_bounds(&error),
        }
        if let Ok(()) = reply("Login", document).read(|_xml| Ok(()))
            && let Some(cut) = without_its_end(document)
        {
            assert!(reply("Login", cut).read(|_xml| Ok(())).is_err());
        }
    });
}

/// The answers around a login, at every byte of each.
#[test]
fn an_answer_around_a_login_cut_at_any_byte_is_an_error() {
    let content = include_str!("../../tests/fuzz/service_content/vcenter.xml").trim_end();
    let login = include_str!("../../tests/fuzz/service_content/login.xml").trim_end();
    let list = include_str!("../../tests/fuzz/versions/list.xml").trim_end();
    assert!(ServiceContent::read(&reply("RetrieveServiceContent", content)).is_ok());
    assert!(reply("Login", login).read(|_xml| Ok(())).is_ok());
    assert!(versions::choose(list).is_some());
    for end in 0..content.len() {
        let cut = reply("RetrieveServiceContent", content.get(..end).unwrap());
        assert!(ServiceContent::read(&cut).is_err(), "cut after {end} bytes");
    }
    for end in 0..login.len() {
        let cut = reply("Login", login.get(..end).unwrap());
        assert!(cut.read(|_xml| Ok(())).is_err(), "cut after {end} bytes");
    }
    for end in 0..list.len() {
        assert!(
            versions::choose(list.get(..end).unwrap()).is_none(),
            "cut after {end} bytes"
        );
    }
}

#[test]
fn fuzz_fault() {
    support::fuzz::run("fault", |document| {
        // No document of this corpus answers the method, so that each is some error.
        let error = reply("NoSuchMethod", document).read(|_xml| Ok(())).unwrap_err();
        is_told_in_bounds(&error);
        if let Some(fault) = error.fault() {
            assert!(fault.message.chars().count() <= 200);
        }
    });
}

#[derive(Default)]
struct Texts(usize);

impl Visit for Texts {
    fn object(&mut self, object: Object) {
        self.0 += object.moref.as_str().len();
    }

    fn property(
        &mut self,
        _path: &str,
        _value: &Element<'_>,
        xml: &mut Reader<'_>,
    ) -> Result<(), xml::Error> {
        self.0 += xml.loose_text()?.len();
        Ok(())
    }
}

#[test]
fn fuzz_page() {
    support::fuzz::run("page", |document| {
        let mut texts = Texts::default();
        match read_page(&reply("RetrievePropertiesEx", document), &mut texts) {
            Ok(_) => {
                // References make texts shorter, never longer.
                assert!(texts.0 <= document.len());
                if let Some(cut) = without_its_end(document) {
                    assert!(read_page(&reply("RetrievePropertiesEx", cut), &mut texts).is_err());
                }
            }
            Err(error) => is_told_in_bounds(&error),
        }
    });
}

#[test]
fn fuzz_changes() {
    support::fuzz::run("changes", |document| {
        let mut texts = Texts::default();
        match changes::read(&reply("WaitForUpdatesEx", document), &mut texts) {
            Ok(_) => {
                assert!(texts.0 <= document.len());
                if let Some(cut) = without_its_end(document) {
                    assert!(changes::read(&reply("WaitForUpdatesEx", cut), &mut texts).is_err());
                }
            }
            Err(error) => is_told_in_bounds(&error),
        }
    });
}

#[test]
fn fuzz_versions() {
    support::fuzz::run("versions", |document| {
        if let Some(version) = versions::choose(document) {
            assert!(
                version.chars().all(|c| c.is_ascii_digit() || c == '.'),
                "{version:?}: it goes into a header as it is"
            );
        }
    });
}
