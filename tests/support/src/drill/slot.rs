//! One collector, with its ways to the database and to the vCenter.
//!
//! Owns: its configuration, its start and its end. Never does: knowing which one is the holder.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;
use vsphere_simulator::Simulator;

use super::Error;
use super::machine::Systemd;
use super::set_up::{self, Ground};
use super::stage::{DATABASE, INTERVAL, PLATFORM, READY_DEADLINE};
use crate::collector::{Collector, Platform, Settings};
use crate::process::{self, Signal};
use crate::proxy::{Endpoint, Protocol, Proxy, Weather};
use crate::usage;

/// The daemon promises to stop within this.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// For one that does not keep its promise.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// One collector with its ways to the database and to the vCenter.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) collector: Collector,
    /// The way to the server that takes writes.
    pub(super) database: Proxy,
    /// The way to the other server, which is named beside it; closed while there is none.
    pub(super) spare: Proxy,
    pub(super) vcenter: Proxy,
    /// Address of the admin API.
    pub(super) api: SocketAddr,
    systemd: Systemd,
    running: bool,
}

impl Slot {
    pub(super) fn prepare(number: usize, ground: &Ground, simulator: &Simulator) -> Result<Self, Error> {
        let target = ground.socket()?;
        // One over TCP, one over a Unix socket: both are in use.
        // Both name two servers, as where there is a standby.
        let (way, spare, host) = if number == 0 {
            let [way, spare] = [
                Proxy::tcp(Protocol::Postgres, target.clone())?,
                Proxy::tcp(Protocol::Postgres, target)?,
            ];
            let port = |proxy: &Proxy| Ok::<_, Error>(proxy.address().ok_or(Error::Nothing("port"))?.port());
            let ports = format!("{},{}", port(&way)?, port(&spare)?);
            (way, spare, format!("host=127.0.0.1,127.0.0.1 port={ports}"))
        } else {
            let [first, second] = ["a", "b"].map(|name| ground.sockets().join(name));
            for directory in [&first, &second] {
                set_up::fresh(directory)?;
            }
            (
                Proxy::unix(&first, target.clone())?,
                Proxy::unix(&second, target)?,
                format!("host={},{}", first.display(), second.display()),
            )
        };
        spare.refuse(true);
        let vcenter = Proxy::tcp(Protocol::Opaque, Endpoint::Tcp(simulator.addr()))?;
        let platform = Platform {
            address: vcenter.address().ok_or(Error::Nothing("port"))?,
            ..Platform::simulated(PLATFORM, simulator)
        };
        let api = process::free_address()?;
        let keys = ground.directory.join("keyring");
        let settings = Settings {
            database: format!("{host} user=virt_writer dbname={DATABASE}"),
            owner: format!("{host} user=virt_owner dbname={DATABASE}"),
            interval: INTERVAL,
            discovery_interval: INTERVAL,
            listen: process::free_address()?,
            top: String::new(),
            more: format!(
                "[keys]\nfile = {keys:?}\n\n[api]\nlisten = \"{api}\"\nconnections = 512\n\
                 connections_per_address = 512\nrequests_per_second = 1000\nactions_per_minute = 600\n\n\
                 [log]\nlevel = \"info,virt_collector=debug\""
            ),
            platforms: vec![platform],
        };
        let files = ground.directory.join(format!("collector-{number}"));
        Ok(Self {
            collector: Collector::prepare(&ground.program, &files, &settings)?,
            database: way,
            spare,
            vcenter,
            api,
            systemd: Systemd::new(ground.sockets(), number),
            running: false,
        })
    }

    pub(super) async fn start(&mut self) -> Result<(), Error> {
        self.start_by(&[]).await
    }

    pub(super) async fn start_by(&mut self, by: &[String]) -> Result<(), Error> {
        let mut all = self.systemd.starts()?;
        all.extend_from_slice(by);
        self.collector.start_by(&all).await?;
        self.running = true;
        Ok(())
    }

    /// The process, while it runs.
    pub(super) fn pid(&self) -> Result<u32, Error> {
        self.collector.pid().ok_or(Error::Nothing("running collector"))
    }

    /// Whether it was started and not ended.
    pub(super) const fn runs(&self) -> bool {
        self.running
    }

    /// The longest time from a start to READY since the last call.
    pub(super) fn take_longest_start(&self) -> Duration {
        self.systemd.take_longest()
    }

    /// Most memory that its process ever had; `None` where it does not run.
    pub(super) fn most_memory_kib(&self) -> Option<u64> {
        usage::most_resident_kib(self.collector.pid()?).ok()
    }

    /// Waits until it is READY.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        process::until("virt-collector to be READY", READY_DEADLINE, || async move {
            if self.systemd.is_ready() {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        })
        .await?;
        Ok(())
    }

    /// Where the collector is there no more by itself: how it ended.
    pub(super) async fn ended(&mut self, deadline: Duration) -> Result<std::process::ExitStatus, Error> {
        let daemon = self
            .collector
            .daemon()
            .ok_or(Error::Nothing("running collector"))?;
        let status = daemon.wait(deadline).await?;
        self.running = false;
        Ok(status)
    }

    pub(super) async fn kill(&mut self) -> Result<(), Error> {
        self.running = false;
        Ok(self.collector.kill().await?)
    }

    /// SIGTERM; it must end with 0, and in time. How long that took.
    pub(super) async fn stop(&mut self) -> Result<Duration, Error> {
        if !self.running {
            return Ok(Duration::ZERO);
        }
        // Before that it has no say in how it ends.
        self.ready().await?;
        let since = Instant::now();
        self.collector.end(STOP_DEADLINE).await?;
        let took = since.elapsed();
        self.running = false;
        if took > STOP_LIMIT {
            return Err(Error::criterion(
                "the end within 45 s of SIGTERM",
                format!("{:.1} s", took.as_secs_f64()),
            ));
        }
        Ok(took)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), Error> {
        Ok(self.collector.signal(signal)?)
    }

    /// Fair weather and no traps on both ways.
    pub(super) fn calm(&self) {
        for proxy in [&self.database, &self.vcenter] {
            proxy.disarm();
            proxy.refuse(false);
            proxy.set_weather(Weather::default());
        }
    }
}
