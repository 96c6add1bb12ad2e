//! The process is given a configuration that it cannot use, or another key than its passwords are sealed with.

use vsphere_simulator::{ClockMode, Simulator, Spec};

use super::super::Error;
use super::super::random::Random;
use super::super::stage::{PLATFORM, Stage};
use super::{ending, moment, short};
use crate::collector::write_private;
use crate::process::Signal;

pub(super) async fn reload_broken(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    const BROKEN: [(&str, &str, &str); 4] = [
        ("no TOML", "[[platform]]", "[[platform"),
        ("an unknown key", "[admin]", "[admin]\nlisen = \"127.0.0.1:1\""),
        ("a bad value", "interval = \"20s\"", "interval = \"1s\""),
        (
            "no such file",
            "ca_file = \"platform-0.pem\"",
            "ca_file = \"absent.pem\"",
        ),
    ];
    let (what, from, to) = dice.pick(&BROKEN).copied().ok_or(Error::Nothing("mistake"))?;
    let busy = dice.chance(50);
    let after = dice.millis(0, 2_000);
    let (_, epoch) = stage.lease().await?;
    if busy {
        stage.pass(moment(dice));
        tokio::time::sleep(after).await;
    }
    let good = stage.holder().collector.edit(|text| text.replacen(from, to, 1))?;
    stage.reload(0.0).await?;
    stage.pass(short(dice));
    stage.recovered().await?;
    let (_, now) = stage.lease().await?;
    if now != epoch {
        return Err(Error::criterion(
            "a platform that is left alone",
            format!("epoch {epoch}, then {now}"),
        ));
    }
    if dice.chance(50) {
        // Told to read it again and again.
        for _ in 0..10 {
            stage.holder().signal(Signal::Hup)?;
        }
        stage.reload(0.0).await?;
    }
    stage.holder().collector.edit(|_| good)?;
    stage.reload(1.0).await?;
    Ok(format!("{what}, epoch {epoch} throughout"))
}

/// The second platform, whose password is in the database.
const SECOND: &str = "drill-second";

pub(super) async fn credential(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let is_row = dice.chance(50);
    let second = Simulator::start(Spec {
        vms: 2,
        hosts: 1,
        clock: ClockMode::Frozen {
            at: stage.simulator.clock().now(),
        },
        ..Spec::default().seed(dice.between(1, 1_000_000))
    })
    .await?;
    let password = stage.directory().join("second.password");
    let ca = stage.directory().join("second.pem");
    let (user, word) = second.credentials();
    write_private(&password, word)?;
    write_private(&ca, second.ca_pem().unwrap_or_default())?;
    let [port, password, ca] = [
        second.addr().port().to_string(),
        password.display().to_string(),
        ca.display().to_string(),
    ];
    stage
        .holder()
        .collector
        .command(&[
            "platform",
            "add",
            SECOND,
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--user",
            user,
            "--password-file",
            &password,
            "--ca-file",
            &ca,
        ])
        .await?;
    stage.status_becomes(SECOND, "connected").await?;

    // Another key ring, or another platform's row: the password does not open any more. Whoever logs in next sees it.
    let broken = if is_row {
        stage.spoil_credential(SECOND).await?;
        "the row is spoiled"
    } else {
        let keys = stage.directory().join("keyring");
        let kept = stage.directory().join("keyring.kept");
        std::fs::rename(&keys, &kept).map_err(|source| Error::File { path: keys, source })?;
        stage.holder().collector.command(&["key", "init"]).await?;
        "another key ring"
    };
    let logins = second.sessions().stats().logins;
    stage.restart(ending(dice)).await?;
    stage.status_becomes(SECOND, "error").await?;
    stage.pass(short(dice));
    stage.recovered().await?;
    let line = stage.reason(SECOND).await?;
    if second.sessions().stats().logins != logins || !(line.contains("password") && line.contains("key")) {
        return Err(Error::criterion(
            "no log-in, and a reason that names the key",
            line,
        ));
    }
    if stage.status(PLATFORM).await? != "connected" {
        return Err(Error::criterion(
            "the other platform connected",
            stage.reason(PLATFORM).await?,
        ));
    }

    // Mended: without a restart where it is the ring that comes back.
    if is_row {
        stage
            .holder()
            .collector
            .command(&["platform", "edit", SECOND, "--password-file", &password])
            .await?;
    } else {
        let keys = stage.directory().join("keyring");
        let kept = stage.directory().join("keyring.kept");
        std::fs::rename(&kept, &keys).map_err(|source| Error::File { path: kept, source })?;
    }
    stage.status_becomes(SECOND, "connected").await?;
    let collector = &stage.holder().collector;
    collector
        .command(&["platform", "remove", SECOND, "--yes"])
        .await?;
    stage.status_becomes(SECOND, "disconnected").await?;
    let collector = &stage.holder().collector;
    collector
        .command(&["platform", "wipe", SECOND, "--confirm", SECOND])
        .await?;
    second.shutdown().await;
    Ok(format!("{broken}: {line}"))
}
