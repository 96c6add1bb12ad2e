//! Typed calls of vim25: one function per method, arguments in the order of the schema.
//!
//! Owns: what is written into a request and what is read out of its answer. Never does: retrying, or deciding
//! what the values mean for a platform.

pub(crate) mod actions;
pub(crate) mod changes;
pub(crate) mod perf;
pub(crate) mod properties;
pub(crate) mod versions;

use crate::config::PlatformKind;
use crate::soap::envelope::Object;
use crate::soap::envelope::Reply;
use crate::soap::envelope::Request;
use crate::soap::error::Error;
use crate::soap::pool::Pinned;
use crate::soap::xml;
use crate::soap::xml::Reader;
use crate::units::Stamp;

/// Answers that hold a handful of values.
const SMALL_REPLY_BYTES: usize = 1024 * 1024;

/// What a server says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// `VMware vCenter Server 8.0.3 build-24022515`.
    pub full_name: String,
    /// `8.0.3`.
    pub version: String,
    /// `24022515`.
    pub build: String,
    /// `VirtualCenter` or `HostAgent`.
    pub api_type: String,
    /// `8.0.3.0`.
    pub api_version: String,
    /// Unique per vCenter, kept over upgrades; unset on ESXi.
    pub instance_uuid: Option<String>,
}

impl About {
    /// vCenter or ESXi; `None` for anything else.
    #[must_use]
    pub fn kind(&self) -> Option<PlatformKind> {
        match self.api_type.as_str() {
            "VirtualCenter" => Some(PlatformKind::VCenter),
            "HostAgent" => Some(PlatformKind::Esxi),
            _ => None,
        }
    }

    fn read(xml: &mut Reader<'_>) -> Result<Self, xml::Error> {
        let mut about = Self::default();
        while let Some(field) = xml.next_child()? {
            let place = match field.name() {
                "fullName" => &mut about.full_name,
                "version" => &mut about.version,
                "build" => &mut about.build,
                "apiType" => &mut about.api_type,
                "apiVersion" => &mut about.api_version,
                "instanceUuid" => about.instance_uuid.insert(String::new()),
                _ => {
                    xml.skip()?;
                    continue;
                }
            };
            *place = xml::cut(&xml.text()?);
        }
        Ok(about)
    }
}

/// The server and the references of its managers, which differ between vCenter and ESXi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceContent {
    /// What it is.
    pub about: About,
    /// The top of the inventory.
    pub root_folder: Object,
    /// Reads properties.
    pub property_collector: Object,
    /// Makes views.
    pub view_manager: Option<Object>,
    /// Logs in and out.
    pub session_manager: Option<Object>,
    /// Serves samples.
    pub perf_manager: Option<Object>,
    /// Holds the settings of a vCenter.
    pub setting: Option<Object>,
    /// Knows the names of custom attributes; a vCenter alone has it.
    pub custom_fields_manager: Option<Object>,
    /// Knows the tasks.
    pub task_manager: Option<Object>,
}

impl ServiceContent {
    /// The call that needs no session.
    pub(crate) fn request() -> Result<Request, Error> {
        Request::new("RetrieveServiceContent", &service_instance(), 0, |_| ())
    }

    pub(crate) fn read(reply: &Reply) -> Result<Self, Error> {
        reply.read(|xml| {
            let mut about = None;
            let [
                mut root,
                mut collector,
                mut view,
                mut session,
                mut perf,
                mut setting,
                mut fields,
                mut tasks,
            ] = [const { None }; 8];
            while let Some(_returnval) = xml.next_child()? {
                while let Some(field) = xml.next_child()? {
                    let place = match field.name() {
                        "about" => {
                            about = Some(About::read(xml)?);
                            continue;
                        }
                        "rootFolder" => &mut root,
                        "propertyCollector" => &mut collector,
                        "viewManager" => &mut view,
                        "sessionManager" => &mut session,
                        "perfManager" => &mut perf,
                        "setting" => &mut setting,
                        "customFieldsManager" => &mut fields,
                        "taskManager" => &mut tasks,
                        _ => {
                            xml.skip()?;
                            continue;
                        }
                    };
                    *place = Some(Object::read(&field, xml)?);
                }
            }
            Ok(Self {
                about: about.ok_or(xml::Error::Missing("about"))?,
                root_folder: root.ok_or(xml::Error::Missing("rootFolder"))?,
                property_collector: collector.ok_or(xml::Error::Missing("propertyCollector"))?,
                view_manager: view,
                session_manager: session,
                perf_manager: perf,
                setting,
                custom_fields_manager: fields,
                task_manager: tasks,
            })
        })
    }
}

