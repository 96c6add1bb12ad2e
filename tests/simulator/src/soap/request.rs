//! The methods that the simulator understands, read element by element in schema order.

use std::num::ParseIntError;

use quick_xml::XmlVersion;
use quick_xml::events::BytesStart;

use super::operations::{self, TaskFilter};
use super::read::{Cursor, Refusal, Text, missing};
use crate::grid;
use crate::world::Operation;

/// A managed object reference.
#[derive(Clone, Debug)]
pub(crate) struct Ref<'a> {
    pub(crate) kind: Text<'a>,
    pub(crate) value: Text<'a>,
}

/// One call.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: String,
    pub(crate) this: Ref<'a>,
    pub(crate) operation_id: Option<String>,
    pub(crate) call: Call<'a>,
}

/// What is called, with its arguments.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    RetrieveServiceContent,
    CurrentTime,
    Login {
        user: Text<'a>,
        password: Text<'a>,
    },
    Logout,
    RetrievePropertiesEx {
        filters: Vec<Filter<'a>>,
        max_objects: Option<i32>,
    },
    ContinueRetrievePropertiesEx {
        token: Text<'a>,
    },
    CancelRetrievePropertiesEx {
        token: Text<'a>,
    },
    /// One property of `_this`, as pyvmomi reads them.
    Fetch {
        path: Text<'a>,
    },
    CreateContainerView {
        container: Ref<'a>,
        kinds: Vec<Text<'a>>,
        recursive: bool,
    },
    DestroyView,
    CreatePropertyCollector,
    DestroyPropertyCollector,
    CreateFilter {
        filter: Filter<'a>,
    },
    DestroyPropertyFilter,
    WaitForUpdatesEx {
        version: Text<'a>,
        /// Seconds; `None` = as long as possible.
        max_wait: Option<i32>,
        max_updates: Option<i32>,
    },
    CancelWaitForUpdates,
    QueryOptions {
        name: Option<Text<'a>>,
    },
    QueryPerfProviderSummary {
        entity: Ref<'a>,
    },
    QueryAvailablePerfMetric {
        entity: Ref<'a>,
        interval: Option<i32>,
    },
    QueryPerf {
        specs: Vec<QuerySpec<'a>>,
    },
    /// On a VM or a snapshot.
    Operate(Operation),
    CancelTask,
    CreateCollectorForTasks {
        filter: TaskFilter<'a>,
    },
    ReadNextTasks {
        most: i32,
    },
    RewindCollector,
    DestroyCollector,
    /// A method that this server does not have.
    Unknown,
}

/// `PropertyFilterSpec`.
#[derive(Clone, Debug)]
pub(crate) struct Filter<'a> {
    pub(crate) props: Vec<PropSet<'a>>,
    pub(crate) objects: Vec<ObjectSet<'a>>,
    pub(crate) report_missing: bool,
}

impl Filter<'_> {
    /// The same filter, kept beyond its request.
    pub(crate) fn into_owned(self) -> Filter<'static> {
        Filter {
            props: self.props.into_iter().map(PropSet::into_owned).collect(),
            objects: self.objects.into_iter().map(ObjectSet::into_owned).collect(),
            report_missing: self.report_missing,
        }
    }
}

/// `PropertySpec`.
#[derive(Clone, Debug)]
pub(crate) struct PropSet<'a> {
    pub(crate) kind: Text<'a>,
    pub(crate) all: bool,
    pub(crate) paths: Vec<Text<'a>>,
}

impl PropSet<'_> {
    fn into_owned(self) -> PropSet<'static> {
        PropSet {
            kind: keep(self.kind),
            all: self.all,
            paths: self.paths.into_iter().map(keep).collect(),
        }
    }
}

fn keep(text: Text<'_>) -> Text<'static> {
    text.into_owned().into()
}

/// `ObjectSpec`.
#[derive(Clone, Debug)]
pub(crate) struct ObjectSet<'a> {
    pub(crate) object: Ref<'a>,
    pub(crate) skip: bool,
    pub(crate) select: Vec<Selection<'a>>,
}

