//! Platforms: which there are, and their changes.
//!
//! What is changed goes through the registrar, as commands do. Each change has an intent in the audit log before it is
//! made and an outcome after; neither has a password.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::api::context::{Caller, Context};
use crate::api::extract;
use crate::api::extract::{Nothing, Path, Query};
use crate::api::listing::{Asked, PLATFORMS, Sent, key};
use crate::api::problem::Problem;
use crate::config::{PlatformKind, Trust, thumbprint};
use crate::error::Chain;
use crate::inventory::Trial;
use crate::model::ids::PlatformId;
use crate::registrar;
use crate::registrar::{Change, Registrar, trial_json};
use crate::secret::Secret;
use crate::store;
use crate::store::Refusal;
use crate::store::audit::{Kind, Outcome};
use crate::store::reading::Platform;
use crate::store::registry::{Address, Registered};

/// Characters of a password; more than any server takes.
pub(in crate::api) const LONGEST_PASSWORD: usize = 4096;

/// Characters of certificates as PEM.
pub(in crate::api) const LONGEST_PEM: usize = 32_768;

/// When to try again where the key ring is missing: a person has to bring it.
const KEYS_RETRY: Duration = Duration::from_secs(30);

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/api/virt-center/platforms/", get(list).post(add))
        .route(
            "/api/virt-center/platforms/{id}/",
            get(show).patch(edit).delete(remove),
        )
        .route("/api/virt-center/platforms/{id}/test/", post(test))
        .route("/api/virt-center/platforms/{id}/sync/", post(sync))
        .route("/api/virt-center/platforms/{id}/maintenance/", post(maintenance))
        .route("/api/virt-center/platforms/{id}/credentials/", put(credentials))
}

/// A field that may be absent, but not null.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// As [`given`], of a whole number: 443.0 is one, too, says JSON Schema.
fn whole<'de, T: TryFrom<i64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number.as_i64().or_else(|| {
        let text = number.as_f64().filter(|value| value.fract() == 0.0)?;
        format!("{text:.0}").parse().ok()
    });
    whole
        .and_then(|whole| T::try_from(whole).ok())
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom(format!("{number} is not a number of this kind")))
}

/// What adding and changing share; each body has these fields beside its own.
macro_rules! body {
    ($(#[$attribute:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$attribute])*
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($own)*
            #[serde(default, rename = "type", deserialize_with = "given")]
            kind: Option<Type>,
            #[serde(default, deserialize_with = "whole")]
            port: Option<u16>,
            #[serde(default, deserialize_with = "given")]
            tls_verify: Option<bool>,
            #[serde(default, deserialize_with = "given")]
            ca_pem: Option<String>,
            #[serde(default, deserialize_with = "given")]
            thumbprint: Option<String>,
            #[serde(default, deserialize_with = "given")]
            datacenters: Option<Vec<String>>,
            #[serde(default, deserialize_with = "given")]
            include: Option<Vec<String>>,
            #[serde(default, deserialize_with = "given")]
            exclude: Option<Vec<String>>,
            #[serde(default, deserialize_with = "given")]
            active: Option<bool>,
            #[serde(default)]
            untested: bool,
        }

        impl $name {
            /// What is to be another value, given host and user.
            fn change(&self, host: Option<&String>, user: Option<&String>) -> Result<Change, Problem> {
                Ok(Change {
                    kind: self.kind.map(Type::kind),
                    host: host.cloned(),
                    port: port(self.port)?,
                    user: user.cloned(),
                    trust: trust(self.tls_verify, self.ca_pem.as_ref(), self.thumbprint.as_ref())?,
                    datacenters: self.datacenters.clone(),
                    include: self.include.clone(),
                    exclude: self.exclude.clone(),
                })
            }
        }
    };
}

body! {
    /// A platform to add.
    NewPlatform {
        name: String,
        host: String,
        user: String,
        password: String,
    }
}

