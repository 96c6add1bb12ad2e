//! What each SOAP method answers, and who may call it.
//!
//! Owns: the dispatch, the check of `_this`, the authentication rule of each method. Properties and
//! performance data are written by their own modules. Never touches a socket.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::calls::Calls;
use crate::clock::History;
use crate::grid;
use crate::perf::Source;
use crate::perf::prepared::Prepared;
use crate::properties::{self, Continuation, Obj, Scope, View};
use crate::rules::{Effects, Rules};
use crate::session::{Refused, SessionInfo, Sessions};
use crate::soap::{self, Call, Fault, Filter, Ref, Request, element, moref};
use crate::spec::{ExpiredViews, PlatformKind, Spec};
use crate::world::{State, World};

mod history;
mod operations;

pub(crate) use history::TaskCollector;
pub(crate) use operations::injected;

/// Option that bounds roll-up queries.
const MAX_QUERY_METRICS: &str = "config.vpxd.stats.maxQueryMetrics";

/// API versions that the server knows, newest first.
pub(crate) const VERSIONS: [&str; 22] = [
    "8.0.3.0", "8.0.2.0", "8.0.1.0", "8.0.0.1", "8.0.0.0", "7.0.3.2", "7.0.3.0", "7.0.2.0", "7.0.1.0",
    "7.0.0.2", "7.0", "6.7.3", "6.7.2", "6.7.1", "6.7", "6.5", "6.0", "5.5", "5.1", "5.0", "4.1", "4.0",
];

/// Everything that a call is answered from.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) spec: Spec,
    pub(crate) world: World,
    pub(crate) rules: Rules,
    pub(crate) sessions: Sessions,
    pub(crate) calls: Calls,
    pub(crate) prepared: OnceLock<Prepared>,
}

impl Service {
    /// Prepares what QueryPerf will be asked for; only the first time counts.
    pub(crate) fn prepare(&self, counters: &[usize], ahead: i64) {
        let (state, history) = self.world.look();
        let newest = grid::newest_stamp(history.reading.horizon);
        let source = Source {
            state: &state,
            reading: history.reading,
            not_lived: &history.not_lived,
            empty_entities: self.spec.empty_entities,
            max_query_metrics: self.spec.max_query_metrics,
            prepared: None,
        };
        let stamps = newest - grid::RING..grid::ceil(newest + ahead, grid::INTERVAL);
        self.prepared
            .get_or_init(|| Prepared::new(&source, counters, stamps));
    }
}

/// A successful answer.
pub(crate) struct Answer {
    pub(crate) body: String,
    /// A new session's cookie.
    pub(crate) cookie: Option<String>,
    /// A call that waits for changes has none to tell yet.
    pub(crate) waits: bool,
}

/// An unsuccessful answer.
pub(crate) enum Failure {
    Fault(Fault),
    /// The server has no room for another session: HTTP 503.
    Full,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Who calls.
pub(crate) struct Caller<'a> {
    /// The cookie as sent, valid or not.
    pub(crate) cookie: Option<&'a str>,
    pub(crate) user_agent: &'a str,
}