impl ObjectSet<'_> {
    fn into_owned(self) -> ObjectSet<'static> {
        ObjectSet {
            object: Ref {
                kind: keep(self.object.kind),
                value: keep(self.object.value),
            },
            skip: self.skip,
            select: self.select.into_iter().map(Selection::into_owned).collect(),
        }
    }
}

/// `SelectionSpec` or `TraversalSpec`.
#[derive(Clone, Debug)]
pub(crate) enum Selection<'a> {
    /// By the name of a traversal elsewhere in the object set.
    Named(Text<'a>),
    Traversal {
        name: Option<Text<'a>>,
        kind: Text<'a>,
        path: Text<'a>,
        skip: bool,
        select: Vec<Selection<'a>>,
    },
}

impl Selection<'_> {
    fn into_owned(self) -> Selection<'static> {
        match self {
            Self::Named(name) => Selection::Named(keep(name)),
            Self::Traversal {
                name,
                kind,
                path,
                skip,
                select,
            } => Selection::Traversal {
                name: name.map(keep),
                kind: keep(kind),
                path: keep(path),
                skip,
                select: select.into_iter().map(Self::into_owned).collect(),
            },
        }
    }
}

/// `PerfQuerySpec`. Times are server times in microseconds.
#[derive(Debug)]
pub(crate) struct QuerySpec<'a> {
    pub(crate) entity: Ref<'a>,
    pub(crate) start: Option<i64>,
    pub(crate) end: Option<i64>,
    pub(crate) max_sample: Option<i32>,
    pub(crate) metrics: Vec<MetricId<'a>>,
    pub(crate) interval: Option<i32>,
    pub(crate) csv: bool,
}

/// `PerfMetricId`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetricId<'a> {
    pub(crate) counter: i32,
    pub(crate) instance: Text<'a>,
}

impl Request<'_> {
    /// Every MoRef that the call names.
    pub(crate) fn objects(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        let this = std::iter::once(&*self.this.value);
        match &self.call {
            Call::QueryPerf { specs } => Box::new(this.chain(specs.iter().map(|spec| &*spec.entity.value))),
            Call::RetrievePropertiesEx { filters, .. } => {
                let objects = filters.iter().flat_map(|filter| &filter.objects);
                Box::new(this.chain(objects.map(|object| &*object.object.value)))
            }
            Call::CreateContainerView { container, .. } => {
                Box::new(this.chain(std::iter::once(&*container.value)))
            }
            Call::QueryPerfProviderSummary { entity } | Call::QueryAvailablePerfMetric { entity, .. } => {
                Box::new(this.chain(std::iter::once(&*entity.value)))
            }
            _ => Box::new(this),
        }
    }
}

/// Reads a request. On refusal the method is named if it was seen.
pub(crate) fn parse(text: &str) -> Result<Request<'_>, (Option<String>, Refusal)> {
    let mut method = None;
    envelope(text, &mut method).map_err(|refusal| (method, refusal))
}

fn envelope<'a>(text: &'a str, seen: &mut Option<String>) -> Result<Request<'a>, Refusal> {
    const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";
    let mut cursor = Cursor::new(text);
    let root = cursor.enter("Envelope")?;
    let root = root.ok_or_else(|| Refusal::schema("SOAP envelope is missing"))?;
    if !root.attributes_raw().contains(SOAP) {
        return Err(Refusal::schema("Unsupported SOAP envelope namespace"));
    }
    let inherited = namespace(&root);
    let mut operation_id = None;
    if cursor.enter("Header")?.is_some() {
        while let Some(header) = cursor.enter_any()? {
            if header.local_name().as_ref() == "operationID" {
                operation_id = Some(cursor.text()?.into_owned());
            } else {
                cursor.skip()?;
            }
        }
        cursor.leave("Header")?;
    }
    if cursor.enter("Body")?.is_none() {
        return Err(Refusal::schema("SOAP body is missing"));
    }
    let start = cursor.enter_any()?;
    let start = start.ok_or_else(|| Refusal::schema("SOAP body is empty"))?;
    let method = start.local_name().as_ref().to_owned();
    *seen = Some(method.clone());
    let namespace = namespace(&start).or(inherited);
    if start.name().prefix().is_none() && namespace.as_deref() != Some("urn:vim25") {
        return Err(Refusal::schema(format!(
            "Unsupported namespace \"{}\" for method \"{method}\"",
            namespace.unwrap_or_default()
        )));
    }
    let this = reference(&mut cursor, "_this", &method)?;
    let call = arguments(&mut cursor, &method)?;
    if !matches!(call, Call::Unknown) {
        cursor.leave(&method)?;
        cursor.leave("Body")?;
        cursor.leave("Envelope")?;
        cursor.finish()?;
    }
    Ok(Request {
        method,
        this,
        operation_id,
        call,
    })
}

