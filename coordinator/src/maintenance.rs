//! Hourly maintenance while the coordinator serves: renews its certificate, and removes tokens that
//! nobody can use any more and uploaded adapters that no run has named.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::grpc::Shared;
use crate::tokens::TokenRecord;

/// How often it runs.
const EVERY: Duration = Duration::from_secs(3600);

/// Looks after a serving coordinator.
pub struct Maintenance {
    /// What the services share.
    pub shared: Arc<Shared>,
    /// Folder of the server's certificate.
    pub server: PathBuf,
    /// Names in the server's certificate.
    pub hosts: Vec<String>,
}

impl Maintenance {
    /// Looks after everything now and every hour, for ever.
    pub async fn run(self) {
        loop {
            self.once().await;
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn once(&self) {
        let Shared { authority, certificate, clock, driver, store, writing, .. } = &*self.shared;
        let now = clock.now();
        match certificate.renew(&self.server, authority, &self.hosts, now) {
            Ok(false) => {}
            Ok(true) => tracing::info!(expires_ms = certificate.expires_ms(), "a new server certificate is shown"),
            Err(error) => tracing::error!(
                %error, expires_ms = certificate.expires_ms(),
                "the server certificate nears its end and cannot be renewed; free space or repair the data directory"
            ),
        }
        self.shared.start_adapters.prune().await;
        let _writing = writing.lock().await;
        let pruned = match TokenRecord::prune(&**store, now) {
            Ok(batch) if batch.is_empty() => return,
            Ok(batch) => driver.commit(batch).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = pruned {
            tracing::warn!(error, "used and expired tokens stay for now");
        }
    }
}