/// Answers a call.
pub(crate) fn execute(
    service: &Service,
    request: &Request<'_>,
    caller: &Caller<'_>,
    effects: &Effects,
) -> Result<Answer, Failure> {
    let reading = service.world.clock().read();
    let session = caller
        .cookie
        .filter(|cookie| service.sessions.touch(cookie, reading));
    let not_authenticated = || Fault::not_authenticated(&request.this.kind, &request.this.value);
    let mut out = soap::begin(&request.method);
    if let Call::Operate(_) | Call::CancelTask = &request.call {
        let info = session.and_then(|cookie| service.sessions.info(cookie));
        let info = info.ok_or_else(not_authenticated)?;
        match &request.call {
            Call::Operate(operation) => {
                operations::order(service, request, operation, &info, effects, &mut out)?;
            }
            _ => operations::cancel(service, request)?,
        }
        return Ok(Answer {
            body: soap::end(out, &request.method),
            cookie: None,
            waits: false,
        });
    }
    let (state, history) = service.world.look();
    let call = Context {
        service,
        state: &state,
        history: &history,
        request,
        session,
        effects,
        info: session.and_then(|cookie| service.sessions.info(cookie)),
    };
    call.check_receiver()?;
    let begun = out.len();
    let mut cookie = None;
    match &request.call {
        Call::RetrieveServiceContent => call.service_content(&mut out),
        Call::Login { user, password } => {
            let login = service
                .sessions
                .login(user, password, caller.user_agent, caller.cookie, reading);
            match login {
                Ok((new, info)) => {
                    out.push_str("<returnval>");
                    user_session(&mut out, &info);
                    out.push_str("</returnval>");
                    cookie = Some(new);
                }
                Err(Refused::InvalidLogin) => {
                    return Err(Fault::by_type("InvalidLogin", "", None).into());
                }
                Err(Refused::Full) => return Err(Failure::Full),
            }
        }
        Call::RetrievePropertiesEx { filters, max_objects } => {
            call.retrieve(&mut out, filters, *max_objects)?
        }
        _ => {
            let session = session.ok_or_else(not_authenticated)?;
            call.authenticated(&mut out, session)?;
        }
    }
    let waits = matches!(request.call, Call::WaitForUpdatesEx { .. }) && out.len() == begun;
    Ok(Answer {
        body: soap::end(out, &request.method),
        cookie,
        waits,
    })
}

/// Tells the collector that a wait begins; without a session there is none.
pub(crate) fn begin_wait(service: &Service, request: &Request<'_>, cookie: &str) {
    let shared = service.world.read().names.property_collector;
    if let Some(collector) = service.sessions.collector(cookie, &request.this.value, shared) {
        lock(&collector).begin();
    }
}

struct Context<'a> {
    service: &'a Service,
    state: &'a State,
    /// When the state is like that.
    history: &'a History,
    request: &'a Request<'a>,
    session: Option<&'a str>,
    effects: &'a Effects,
    info: Option<SessionInfo>,
}