fn namespace(start: &BytesStart<'_>) -> Option<String> {
    attribute(start, |name| name == "xmlns")
}

fn attribute(start: &BytesStart<'_>, wanted: impl Fn(&str) -> bool) -> Option<String> {
    start.attributes().with_checks(false).find_map(|attribute| {
        let attribute = attribute.ok()?;
        if !wanted(attribute.key.as_ref()) {
            return None;
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).ok()?;
        Some(value.into_owned())
    })
}

/// The un-namespaced `type` attribute of a reference.
fn kind<'a>(start: &BytesStart<'a>) -> Text<'a> {
    attribute(start, |name| name == "type").unwrap_or_default().into()
}

/// The local name in an `xsi:type`, under any prefix.
fn data_type(start: &BytesStart<'_>) -> Option<String> {
    let value = attribute(start, |name| name.ends_with(":type"))?;
    let local = value.rsplit(':').next().unwrap_or_default();
    Some(local.to_owned())
}

pub(super) fn reference<'a>(cursor: &mut Cursor<'a>, name: &str, owner: &str) -> Result<Ref<'a>, Refusal> {
    let start = cursor.enter(name)?.ok_or_else(|| missing(name, owner))?;
    let kind = kind(&start);
    if kind.is_empty() {
        return Err(Refusal::schema(format!(
            "Attribute \"type\" is missing from element \"{name}\"\n\nwhile parsing {owner}"
        )));
    }
    let value = cursor.text()?;
    Ok(Ref { kind, value })
}

pub(super) fn number(text: &str, name: &str) -> Result<i32, Refusal> {
    text.trim().parse().map_err(|error: ParseIntError| {
        Refusal::schema(format!(
            "Cannot convert \"{text}\" to int: {error}\n\nwhile parsing property \"{name}\" of static \
             type int"
        ))
    })
}

pub(super) fn boolean(text: &str, name: &str) -> Result<bool, Refusal> {
    match text.trim() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Refusal::schema(format!(
            "Cannot convert \"{text}\" to boolean\n\nwhile parsing property \"{name}\" of static \
             type boolean"
        ))),
    }
}

fn optional_number(cursor: &mut Cursor<'_>, name: &str) -> Result<Option<i32>, Refusal> {
    let text = cursor.optional(name)?;
    text.map(|text| number(&text, name)).transpose()
}

pub(super) fn optional_flag(cursor: &mut Cursor<'_>, name: &str) -> Result<Option<bool>, Refusal> {
    let text = cursor.optional(name)?;
    text.map(|text| boolean(&text, name)).transpose()
}

pub(super) fn optional_time(cursor: &mut Cursor<'_>, name: &str) -> Result<Option<i64>, Refusal> {
    let Some(text) = cursor.optional(name)? else {
        return Ok(None);
    };
    grid::parse_micros(&text).map(Some).ok_or_else(|| {
        Refusal::schema(format!(
            "Cannot convert \"{text}\" to dateTime\n\nwhile parsing property \"{name}\" of static \
             type dateTime"
        ))
    })
}

