//! A TLS front before the fault proxy, which speaks plain HTTP, with a certificate authority of its own.

use std::fs;
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::http::{self, Message};
use crate::{process, scratch};

/// The certificate authorities of the system, if there are any in one file.
const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An HTTPS endpoint on a free port of the loopback interface.
pub struct TlsFront {
    address: SocketAddr,
    bundle: PathBuf,
    authority: PathBuf,
}

impl TlsFront {
    /// Starts one before the HTTP endpoint at `upstream`. Certificates are made by openssl.
    pub fn start(upstream: SocketAddr) -> Self {
        let directory = scratch::directory();
        make_certificates(&directory);
        let file = |name: &str| directory.join(name);
        let certificate = CertificateDer::from_pem_file(file("server.pem")).expect("openssl made it");
        let key = PrivateKeyDer::from_pem_file(file("server.key")).expect("openssl made it");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        let config = Arc::new(config.expect("the key belongs to the certificate"));
        // Clients that load the authorities of the system have as much to do as in production.
        let system = fs::read(SYSTEM_BUNDLE).unwrap_or_default();
        let own = fs::read(file("ca.pem")).expect("openssl made it");
        fs::write(file("bundle.pem"), [system, own].concat()).expect("the scratch directory can be written");

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                // An error is that of a client which has gone away.
                thread::spawn(move || serve(stream, config, upstream).is_ok());
            }
        });
        Self { address, bundle: file("bundle.pem"), authority: file("ca.pem") }
    }

    /// What to set `envelope_pg.kms_endpoint_url` to.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The file of its certificate authority alone.
    pub fn authority(&self) -> String {
        self.authority.display().to_string()
    }

    /// What to set the environment variable SSL_CERT_FILE to.
    pub fn bundle(&self) -> String {
        self.bundle.display().to_string()
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, upstream: SocketAddr) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    while let Some(request) = Message::read(&mut reader)? {
        let response = http::exchange(upstream, &request)?.to_bytes(true);
        reader.get_mut().write_all(&response)?;
    }
    Ok(())
}

fn make_certificates(directory: &Path) {
    let extensions = directory.join("extensions");
    fs::write(&extensions, "subjectAltName = IP:127.0.0.1\n").expect("the scratch directory can be written");
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(directory);
        process::run(command);
    };
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("{new} -x509 -days 2 -subj /CN=test -keyout ca.key -out ca.pem"));
    openssl(&format!("{new} -subj /CN=kms -keyout server.key -out server.csr"));
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 2 -extfile extensions -out server.pem");
}
