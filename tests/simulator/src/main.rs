//! The simulator as a program.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use vsphere_simulator::{ClockMode, PlatformKind, Simulator, Spec, TlsMode};

const EXAMPLES: &str = "\
Examples:
  A vCenter with 200 VMs on 20 hosts, with a CA to trust:
    vsphere-simulator --vms 200 --hosts 20 --ca-file /tmp/ca.pem
  One ESXi host without TLS on a fixed port:
    vsphere-simulator --kind esxi --vms 30 --tls plain --listen 127.0.0.1:8989
  What it published so far, for an oracle:
    curl http://CONTROL/truth
  Power a VM off, let 50 minutes pass, make the next two QueryPerf calls fail:
    curl -d '{\"event\":\"power-off\",\"vm\":\"vm-10001\"}' http://CONTROL/event
    curl -d '{\"advance\":3000}' http://CONTROL/clock
    curl -d '{\"method\":\"QueryPerf\",\"times\":2,\"action\":\"status\",\"code\":503}' http://CONTROL/rules
  Everything the control port can do:
    curl http://CONTROL/

When ready it prints one line of JSON with the addresses and the certificate's thumbprint. Samples lie
on the 20-second grid; the hour before the start is already there. Each simulated platform needs its own
--seed: two servers with one seed are the same machine to a client.";

/// A deterministic vSphere: speaks vim25 SOAP like a vCenter or an ESXi host, and knows exactly what it
/// published and when.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLES)]
struct Arguments {
    /// Which server to simulate.
    #[arg(long, value_enum, default_value = "vcenter")]
    kind: Kind,
    /// Virtual machines.
    #[arg(long, default_value_t = 20)]
    vms: usize,
    /// Hosts (an ESXi is always one).
    #[arg(long, default_value_t = 2)]
    hosts: usize,
    /// VMs that start powered off [default: one in twenty].
    #[arg(long)]
    powered_off: Option<usize>,
    /// Root of every value and identity.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Address of the SDK port; port 0 = any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address of the control port (plain HTTP, no authentication: keep it local).
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// How the SDK port is protected.
    #[arg(long, value_enum, default_value = "test-ca")]
    tls: Tls,
    /// Another DNS name for the certificate; may be repeated.
    #[arg(long)]
    tls_name: Vec<String>,
    /// Write the certificate to trust here (PEM).
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// User that may log in [default: monitor@vsphere.local, ESXi: root].
    #[arg(long)]
    user: Option<String>,
    /// File with the password [default password: monitor].
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Idle seconds after which a session is gone.
    #[arg(long, default_value_t = 1800)]
    session_timeout: u64,
    /// Seconds from a sample's stamp to its publication.
    #[arg(long, default_value_t = 3.0)]
    publish_delay: f64,
    /// Hours that the world already ran before the start.
    #[arg(long, default_value_t = 48)]
    history_hours: u64,
    /// Seconds that the server's clock is ahead of this machine's (or behind, if negative).
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    clock_offset: i64,
    /// Objects per page of RetrievePropertiesEx.
    #[arg(long, default_value_t = 100)]
    page_size: usize,
    /// Seconds that a task runs.
    #[arg(long, default_value_t = 2.0)]
    task_seconds: f64,
    /// Seconds that a guest takes to obey.
    #[arg(long, default_value_t = 5.0)]
    guest_seconds: f64,
    /// Seconds that the tools of a starting guest are away.
    #[arg(long, default_value_t = 0.0)]
    boot_seconds: f64,
    /// An ESXi host with the free licence: every change is refused.
    #[arg(long)]
    free_license: bool,
    /// End when standard input is closed, that is when the starting process is gone.
    #[arg(long)]
    exit_with_parent: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Vcenter,
    Esxi,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tls {
    /// A leaf issued by a test CA (see --ca-file).
    TestCa,
    /// A self-signed leaf; pin its thumbprint.
    SelfSigned,
    /// No TLS.
    Plain,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("vsphere-simulator: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            // Nobody left to tell if this fails.
            writeln!(std::io::stderr(), "{text}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let ca_file = arguments.ca_file.clone();
    let exit_with_parent = arguments.exit_with_parent;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let simulator = Simulator::start(spec(arguments)?).await?;
    if let (Some(file), Some(pem)) = (ca_file, simulator.ca_pem()) {
        tokio::fs::write(file, pem).await?;
    }
    let ready = json!({
        "ready": true,
        "sdk": simulator.url(),
        "control": format!("http://{}", simulator.control_addr()),
        "user": simulator.credentials().0,
        "vms": simulator.world().vms().len(),
        "hosts": simulator.world().hosts().len(),
        "sha256": simulator.leaf_sha256_thumbprint(),
    });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{ready}")?;
    stdout.flush()?;
    let parent_gone = async {
        if exit_with_parent {
            // Fails when the thread ends, and that is the message.
            stdin_closed().await.unwrap_or_default();
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = parent_gone => {}
    }
    simulator.shutdown().await;
    Ok(())
}

/// A thread of its own: nobody waits for it at the end, unlike for a runtime's blocking task.
fn stdin_closed() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        // Whatever arrives is ignored; an error is as good as the end.
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap_or_default();
        drop(sender);
    });
    receiver
}

fn spec(arguments: Arguments) -> Result<Spec, Box<dyn std::error::Error + Send + Sync>> {
    let mut spec = match arguments.kind {
        Kind::Vcenter => Spec::vcenter(arguments.hosts, arguments.vms),
        Kind::Esxi => Spec::esxi(arguments.vms),
    };
    spec.kind = match arguments.kind {
        Kind::Vcenter => PlatformKind::Vcenter,
        Kind::Esxi => PlatformKind::Esxi,
    };
    spec.seed = arguments.seed;
    spec.powered_off = arguments.powered_off;
    spec.listen = arguments.listen;
    spec.control = arguments.control;
    spec.tls = match arguments.tls {
        Tls::TestCa => TlsMode::TestCa,
        Tls::SelfSigned => TlsMode::SelfSigned,
        Tls::Plain => TlsMode::Plain,
    };
    spec.tls_names = arguments.tls_name;
    if let Some(user) = arguments.user {
        spec.user = user;
    }
    if let Some(file) = arguments.password_file {
        spec.password = std::fs::read_to_string(file)?.trim_end().to_owned();
    }
    spec.session_timeout = Duration::from_secs(arguments.session_timeout);
    spec.publish_delay = Duration::try_from_secs_f64(arguments.publish_delay)?;
    spec.history = Duration::from_secs(arguments.history_hours * 3600);
    spec.clock = ClockMode::Wall {
        offset: arguments.clock_offset * 1_000_000,
    };
    spec.page_size = arguments.page_size;
    spec.task_time = Duration::try_from_secs_f64(arguments.task_seconds)?;
    spec.guest_time = Duration::try_from_secs_f64(arguments.guest_seconds)?;
    spec.guest_boot = Duration::try_from_secs_f64(arguments.boot_seconds)?;
    spec.free_license = arguments.free_license;
    Ok(spec)
}
