//! A daemon whose certificate nears its end gets a new one and goes on with it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rondo_coordinator::config::Config;

use crate::client::Client;
use crate::coordinator::{Coordinator, Shifted};

const HOUR_MS: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_near_its_end_is_renewed_and_used() {
    let dir = tempfile::tempdir().unwrap();
    // Everything was set up 20 hours ago; a certificate of one day has 4 hours left.
    let clock = Arc::new(Shifted((-20 * HOUR_MS).into()));
    let config = Config { client_certificate_days: 1, ..Config::default() };
    let coordinator = Coordinator::new(&dir.path().join("data"), config, Arc::clone(&clock));
    let folder = Client::enrol(&coordinator, dir.path(), "books").await;
    let old = coordinator.client("books").await;
    let old_pem = fs::read_to_string(folder.join("cert.pem")).unwrap();

    clock.0.store(0, Ordering::SeqCst);
    let client = Client::start("books", folder);
    let end = Instant::now() + Duration::from_secs(30);
    let new = loop {
        let info = coordinator.client("books").await;
        // Seen after the renewal: its polls come with a certificate that the coordinator takes.
        if info.certificate_fingerprint != old.certificate_fingerprint && client.log().contains("certificate renewed") {
            break info;
        }
        assert!(Instant::now() < end, "{}", client.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(new.certificate_expires_ms - old.certificate_expires_ms > 19 * HOUR_MS, "{new:#?}");
    assert_ne!(fs::read_to_string(client.dir.join("cert.pem")).unwrap(), old_pem);
    while coordinator.client("books").await.last_seen_ms <= new.last_seen_ms {
        assert!(Instant::now() < end, "{}", client.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