body! {
    /// What is to be another value.
    PlatformChange {
        #[serde(default, deserialize_with = "given")]
        host: Option<String>,
        #[serde(default, deserialize_with = "given")]
        user: Option<String>,
        #[serde(default, deserialize_with = "given")]
        password: Option<String>,
        #[serde(default, deserialize_with = "whole")]
        revision: Option<i64>,
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Vcenter,
    Esxi,
}

impl Type {
    const fn kind(self) -> PlatformKind {
        match self {
            Self::Vcenter => PlatformKind::VCenter,
            Self::Esxi => PlatformKind::Esxi,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    password: String,
    #[serde(default, deserialize_with = "given")]
    user: Option<String>,
    #[serde(default)]
    untested: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Maintenance {
    enabled: bool,
}

/// The name of what is to be removed, in body or query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    confirm: Option<String>,
}

/// A platform as it is kept now.
#[derive(Debug, Serialize)]
struct Kept {
    platform: Platform,
    trial: Option<Value>,
    also_collected_by: Vec<String>,
}

/// How a trial went.
#[derive(Debug, Serialize)]
struct Tried {
    ok: bool,
    class: Option<&'static str>,
    reason: Option<String>,
    trial: Option<Value>,
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Json<Sent<Platform>>, Problem> {
    let wanted = PLATFORMS.read(asked, &caller)?;
    let listed = context.reader().list(&wanted.filter, wanted.page).await?;
    Ok(Json(PLATFORMS.page(listed, |platform| platform)))
}

async fn show(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Platform>, Problem> {
    let what = format!("platform {id}");
    let found: Option<Platform> = context.reader().find(&None, key(id)?).await?;
    let platform = found.ok_or_else(|| Problem::not_found(&what))?;
    caller.may_see(&context, &platform.name, what).await?;
    Ok(Json(platform))
}

async fn add(
    State(context): State<Context>,
    caller: Caller,
    Query(Nothing {}): Query<Nothing>,
    extract::Json { value: new, .. }: extract::Json<NewPlatform>,
) -> Result<(StatusCode, Json<Kept>), Problem> {
    let blank = Address::new(PlatformKind::VCenter, &new.host, 443);
    let address = new.change(Some(&new.host), Some(&new.user))?.apply(&blank)?;
    let password = password(new.password)?;
    if let Some(message) = crate::config::name_problem(&new.name) {
        return Err(bad_body("name", &message));
    }
    caller.may_add(&context, &new.name).await?;
    let after =
        json!({ "address": audited(&address), "active": new.active.unwrap_or(true), "password": "set" });
    let change = Changing {
        context: &context,
        caller: &caller,
        platform: &new.name,
        before: None,
        after: Some(after),
    };
    let registrar = context.registrar();
    let (active, untested) = (new.active.unwrap_or(true), new.untested);
    let trial = change
        .audited(registrar.add(&new.name, &address, &password, active, untested))
        .await?;
    let added = context.database().registered_platform(&new.name).await?;
    Ok((
        StatusCode::CREATED,
        Json(kept(&context, &caller, added.id, trial).await?),
    ))
}

async fn edit(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
    extract::Json { value: change, .. }: extract::Json<PlatformChange>,
) -> Result<Json<Kept>, Problem> {
    let platform = registered(&context, &caller, id).await?;
    Registrar::check_own(&platform)?;
    let wanted = change.change(change.host.as_ref(), change.user.as_ref())?;
    let moves = wanted != Change::default();
    let new = change.password.map(password).transpose()?;
    if !moves && new.is_none() && change.active.is_none() {
        return Err(Problem::unprocessable(
            "nothing_to_change",
            "Say what is to be another value, such as {\"host\": \"vcenter-2.example.com\"}.",
        ));
    }
    let address = wanted.apply(&platform.address)?;
    if change
        .revision
        .is_some_and(|revision| revision != platform.revision)
    {
        return Err(registrar::Error::Store(store::Error::Registry {
            name: platform.name,
            refusal: Refusal::ChangedMeanwhile,
        })
        .into());
    }
    // The stored password goes where it went before and nowhere else: who may change a platform may not read it.
    if goes_elsewhere(&platform.address, &address) && new.is_none() {
        return Err(Problem::unprocessable(
            "password_needed",
            "Where the password goes, or which certificate is trusted on the way, is to be another: give the password anew.",
        ));
    }
    let audit = Changing {
        context: &context,
        caller: &caller,
        platform: &platform.name,
        before: Some(json!({ "address": audited(&platform.address), "active": platform.is_active })),
        after: Some(json!({
            "address": audited(&address), "active": change.active, "password": new.as_ref().map(|_| "set"),
        })),
    };
    let trial = audit
        .audited(async {
            let trial = if moves || new.is_some() {
                context
                    .registrar()
                    .edit(&platform, &address, new.as_ref(), change.untested)
                    .await?
            } else {
                None
            };
            if let Some(active) = change.active {
                context.database().set_platform_active(&platform, active).await?;
            }
            Ok(trial)
        })
        .await?;
    Ok(Json(kept(&context, &caller, platform.id, trial).await?))
}

async fn credentials(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
    extract::Json { value: new, .. }: extract::Json<Credentials>,
) -> Result<Json<Kept>, Problem> {
    let platform = registered(&context, &caller, id).await?;
    Registrar::check_own(&platform)?;
    let password = password(new.password)?;
    let change = Change {
        user: new.user,
        ..Change::default()
    };
    let address = change.apply(&platform.address)?;
    let audit = Changing {
        context: &context,
        caller: &caller,
        platform: &platform.name,
        before: Some(json!({ "user": platform.address.user })),
        after: Some(json!({ "user": address.user, "password": "set" })),
    };
    let trial = audit
        .audited(
            context
                .registrar()
                .edit(&platform, &address, Some(&password), new.untested),
        )
        .await?;
    Ok(Json(kept(&context, &caller, platform.id, trial).await?))
}

async fn remove(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(query): Query<Confirmation>,
    extract::Json { value: body, .. }: extract::Json<Confirmation>,
) -> Result<StatusCode, Problem> {
    let platform = registered(&context, &caller, id).await?;
    if body.confirm.or(query.confirm).as_ref() != Some(&platform.name) {
        return Err(Problem::unprocessable(
            "not_confirmed",
            "Say the exact name of the platform in `confirm`, in the body or in the query.",
        ));
    }
    let audit = Changing {
        context: &context,
        caller: &caller,
        platform: &platform.name,
        before: Some(json!({ "address": audited(&platform.address), "active": platform.is_active })),
        after: None,
    };
    audit
        .audited(async { Ok(context.database().remove_platform(&platform).await?) })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn maintenance(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
    extract::Json { value: wanted, .. }: extract::Json<Maintenance>,
) -> Result<Json<Platform>, Problem> {
    let platform = registered(&context, &caller, id).await?;
    let audit = Changing {
        context: &context,
        caller: &caller,
        platform: &platform.name,
        before: Some(json!({ "maintenance": platform.in_maintenance })),
        after: Some(json!({ "maintenance": wanted.enabled })),
    };
    audit
        .audited(async {
            let database = context.database();
            Ok(database
                .set_platform_maintenance(&platform, wanted.enabled)
                .await?)
        })
        .await?;
    Ok(Json(current(&context, platform.id).await?))
}

async fn sync(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
    extract::Json {
        value: Nothing {}, ..
    }: extract::Json<Nothing>,
) -> Result<(StatusCode, Json<Platform>), Problem> {
    let platform = registered(&context, &caller, id).await?;
    let audit = Changing {
        context: &context,
        caller: &caller,
        platform: &platform.name,
        before: None,
        after: None,
    };
    audit
        .audited(async {
            context.database().ask_for_sync(&platform).await?;
            Ok(())
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(current(&context, platform.id).await?)))
}

async fn test(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(Nothing {}): Query<Nothing>,
    extract::Json {
        value: Nothing {}, ..
    }: extract::Json<Nothing>,
) -> Result<Json<Tried>, Problem> {
    let platform = registered(&context, &caller, id).await?;
    let audit = Changing {
        context: &context,
        caller: &caller,
        platform: &platform.name,
        before: None,
        after: None,
    };
    let tried = audit
        .audited(async {
            let configured = context.registrar().with_password(&platform)?;
            Ok(context.registrar().try_platform(&configured).await)
        })
        .await?;
    Ok(Json(match tried {
        Ok(trial) => Tried {
            ok: true,
            class: None,
            reason: None,
            trial: Some(trial_json(&trial)),
        },
        Err(failed) => Tried {
            ok: false,
            class: Some(failed.class),
            reason: Some(failed.reason),
            trial: None,
        },
    }))
}

/// A platform that is there, for who may see it.
async fn registered(context: &Context, caller: &Caller, id: i32) -> Result<Registered, Problem> {
    let what = format!("platform {id}");
    let found = context.database().platform_by_key(PlatformId(key(id)?)).await?;
    let platform = found.ok_or_else(|| Problem::not_found(&what))?;
    caller.may_see(context, &platform.name, what).await?;
    Ok(platform)
}

async fn current(context: &Context, id: PlatformId) -> Result<Platform, Problem> {
    let found: Option<Platform> = context.reader().find(&None, id.0).await?;
    found.ok_or_else(|| Problem::not_found(format!("platform {id}")))
}

async fn kept(
    context: &Context,
    caller: &Caller,
    id: PlatformId,
    trial: Option<Trial>,
) -> Result<Kept, Problem> {
    let mut also_collected_by = match &trial {
        // It is kept already: what cannot be looked up is not worth a failure.
        Some(trial) => context
            .database()
            .twins(id, &trial.about.identity)
            .await
            .unwrap_or_default(),
        None => Vec::new(),
    };
    // Which other platforms there are is not everybody's to know.
    also_collected_by.retain(|name| caller.scope.includes(name));
    Ok(Kept {
        platform: current(context, id).await?,
        trial: trial.as_ref().map(trial_json),
        also_collected_by,
    })
}

/// A change between its two entries of the audit log.
struct Changing<'a> {
    context: &'a Context,
    caller: &'a Caller,
    platform: &'a str,
    before: Option<Value>,
    after: Option<Value>,
}

impl Changing<'_> {
    /// Writes the intent, does the work, writes the outcome. Without an intent nothing is done.
    async fn audited<T>(
        &self,
        work: impl Future<Output = Result<T, registrar::Error>>,
    ) -> Result<T, Problem> {
        let client = self.caller.client.to_string();
        let mut entry = self.caller.entry(Kind::Intent, &client);
        entry.platform = Some(self.platform);
        entry.before = self.before.as_ref().map(Value::to_string);
        entry.after = self.after.as_ref().map(Value::to_string);
        self.context.audit(&entry).await?;
        let result = work.await.map_err(Problem::from);
        let (kind, problem) = match &result {
            Ok(_) => (Kind::Outcome(Outcome::Ok), None),
            Err(problem) => (Kind::Outcome(Outcome::Error), Some(problem)),
        };
        let mut entry = self.caller.entry(kind, &client);
        entry.platform = Some(self.platform);
        entry.code = problem.map(Problem::code);
        entry.detail = problem.map(Problem::detail);
        if self.context.audit(&entry).await.is_err() {
            tracing::warn!(
                request_id = self.caller.request_id.as_str(),
                platform = self.platform,
                action = self.caller.route.action,
                "the outcome of a change is not in the audit log; its intent is"
            );
        }
        result
    }
}

/// Whether a password would be shown to another server, or on a way that is trusted otherwise.
fn goes_elsewhere(now: &Address, then: &Address) -> bool {
    (&now.host, now.port, &now.trust) != (&then.host, then.port, &then.trust)
}

/// How a platform is reached, for the audit log: no secrets are among this.
fn audited(address: &Address) -> Value {
    let texts = |patterns: &[crate::model::filter::Pattern]| {
        patterns.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let trust = match &address.trust {
        Trust::System | Trust::CaFile(_) => "system".to_owned(),
        Trust::CaPem(_) => "ca".to_owned(),
        Trust::Thumbprint(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Trust::Off => "off".to_owned(),
    };
    json!({
        "type": address.kind.as_str(), "host": address.host, "port": address.port, "user": address.user,
        "trust": trust, "datacenters": address.filter.datacenters, "include": texts(&address.filter.include),
        "exclude": texts(&address.filter.exclude),
    })
}

fn bad_body(field: &str, message: &str) -> Problem {
    Problem::bad_request("bad_body", format!("{field}: {message}"))
}

fn port(port: Option<u16>) -> Result<Option<u16>, Problem> {
    if port == Some(0) {
        return Err(bad_body("port", "must be from 1 to 65535"));
    }
    Ok(port)
}

fn password(text: String) -> Result<Secret, Problem> {
    let is_good = (1..=LONGEST_PASSWORD).contains(&text.chars().count()) && !text.contains(char::is_control);
    let secret = Secret::new(text);
    if is_good {
        Ok(secret)
    } else {
        Err(bad_body(
            "password",
            &format!("must be 1 to {LONGEST_PASSWORD} characters, none of them a control character"),
        ))
    }
}

fn trust(
    verify: Option<bool>,
    pem: Option<&String>,
    digits: Option<&String>,
) -> Result<Option<Trust>, Problem> {
    match (verify, pem, digits) {
        (None, None, None) => Ok(None),
        (Some(true), None, None) => Ok(Some(Trust::System)),
        (Some(false), None, None) => Ok(Some(Trust::Off)),
        (None, Some(pem), None) => {
            if pem.is_empty() || pem.chars().count() > LONGEST_PEM || pem.contains('\0') {
                return Err(bad_body(
                    "ca_pem",
                    &format!("must be 1 to {LONGEST_PEM} characters of PEM text"),
                ));
            }
            Ok(Some(Trust::CaPem(pem.clone())))
        }
        (None, None, Some(digits)) => thumbprint(digits)
            .map(|thumbprint| Some(Trust::Thumbprint(thumbprint)))
            .ok_or_else(|| {
                bad_body(
                    "thumbprint",
                    "is not a SHA-256 thumbprint of 64 hexadecimal digits",
                )
            }),
        _ => Err(Problem::unprocessable(
            "trust_ambiguous",
            "tls_verify, ca_pem and thumbprint exclude each other: which certificate is trusted?",
        )),
    }
}

impl From<registrar::Error> for Problem {
    fn from(error: registrar::Error) -> Self {
        use registrar::Error;

        let said = Chain(&error).to_string();
        match error {
            Error::Value { .. } | Error::Filter(_) => Self::bad_request("bad_body", said),
            Error::Trial { .. } => Self::unprocessable("trial_failed", said),
            Error::Trust(_) => Self::unprocessable("bad_trust", said),
            Error::NotHere(_) => Self::conflict("not_here", said),
            Error::Password(_) => Self::conflict("no_password", said),
            Error::Keys(_) => {
                let detail = "Passwords cannot be sealed just now: the key ring cannot be read.";
                Self::unavailable("keys_unavailable", detail, KEYS_RETRY).because(said)
            }
            Error::Seal(_) => Self::internal(said),
            Error::Store(store::Error::Registry { refusal, .. }) => match refusal {
                Refusal::Exists => Self::conflict("name_taken", said),
                Refusal::Absent => Self::new(StatusCode::NOT_FOUND, "not_found", said),
                Refusal::Provisioned => Self::conflict("provisioned", said),
                Refusal::ChangedMeanwhile | Refusal::SameServer => Self::conflict("changed_meanwhile", said),
            },
            Error::Store(error) => error.into(),
        }
    }
}
