//! A login, from the version of the API to the cookie, and its end.
//!
//! Owns: the order of the calls before a session exists, and when a refused login counts as refused.
//! Never does: deciding when to log in; that is the pool's.
//!
//! The kind of the server is checked before the password is sent. Login carries no cookie: a server answers a
//! login inside a session with a refusal, and a fresh one with a fresh cookie.

use std::fmt;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;

use crate::config::Password;
use crate::config::PlatformKind;
use crate::secret;
use crate::secret::Secret;
use crate::soap::client::Client;
use crate::soap::envelope::Object;
use crate::soap::envelope::Request;
use crate::soap::error::Error;
use crate::soap::methods::About;
use crate::soap::methods::ServiceContent;
use crate::soap::methods::versions;
use crate::soap::transport::Limits;

/// The largest answer around a login; all of them are a few KiB.
const REPLY_LIMIT_BYTES: usize = 1024 * 1024;

/// Where a password comes from, or why it cannot.
pub type PasswordResult = Result<Secret, Box<dyn std::error::Error + Send + Sync>>;

/// An account. The password is read anew at each login, so that a rotated one needs no restart.
#[derive(Clone)]
pub struct Credentials {
    /// Its name.
    pub user: String,
    password: Arc<dyn Fn() -> PasswordResult + Send + Sync>,
    /// Keys of the marks.
    marks: RandomState,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// An account whose password `password` fetches.
    pub fn new(
        user: impl Into<String>,
        password: impl Fn() -> PasswordResult + Send + Sync + 'static,
    ) -> Self {
        Self {
            user: user.into(),
            password: Arc::new(password),
            marks: RandomState::new(),
        }
    }

    /// An account whose password is where the configuration says.
    pub fn of(user: impl Into<String>, password: Password) -> Self {
        Self::new(user, move || match &password {
            Password::File(path) => secret::read_file(path).map_err(Into::into),
            Password::Given(secret) => Ok(secret.clone()),
            Password::Sealed(sealed) => sealed.open().map_err(Into::into),
        })
    }

    /// Tells the password there is now from others without keeping it; `None` where there is none. It says something
    /// within this process alone.
    pub(crate) fn mark(&self) -> Option<u64> {
        let password = (self.password)().ok()?;
        Some(self.marks.hash_one(password.expose()))
    }

    fn password(&self) -> Result<Secret, Error> {
        (self.password)().map_err(|source| Error::Password {
            user: self.user.clone(),
            source,
        })
    }
}

/// A session as the server knows it.
pub(crate) struct Session {
    /// Counts logins of the pool: everything that belongs to a session (views, page tokens, counter ids) is
    /// valid for one generation.
    pub(crate) generation: u64,
    /// `urn:vim25/` and the version spoken.
    pub(crate) action: String,
    /// What the server is and the references of its managers.
    pub(crate) content: ServiceContent,
    cookie: HeaderValue,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) const fn cookie(&self) -> &HeaderValue {
        &self.cookie
    }
}

/// Logs in.
pub(crate) async fn login(
    client: &Client,
    kind: PlatformKind,
    credentials: &Credentials,
    deadline: Duration,
    generation: u64,
) -> Result<Session, Error> {
    let limits = Limits {
        bytes: REPLY_LIMIT_BYTES,
        deadline,
    };
    // A missing password is found before the server is bothered.
    let password = credentials.password()?;
    let offered = client.versions(limits).await?;
    let version = offered.as_deref().and_then(versions::choose);
    let action = |version: &str| format!("urn:vim25/{version}");
    let ask = ServiceContent::request()?;
    let first = version.as_deref().unwrap_or(versions::OLDEST);
    let (reply, _) = client.call(&ask, &action(first), None, limits).await?;
    let content = ServiceContent::read(&reply)?;
    check_kind(&content.about, kind)?;
    let action = action(version.as_deref().unwrap_or(&content.about.api_version));
    let login = login_request(&content, credentials, &password)?;
    let (reply, cookie) = client.call(&login, &action, None, limits).await?;
    // Nothing in UserSession is needed, but only a complete answer is one.
    reply.read(|_xml| Ok(()))?;
    let cookie = cookie.ok_or_else(|| Error::NoCookie {
        user: credentials.user.clone(),
    })?;
    Ok(Session {
        generation,
        action,
        content,
        cookie,
    })
}

/// Ends a session.
pub(crate) async fn logout(client: &Client, session: &Session, deadline: Duration) -> Result<(), Error> {
    let limits = Limits {
        bytes: REPLY_LIMIT_BYTES,
        deadline,
    };
    let request = Request::new("Logout", manager(&session.content)?, 0, |_| ())?;
    let (reply, _) = client
        .call(&request, &session.action, Some(&session.cookie), limits)
        .await?;
    reply.read(|_xml| Ok(()))
}

fn login_request(
    content: &ServiceContent,
    credentials: &Credentials,
    password: &Secret,
) -> Result<Request, Error> {
    Request::new("Login", manager(content)?, 200, |xml| {
        xml.text("userName", &credentials.user)
            .text("password", password.expose());
    })
}

fn manager(content: &ServiceContent) -> Result<&Object, Error> {
    content
        .session_manager
        .as_ref()
        .ok_or(Error::Absent("sessionManager"))
}

fn check_kind(about: &About, configured: PlatformKind) -> Result<(), Error> {
    match about.kind() {
        Some(found) if found == configured => Ok(()),
        Some(found) => Err(Error::WrongKind {
            configured,
            found,
            full_name: about.full_name.clone(),
        }),
        None => Err(Error::UnknownKind {
            api_type: about.api_type.clone(),
        }),
    }
}