impl Context<'_> {
    /// `_this` must be the object that has the method.
    fn check_receiver(&self) -> Result<(), Fault> {
        let names = &self.state.names;
        let expected = match &self.request.call {
            Call::RetrieveServiceContent | Call::CurrentTime => ("ServiceInstance", "ServiceInstance"),
            Call::Login { .. } | Call::Logout => ("SessionManager", names.session_manager),
            Call::RetrievePropertiesEx { .. }
            | Call::ContinueRetrievePropertiesEx { .. }
            | Call::CancelRetrievePropertiesEx { .. } => ("PropertyCollector", names.property_collector),
            Call::CreateContainerView { .. } => ("ViewManager", names.view_manager),
            Call::QueryOptions { .. } => ("OptionManager", names.setting),
            Call::QueryPerfProviderSummary { .. }
            | Call::QueryAvailablePerfMetric { .. }
            | Call::QueryPerf { .. } => ("PerformanceManager", names.perf_manager),
            Call::CreatePropertyCollector => ("PropertyCollector", names.property_collector),
            Call::CreateCollectorForTasks { .. } => ("TaskManager", names.task_manager),
            // Views, collectors and filters are looked up in their session, what is operated on by the world.
            Call::DestroyView
            | Call::DestroyPropertyCollector
            | Call::CreateFilter { .. }
            | Call::DestroyPropertyFilter
            | Call::WaitForUpdatesEx { .. }
            | Call::CancelWaitForUpdates
            | Call::Fetch { .. }
            | Call::ReadNextTasks { .. }
            | Call::RewindCollector
            | Call::DestroyCollector
            | Call::Operate(_)
            | Call::CancelTask => return Ok(()),
            Call::Unknown => {
                let this = &self.request.this;
                return Err(Fault::new("MethodNotFound", "The method is not found.")
                    .with_ref("receiver", &this.kind, &this.value)
                    .with("method", &self.request.method));
            }
        };
        let this = &self.request.this;
        if (&*this.kind, &*this.value) == expected {
            Ok(())
        } else {
            Err(Fault::not_found(&this.kind, &this.value))
        }
    }

    fn authenticated(&self, out: &mut String, session: &str) -> Result<(), Fault> {
        let sessions = &self.service.sessions;
        match &self.request.call {
            Call::CurrentTime => {
                out.push_str("<returnval>");
                grid::push_micros(out, self.history.reading.now);
                out.push_str("</returnval>");
            }
            Call::Logout => sessions.logout(session),
            Call::ContinueRetrievePropertiesEx { token } => {
                let rest = sessions.take_token(session, token);
                let rest = rest.ok_or_else(|| Fault::invalid_property("token"))?;
                self.page(out, rest);
            }
            Call::CancelRetrievePropertiesEx { token } => {
                let rest = sessions.take_token(session, token);
                rest.ok_or_else(|| Fault::invalid_property("token"))?;
            }
            Call::Fetch { path } => {
                let this = &self.request.this;
                if this.kind == "ServiceInstance" && path == "content" {
                    self.service_content(out);
                    return Ok(());
                }
                let object = properties::named(self.state, this).or_else(|| self.views()(this));
                let object = object.ok_or_else(|| Fault::not_found(&this.kind, &this.value))?;
                properties::fetch(out, &self.scope(), &object, path)?;
            }
            Call::CreateContainerView {
                container,
                kinds,
                recursive,
            } => {
                let found = properties::named(self.state, container);
                let container = found
                    .filter(Obj::is_entity)
                    .ok_or_else(|| Fault::not_found(&container.kind, &container.value))?;
                let view = sessions.add_view(session, |moref| View {
                    moref,
                    container,
                    kinds: kinds.iter().map(|kind| kind.clone().into_owned()).collect(),
                    recursive: *recursive,
                });
                moref(out, "returnval", "ContainerView", &view.unwrap_or_default());
            }
            Call::DestroyView => {
                let this = &self.request.this;
                if !sessions.remove_view(session, &this.value) {
                    return Err(Fault::not_found(&this.kind, &this.value));
                }
            }
            Call::CreatePropertyCollector
            | Call::DestroyPropertyCollector
            | Call::CreateFilter { .. }
            | Call::DestroyPropertyFilter
            | Call::WaitForUpdatesEx { .. }
            | Call::CancelWaitForUpdates => self.track(out, session)?,
            Call::CreateCollectorForTasks { .. }
            | Call::ReadNextTasks { .. }
            | Call::RewindCollector
            | Call::DestroyCollector => {
                history::answer(self.service, self.state, self.request, session, out)?
            }
            Call::QueryOptions { name } => self.options(out, name.as_deref())?,
            Call::QueryPerfProviderSummary { entity } => {
                self.perf(|source| source.provider(out, entity))?;
            }
            Call::QueryAvailablePerfMetric { entity, interval } => {
                self.perf(|source| source.available(out, entity, *interval))?;
            }
            Call::QueryPerf { specs } => self.perf(|source| source.query(out, specs, self.effects))?,
            // Answered before, or refused as unknown.
            Call::RetrieveServiceContent
            | Call::Login { .. }
            | Call::RetrievePropertiesEx { .. }
            | Call::Operate(_)
            | Call::CancelTask
            | Call::Unknown => {}
        }
        Ok(())
    }

    fn perf(&self, ask: impl FnOnce(&Source<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
        ask(&Source {
            state: self.state,
            reading: self.history.reading,
            not_lived: &self.history.not_lived,
            empty_entities: self.service.spec.empty_entities,
            max_query_metrics: self.service.spec.max_query_metrics,
            prepared: self.service.prepared.get(),
        })
    }

    /// The methods of change tracking.
    fn track(&self, out: &mut String, session: &str) -> Result<(), Fault> {
        let sessions = &self.service.sessions;
        let this = &self.request.this;
        let unknown = || Fault::not_found(&this.kind, &this.value);
        let collector = || {
            let shared = self.state.names.property_collector;
            let collector = sessions.collector(session, &this.value, shared);
            collector
                .filter(|_| this.kind == "PropertyCollector")
                .ok_or_else(unknown)
        };
        match &self.request.call {
            Call::CreatePropertyCollector => {
                let made = sessions.add_collector(session).unwrap_or_default();
                moref(out, "returnval", "PropertyCollector", &made);
            }
            Call::DestroyPropertyCollector => {
                let known = sessions.remove_collector(session, &this.value);
                known.then_some(()).ok_or_else(unknown)?;
            }
            Call::CreateFilter { filter } => {
                // Whatever is wrong with it is said now, not at the first wait.
                properties::retrieve(
                    &self.scope(),
                    std::slice::from_ref(filter),
                    usize::MAX,
                    self.views(),
                )?;
                let filter = lock(&*collector()?).add(filter.clone().into_owned(), &this.value);
                moref(out, "returnval", "PropertyFilter", &filter);
            }
            Call::DestroyPropertyFilter => {
                let mut collectors = sessions.collectors(session).into_iter();
                if !collectors.any(|collector| lock(&collector).remove(&this.value)) {
                    return Err(unknown());
                }
            }
            Call::CancelWaitForUpdates => lock(&*collector()?).cancel(),
            Call::WaitForUpdatesEx {
                version,
                max_wait,
                max_updates,
            } => {
                if max_wait.is_some_and(|seconds| seconds < 0) {
                    return Err(Fault::invalid_argument("options.maxWaitSeconds"));
                }
                let page = self.service.spec.page_size.max(1);
                let most = match max_updates.map(usize::try_from) {
                    None => page,
                    Some(Ok(most)) if most > 0 => most.min(page),
                    Some(_) => return Err(Fault::invalid_argument("options.maxObjectUpdates")),
                };
                let found = lock(&*collector()?).poll(&self.scope(), version, most, self.views())?;
                if let Some(found) = found {
                    out.push_str("<returnval>");
                    out.push_str(&found);
                    out.push_str("</returnval>");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The views that the caller may name.
    fn views(&self) -> impl Fn(&Ref<'_>) -> Option<Obj> {
        let spec = &self.service.spec;
        let sessions = &self.service.sessions;
        let session = self.session;
        move |reference: &Ref<'_>| {
            let view = match session {
                Some(session) => sessions.view(session, &reference.value),
                None if spec.expired_views == ExpiredViews::MissingSet => {
                    sessions.ghost_view(&reference.value)
                }
                None => None,
            };
            (reference.kind == "ContainerView").then_some(())?;
            Some(Obj::View(Arc::clone(&view?)))
        }
    }

    fn retrieve(
        &self,
        out: &mut String,
        filters: &[Filter<'_>],
        max_objects: Option<i32>,
    ) -> Result<(), Fault> {
        let spec = &self.service.spec;
        let asked = match max_objects.map(usize::try_from) {
            None => usize::MAX,
            Some(Ok(asked)) if asked > 0 => asked,
            Some(_) => return Err(Fault::invalid_argument("options.maxObjects")),
        };
        let page = asked.min(spec.page_size.max(1));
        let found = properties::retrieve(&self.scope(), filters, page, self.views())?;
        self.page(out, found);
        Ok(())
    }

    fn scope(&self) -> Scope<'_> {
        Scope {
            state: self.state,
            reading: self.history.reading,
            session: self.info.as_ref(),
            effects: self.effects,
        }
    }

    fn page(&self, out: &mut String, from: Continuation) {
        let page = properties::write_page(&self.scope(), from);
        // Without a session there is nobody to keep the rest for.
        let token = match (page.rest, self.session) {
            (Some(rest), Some(session)) => self.service.sessions.add_token(session, rest),
            _ => None,
        };
        // Nothing matched: no result at all.
        if page.count == 0 && token.is_none() {
            return;
        }
        out.push_str("<returnval>");
        if let Some(token) = token {
            element(out, "token", &token);
        }
        out.push_str(&page.objects);
        out.push_str("</returnval>");
    }

    fn options(&self, out: &mut String, name: Option<&str>) -> Result<(), Fault> {
        let value = self.service.spec.max_query_metrics;
        let value = value.filter(|_| self.state.kind() == PlatformKind::Vcenter);
        match (name, value) {
            (None | Some(MAX_QUERY_METRICS), Some(value)) => {
                out.push_str("<returnval xsi:type=\"OptionValue\">");
                element(out, "key", MAX_QUERY_METRICS);
                out.push_str("<value xsi:type=\"xsd:string\">");
                out.push_str(&value.to_string());
                out.push_str("</value></returnval>");
                Ok(())
            }
            (None, None) => Ok(()),
            (Some(name), _) => Err(Fault::new("InvalidName", "The name is not valid.").with("name", name)),
        }
    }

    fn service_content(&self, out: &mut String) {
        let names = &self.state.names;
        out.push_str("<returnval>");
        moref(out, "rootFolder", "Folder", names.root_folder);
        moref(
            out,
            "propertyCollector",
            "PropertyCollector",
            names.property_collector,
        );
        moref(out, "viewManager", "ViewManager", names.view_manager);
        out.push_str("<about>");
        let (name, full, os, line, api) = match self.state.kind() {
            PlatformKind::Vcenter => (
                "VMware vCenter Server",
                "VMware vCenter Server 8.0.3 build-24022515",
                "linux-x64",
                "vpx",
                "VirtualCenter",
            ),
            PlatformKind::Esxi => (
                "VMware ESXi",
                "VMware ESXi 8.0.3 build-24022510",
                "vmnix-x86",
                "embeddedEsx",
                "HostAgent",
            ),
        };
        element(out, "name", name);
        element(out, "fullName", full);
        element(out, "vendor", "VMware, Inc.");
        element(out, "version", "8.0.3");
        element(out, "build", full.rsplit('-').next().unwrap_or_default());
        element(out, "localeVersion", "INTL");
        element(out, "localeBuild", "000");
        element(out, "osType", os);
        element(out, "productLineId", line);
        element(out, "apiType", api);
        element(out, "apiVersion", VERSIONS.first().copied().unwrap_or_default());
        if self.state.kind() == PlatformKind::Vcenter {
            element(out, "instanceUuid", &self.state.truth.identity);
        }
        element(out, "licenseProductName", name);
        element(out, "licenseProductVersion", "8.0");
        out.push_str("</about>");
        moref(out, "setting", "OptionManager", names.setting);
        moref(out, "sessionManager", "SessionManager", names.session_manager);
        moref(out, "perfManager", "PerformanceManager", names.perf_manager);
        moref(out, "taskManager", "TaskManager", names.task_manager);
        if self.state.kind() == PlatformKind::Vcenter {
            moref(
                out,
                "customFieldsManager",
                "CustomFieldsManager",
                "CustomFieldsManager",
            );
        }
        out.push_str("</returnval>");
    }
}

fn lock<T>(collector: &Mutex<T>) -> MutexGuard<'_, T> {
    collector.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The inner XML of a `UserSession`.
pub(crate) fn user_session(out: &mut String, session: &SessionInfo) {
    element(out, "key", &session.key);
    element(out, "userName", &session.user);
    element(out, "fullName", &session.user);
    for (name, time) in [
        ("loginTime", session.login_time),
        ("lastActiveTime", session.active_time),
    ] {
        let mut text = String::new();
        grid::push_micros(&mut text, time);
        element(out, name, &text);
    }
    element(out, "locale", "en");
    element(out, "messageLocale", "en");
    element(out, "extensionSession", "false");
    element(out, "ipAddress", "127.0.0.1");
    element(out, "userAgent", &session.user_agent);
    element(out, "callCount", &session.call_count.to_string());
}

/// The version document.
pub(crate) fn versions() -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\n");
    out.push_str("<namespaces version=\"1.0\">\n <namespace>\n  <name>urn:vim25</name>\n");
    let mut versions = VERSIONS.iter();
    out.push_str("  <version>");
    out.push_str(versions.next().copied().unwrap_or_default());
    out.push_str("</version>\n  <priorVersions>\n");
    for version in versions {
        out.push_str("   <version>");
        out.push_str(version);
        out.push_str("</version>\n");
    }
    out.push_str("  </priorVersions>\n </namespace>\n</namespaces>\n");
    out
}
