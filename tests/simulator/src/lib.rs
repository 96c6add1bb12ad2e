//! A deterministic vSphere for tests, demos and benches.
//!
//! It speaks the vim25 SOAP protocol of a vCenter or an ESXi host over HTTPS, as strictly as a real
//! server does, and it knows exactly what it published and when. Every value is a pure function of
//! seed, entity, counter, instance and stamp, so nothing is stored and ten thousand VMs cost little.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use vsphere_simulator::{Simulator, Spec};
//!
//! let vcenter = Simulator::start(Spec::vcenter(20, 200).seed(7)).await?;
//! println!("https://{}/sdk", vcenter.addr());
//! let vm = vcenter.world().vms().remove(0);
//! vcenter.world().power_off(&vm)?;
//! let truth = vcenter.truth();
//! let entity = truth.entity(&vm).ok_or("unknown")?;
//! for sample in entity.samples(0, i64::MAX) {
//!     let usage = entity.value("cpu.usage.average", "", sample.stamp);
//!     println!("{} {usage:?}", sample.stamp);
//! }
//! vcenter.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Parts, bottom to top
//!
//! | module | one job |
//! |---|---|
//! | [`grid`] `value` [`clock`] | stamps and server time; the number in each cell; what time it is |
//! | [`spec`] [`counters`] [`truth`] | the knobs; the counter table; the log, as a value with pure functions |
//! | [`world`] | inventory and its life, tasks; every change is an [`Event`] or an operation of a client |
//! | [`rules`] [`session`] [`calls`] | hostile behaviour; who is logged in; what was called |
//! | `soap` | request text to typed elements, strictly; replies and faults to text |
//! | `properties` `perf` `methods` | the property collector; QueryPerf; everything else: operations, task history, who may call what |
//! | `waiting` | calls that wait for a change |
//! | `server` `tls` `control` | sockets; certificates; the control port |
//! | [`Simulator`] | starts and stops it all |

pub mod calls;
pub mod clock;
pub mod counters;
pub mod grid;
pub mod rules;
pub mod session;
pub mod spec;
pub mod truth;
pub mod world;

mod control;
mod methods;
mod perf;
mod properties;
mod server;
mod simulator;
mod soap;
mod tls;
mod value;
mod waiting;

pub use clock::Clock;
pub use rules::{Action, Rule, Rules, ZoneChange};
pub use simulator::{Error, Simulator};
pub use spec::{ClockMode, EmptyEntities, ExpiredViews, PlatformKind, Spec, TlsMode};
pub use truth::{Entity, EntityKind, PublishedSample, Series, Truth};
pub use world::{Event, HostLink, OperationRecord, PowerState, RingFate, TaskState, Told, World, WorldError};