fn arguments<'a>(cursor: &mut Cursor<'a>, method: &str) -> Result<Call<'a>, Refusal> {
    Ok(match method {
        "RetrieveServiceContent" => Call::RetrieveServiceContent,
        "CurrentTime" => Call::CurrentTime,
        "Login" => {
            let user = cursor.required("userName", method)?;
            let password = cursor.required("password", method)?;
            cursor.optional("locale")?;
            Call::Login { user, password }
        }
        "Logout" => Call::Logout,
        "RetrievePropertiesEx" => {
            let mut filters = Vec::new();
            while cursor.enter("specSet")?.is_some() {
                filters.push(filter(cursor)?);
            }
            if filters.is_empty() {
                return Err(missing("specSet", method));
            }
            if cursor.enter("options")?.is_none() {
                return Err(missing("options", method));
            }
            let max_objects = optional_number(cursor, "maxObjects")?;
            cursor.leave("vmodl.query.PropertyCollector.RetrieveOptions")?;
            Call::RetrievePropertiesEx { filters, max_objects }
        }
        "ContinueRetrievePropertiesEx" => Call::ContinueRetrievePropertiesEx {
            token: cursor.required("token", method)?,
        },
        "CancelRetrievePropertiesEx" => Call::CancelRetrievePropertiesEx {
            token: cursor.required("token", method)?,
        },
        "Fetch" => Call::Fetch {
            path: cursor.required("prop", method)?,
        },
        "CreateContainerView" => {
            let container = reference(cursor, "container", method)?;
            let mut kinds = Vec::new();
            while let Some(kind) = cursor.optional("type")? {
                kinds.push(kind);
            }
            let recursive = boolean(&cursor.required("recursive", method)?, "recursive")?;
            Call::CreateContainerView {
                container,
                kinds,
                recursive,
            }
        }
        "DestroyView" => Call::DestroyView,
        "CreatePropertyCollector" => Call::CreatePropertyCollector,
        "DestroyPropertyCollector" => Call::DestroyPropertyCollector,
        "CreateFilter" => {
            if cursor.enter("spec")?.is_none() {
                return Err(missing("spec", method));
            }
            let filter = filter(cursor)?;
            boolean(&cursor.required("partialUpdates", method)?, "partialUpdates")?;
            Call::CreateFilter { filter }
        }
        "DestroyPropertyFilter" => Call::DestroyPropertyFilter,
        "WaitForUpdatesEx" => {
            let version = cursor.optional("version")?.unwrap_or_default();
            let (mut max_wait, mut max_updates) = (None, None);
            if cursor.enter("options")?.is_some() {
                max_wait = optional_number(cursor, "maxWaitSeconds")?;
                max_updates = optional_number(cursor, "maxObjectUpdates")?;
                cursor.leave("vmodl.query.PropertyCollector.WaitOptions")?;
            }
            Call::WaitForUpdatesEx {
                version,
                max_wait,
                max_updates,
            }
        }
        // The older one, which has no options.
        "WaitForUpdates" => Call::WaitForUpdatesEx {
            version: cursor.optional("version")?.unwrap_or_default(),
            max_wait: None,
            max_updates: None,
        },
        "CancelWaitForUpdates" => Call::CancelWaitForUpdates,
        "QueryOptions" => Call::QueryOptions {
            name: cursor.optional("name")?,
        },
        "QueryPerfProviderSummary" => Call::QueryPerfProviderSummary {
            entity: reference(cursor, "entity", method)?,
        },
        "QueryAvailablePerfMetric" => {
            let entity = reference(cursor, "entity", method)?;
            optional_time(cursor, "beginTime")?;
            optional_time(cursor, "endTime")?;
            Call::QueryAvailablePerfMetric {
                entity,
                interval: optional_number(cursor, "intervalId")?,
            }
        }
        "QueryPerf" => {
            let mut specs = Vec::new();
            while cursor.enter("querySpec")?.is_some() {
                specs.push(query_spec(cursor)?);
            }
            if specs.is_empty() {
                return Err(Refusal::schema(
                    "Required parameter querySpec is missing\n\nwhile parsing call information for \
                     method QueryPerf",
                ));
            }
            Call::QueryPerf { specs }
        }
        _ => operations::arguments(cursor, method)?.unwrap_or(Call::Unknown),
    })
}

