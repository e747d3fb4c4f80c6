//! What the log says of a request, and what it never says.

use std::sync::Mutex;

use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::{
    proto::oidc::{ExchangeRequest, security_token_service_client::SecurityTokenServiceClient},
    tests::alone,
};

/// Collects what is logged on this test's thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A server on this thread, and all that is logged there.
async fn start() -> (Server, Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start(Settings::default()).await;
    (server, log, guard)
}

#[tokio::test]
async fn no_level_of_the_log_holds_a_credential() {
    if !alone("transport::tests::logs::no_level_of_the_log_holds_a_credential") {
        return;
    }
    let (server, log, _guard) = start().await;
    let head = "GET /sts/exchange?access_token=CANARY&token=CANARY\nauthorization: Bearer CANARY";
    assert_eq!(server.http1(head, "").await.status, 400);
    let mut client = SecurityTokenServiceClient::new(server.channel().await);
    let mut request = tonic::Request::new(ExchangeRequest::default());
    request.metadata_mut().insert("authorization", "Bearer CANARY".parse().unwrap());
    client.exchange(request).await.unwrap_err();
    let text = log.text();
    let leak = text.lines().find(|line| line.contains("CANARY"));
    assert!(leak.is_none(), "{leak:?}");
    assert_eq!(text.lines().filter(|line| line.contains("request refused")).count(), 2);
}

#[tokio::test]
async fn a_request_is_logged_once_with_how_it_ended() {
    if !alone("transport::tests::logs::a_request_is_logged_once_with_how_it_ended") {
        return;
    }
    let (server, log, _guard) = start().await;
    let id = server.http1("GET /sts/exchange", "").await.header("x-request-id").to_owned();
    let text = log.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains(&id)).collect();
    let ended: Vec<_> = lines.iter().filter(|line| line.contains("request refused")).collect();
    assert_eq!(ended.len(), 1, "{text}");
    for part in
        [" INFO ", "CREDENTIAL_MISSING", "status=401", "127.0.0.1", "route=\"/sts/exchange\""]
    {
        assert!(ended[0].contains(part), "{part} is not in {}", ended[0]);
    }
}
