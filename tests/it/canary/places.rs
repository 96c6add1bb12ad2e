//! Where a secret could be written: by commands, in tables, in the log of the database, in answers of the API; and a
//! database that asks for a password and refuses it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;
use tokio_rustls::TlsConnector;

/// A database server that asks for the password in clear and refuses it: where it listens, and what it was told.
pub(super) async fn refusing_database() -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&told);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                let mut startup = vec![0; stream.read_u32().await.unwrap() as usize - 4];
                stream.read_exact(&mut startup).await.unwrap();
                // AuthenticationCleartextPassword
                stream.write_all(b"R\0\0\0\x08\0\0\0\x03").await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'p');
                let mut password = vec![0; stream.read_u32().await.unwrap() as usize - 4];
                stream.read_exact(&mut password).await.unwrap();
                heard
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&password));
                let refusal = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0";
                stream.write_u8(b'E').await.unwrap();
                stream.write_u32(refusal.len() as u32 + 4).await.unwrap();
                stream.write_all(refusal).await.unwrap();
            });
        }
    });
    (address, told)
}

/// The log of the database's server, where it is a file: what its first process writes to standard error.
pub(super) async fn server_log(sql: &Client) -> Option<PathBuf> {
    let row = sql
        .query_one(
            "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)",
            &[],
        )
        .await
        .unwrap();
    let process: String = row.get(0);
    let path = std::fs::read_link(format!("/proc/{process}/fd/2")).ok()?;
    path.is_file().then_some(path)
}

/// What was written behind the first `skip` bytes.
pub(super) fn behind(path: &Path, skip: u64) -> String {
    let mut file = File::open(path).unwrap();
    file.seek(SeekFrom::Start(skip)).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The API behind its certificate, as a client that trusts it.
pub(super) struct Api {
    address: SocketAddr,
    connector: TlsConnector,
}

impl Api {
    pub(super) fn new(address: SocketAddr, certificate: &CertificateDer<'static>) -> Self {
        Self {
            address,
            connector: crate::api::connector(certificate),
        }
    }

    /// A whole answer.
    pub(super) async fn ask(&self, request: &str, headers: &str, body: &str) -> String {
        let request = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = self.connector.connect(name, stream).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Some servers do not say goodbye.
        drop(stream.read_to_end(&mut answer).await);
        format!("{}\n", String::from_utf8_lossy(&answer))
    }
}

/// Runs a command to its end, off the runtime's threads: the simulator answers on them. Everything that it wrote.
pub(super) async fn run(words: &str, config: &Path, stdout: Option<&Path>) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virt-collector"));
    command
        .args(words.split_whitespace())
        .arg("--config")
        .arg(config)
        .env("RUST_BACKTRACE", "full")
        .env("RUST_LOG", "trace");
    if let Some(stdout) = stdout {
        command.stdout(Stdio::from(File::options().write(true).open(stdout).unwrap()));
    } else {
        command.stdout(Stdio::piped());
    }
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap();
    format!(
        "$ virt-collector {words}\n{}{}\n{}\n",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        output.status
    )
}

/// Every row of every table and view, as text; binary columns are hexadecimal digits in it.
pub(super) async fn dump(sql: &Client) -> String {
    let tables = sql
        .query(
            "SELECT format('%I.%I', schemaname, relname) FROM (
                 SELECT schemaname, tablename AS relname FROM pg_tables UNION SELECT schemaname, viewname FROM pg_views
             ) AS relation WHERE schemaname = 'public' ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let mut dump = String::new();
    for table in tables {
        let table: String = table.get(0);
        writeln!(dump, "-- {table}").unwrap();
        for row in sql
            .query(&format!("SELECT row_of::text FROM {table} AS row_of"), &[])
            .await
            .unwrap()
        {
            writeln!(dump, "{}", row.get::<_, String>(0)).unwrap();
        }
    }
    dump
}