fn query_spec<'a>(cursor: &mut Cursor<'a>) -> Result<QuerySpec<'a>, Refusal> {
    const OWNER: &str = "vim.PerformanceManager.QuerySpec";
    const ID: &str = "vim.PerformanceManager.MetricId";
    let entity = reference(cursor, "entity", OWNER)?;
    let start = optional_time(cursor, "startTime")?;
    let end = optional_time(cursor, "endTime")?;
    let max_sample = optional_number(cursor, "maxSample")?;
    let mut metrics = Vec::new();
    while cursor.enter("metricId")?.is_some() {
        let counter = number(&cursor.required("counterId", ID)?, "counterId")?;
        let instance = cursor.required("instance", ID)?;
        cursor.leave(ID)?;
        metrics.push(MetricId { counter, instance });
    }
    let interval = optional_number(cursor, "intervalId")?;
    let csv = match cursor.optional("format")?.as_deref() {
        None | Some("normal") => false,
        Some("csv") => true,
        Some(other) => {
            return Err(Refusal::schema(format!(
                "Cannot convert \"{other}\" to vim.PerformanceManager.Format"
            )));
        }
    };
    cursor.leave(OWNER)?;
    Ok(QuerySpec {
        entity,
        start,
        end,
        max_sample,
        metrics,
        interval,
        csv,
    })
}

fn filter<'a>(cursor: &mut Cursor<'a>) -> Result<Filter<'a>, Refusal> {
    const OWNER: &str = "vmodl.query.PropertyCollector.FilterSpec";
    const PROPS: &str = "vmodl.query.PropertyCollector.PropertySpec";
    const OBJECT: &str = "vmodl.query.PropertyCollector.ObjectSpec";
    let mut props = Vec::new();
    while cursor.enter("propSet")?.is_some() {
        let kind = cursor.required("type", PROPS)?;
        let all = optional_flag(cursor, "all")?.unwrap_or(false);
        let mut paths = Vec::new();
        while let Some(path) = cursor.optional("pathSet")? {
            paths.push(path);
        }
        cursor.leave(PROPS)?;
        props.push(PropSet { kind, all, paths });
    }
    if props.is_empty() {
        return Err(missing("propSet", OWNER));
    }
    let mut objects = Vec::new();
    while cursor.enter("objectSet")?.is_some() {
        let object = reference(cursor, "obj", OBJECT)?;
        let skip = optional_flag(cursor, "skip")?.unwrap_or(false);
        let select = selections(cursor)?;
        cursor.leave(OBJECT)?;
        objects.push(ObjectSet { object, skip, select });
    }
    if objects.is_empty() {
        return Err(missing("objectSet", OWNER));
    }
    let report_missing = optional_flag(cursor, "reportMissingObjectsInResults")?.unwrap_or(false);
    cursor.leave(OWNER)?;
    Ok(Filter {
        props,
        objects,
        report_missing,
    })
}

fn selections<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<Selection<'a>>, Refusal> {
    const TRAVERSAL: &str = "vmodl.query.PropertyCollector.TraversalSpec";
    const SELECTION: &str = "vmodl.query.PropertyCollector.SelectionSpec";
    let mut all = Vec::new();
    while let Some(start) = cursor.enter("selectSet")? {
        let selection = match data_type(&start).as_deref() {
            Some("TraversalSpec") => {
                let name = cursor.optional("name")?;
                let kind = cursor.required("type", TRAVERSAL)?;
                let path = cursor.required("path", TRAVERSAL)?;
                let skip = optional_flag(cursor, "skip")?.unwrap_or(false);
                let select = selections(cursor)?;
                cursor.leave(TRAVERSAL)?;
                Selection::Traversal {
                    name,
                    kind,
                    path,
                    skip,
                    select,
                }
            }
            None | Some("SelectionSpec") => {
                let name = cursor.optional("name")?;
                cursor.leave(SELECTION)?;
                Selection::Named(name.ok_or_else(|| missing("name", SELECTION))?)
            }
            Some(other) => {
                return Err(Refusal::schema(format!(
                    "Type \"{other}\" is not a subtype of SelectionSpec"
                )));
            }
        };
        all.push(selection);
    }
    Ok(all)
}
