//! The server's TLS.

use std::{fs, path::Path};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::tests::Folder;

fn files(folder: &Folder) -> TlsFiles {
    TlsFiles { certificate: folder.path().join("tls.crt"), key: folder.path().join("tls.key") }
}

/// Writes a fresh pair and returns its certificate.
fn write_pair(folder: &Folder) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = pair();
    fs::write(files(folder).certificate, cert.pem()).unwrap();
    fs::write(files(folder).key, signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

fn pair() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

async fn handshake(
    server: &Server,
    root: &CertificateDer<'static>,
    alpn: &[&[u8]],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, server.connect().await).await
}

async fn start(folder: &Folder) -> Server {
    Server::start(Settings { tls: Some(files(folder)), ..Settings::default() }).await
}

#[tokio::test]
async fn both_protocols_are_negotiated_and_served() {
    let folder = Folder::new();
    let root = write_pair(&folder);
    let server = start(&folder).await;
    for (offered, taken) in [
        (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let stream = handshake(&server, &root, offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), taken);
    }
    let mut stream = handshake(&server, &root, &[b"http/1.1"]).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    assert_eq!(Reply::parse(&reply).status, 200);
}

#[tokio::test]
async fn a_server_with_tls_does_not_speak_in_the_clear() {
    let folder = Folder::new();
    write_pair(&folder);
    let server = start(&folder).await;
    let mut socket = server.connect().await;
    socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(!read_to_end(&mut socket).await.starts_with(b"HTTP"));
}

/// Moves the clock until the pair on disk is served, or for some rounds.
async fn comes_into_use(server: &Server, root: &CertificateDer<'static>) -> bool {
    for _ in 0..20 {
        server.clock.advance(Duration::from_secs(11));
        tokio::time::sleep(Duration::from_millis(20)).await;
        if handshake(server, root, &[]).await.is_ok() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn changed_files_are_picked_up_and_a_broken_pair_keeps_the_old() {
    let folder = Folder::new();
    let first = write_pair(&folder);
    let server = start(&folder).await;
    handshake(&server, &first, &[]).await.unwrap();
    // The certificate of one pair with the key of another, as in the midst of a rotation.
    fs::write(files(&folder).certificate, pair().cert.pem()).unwrap();
    assert!(comes_into_use(&server, &first).await);
    fs::write(files(&folder).key, "no key").unwrap();
    assert!(comes_into_use(&server, &first).await);
    fs::remove_file(files(&folder).key).unwrap();
    assert!(comes_into_use(&server, &first).await);
    let second = write_pair(&folder);
    assert!(comes_into_use(&server, &second).await);
    assert!(handshake(&server, &first, &[]).await.is_err());
}

#[tokio::test]
async fn files_that_cannot_be_served_with_are_named_at_the_start() {
    let folder = Folder::new();
    let files = files(&folder);
    let message = |files: &TlsFiles| files.check().unwrap_err().to_string();
    let names = |message: String, path: &Path| {
        assert!(message.contains(path.to_str().unwrap()), "{message}")
    };
    names(message(&files), &files.certificate);
    write_pair(&folder);
    files.check().unwrap();
    let key = fs::read_to_string(&files.key).unwrap();
    fs::write(&files.key, "no key").unwrap();
    names(message(&files), &files.key);
    fs::write(&files.key, key).unwrap();
    fs::write(&files.certificate, pair().cert.pem()).unwrap();
    names(message(&files), &files.certificate);
    fs::write(&files.certificate, "").unwrap();
    names(message(&files), &files.certificate);
    let settings = Settings { tls: Some(files), ..Settings::default() };
    let server = Server::start(settings).await;
    assert!(server.served.await.unwrap().is_err());
}