fn service_instance() -> Object {
    Object::new("ServiceInstance", "ServiceInstance")
}

/// `CurrentTime`: the server's clock.
pub(crate) async fn current_time(session: &Pinned) -> Result<Stamp, Error> {
    let request = Request::new("CurrentTime", &service_instance(), 0, |_| ())?;
    let reply = session.call(&request, SMALL_REPLY_BYTES).await?;
    reply.read(|xml| {
        let mut time = None;
        while let Some(_returnval) = xml.next_child()? {
            let text = xml.text()?;
            let stamp = text
                .parse()
                .map_err(|_source| xml::Error::value("returnval", &text, "a time with a zone"))?;
            time = Some(stamp);
        }
        time.ok_or(xml::Error::Missing("returnval"))
    })
}

/// `CreateContainerView` over everything of these types below `container`. The view lives until
/// [`destroy_view`] or the end of the session.
pub(crate) async fn create_container_view(
    session: &Pinned,
    container: &Object,
    types: &[&'static str],
) -> Result<Object, Error> {
    let manager = session
        .content()
        .view_manager
        .as_ref()
        .ok_or(Error::Absent("viewManager"))?;
    let request = Request::new("CreateContainerView", manager, 400, |xml| {
        xml.object("container", &container.kind, container.moref.as_str());
        for kind in types {
            xml.text("type", kind);
        }
        xml.text("recursive", "true");
    })?;
    let reply = session.call(&request, SMALL_REPLY_BYTES).await?;
    reply.read(|xml| {
        let mut view = None;
        while let Some(returnval) = xml.next_child()? {
            view = Some(Object::read(&returnval, xml)?);
        }
        view.ok_or(xml::Error::Missing("returnval"))
    })
}

/// `DestroyView`.
pub(crate) async fn destroy_view(session: &Pinned, view: &Object) -> Result<(), Error> {
    let request = Request::new("DestroyView", view, 0, |_| ())?;
    session
        .call(&request, SMALL_REPLY_BYTES)
        .await?
        .read(|_xml| Ok(()))
}

/// `QueryOptions`: the value of one setting of a vCenter as text; `None` where it is not set.
pub(crate) async fn query_option(session: &Pinned, name: &str) -> Result<Option<String>, Error> {
    let setting = session
        .content()
        .setting
        .as_ref()
        .ok_or(Error::Absent("setting"))?;
    let request = Request::new("QueryOptions", setting, 200, |xml| {
        xml.text("name", name);
    })?;
    let reply = session.call(&request, SMALL_REPLY_BYTES).await;
    let reply = match reply {
        // The documented answer for a name that is not set.
        Err(Error::Fault { fault, .. }) if fault.kind.to_string() == "InvalidName" => return Ok(None),
        reply => reply?,
    };
    reply.read(|xml| {
        let mut found = None;
        while let Some(_returnval) = xml.next_child()? {
            let (mut key, mut value) = (String::new(), None);
            while let Some(field) = xml.next_child()? {
                match field.name() {
                    "key" => key = xml.text()?.into_owned(),
                    "value" => value = Some(xml.loose_text()?),
                    _ => xml.skip()?,
                }
            }
            if key == name {
                found = value;
            }
        }
        Ok(found)
    })
}
