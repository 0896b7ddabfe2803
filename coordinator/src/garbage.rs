//! Dropping blobs that no run needs, and none that has come to be needed meanwhile.

use rondo_proto::{Digest, RunId};

use crate::driver::Driver;
use crate::store::blobs::{BlobError, Blobs};

/// Drops those of a run's blobs that the engine does not reference.
pub async fn drop_unneeded(driver: &Driver, blobs: &Blobs, run: &RunId, digests: Vec<Digest>) {
    let _dropping = blobs.dropping().await;
    let view = move |engine: &rondo_rounds::Engine| {
        digests.into_iter().filter(|digest| !engine.references(digest)).collect::<Vec<_>>()
    };
    // Once the driver has stopped, the next start sweeps.
    let Ok(unneeded) = driver.view(view).await else { return };
    for digest in unneeded {
        if let Err(error) = blobs.drop_blob(run, &digest).await {
            tracing::warn!(%run, %digest, %error, "a blob that is not needed stays");
        }
    }
}

/// Drops every blob that no run references; for the start. Says loudly when a blob that a run needs is not there.
pub async fn sweep(driver: &Driver, blobs: &Blobs) -> Result<(), BlobError> {
    let there = blobs.list()?;
    for (run, digest) in &there {
        drop_unneeded(driver, blobs, run, vec![*digest]).await;
    }
    let check = move |engine: &rondo_rounds::Engine| {
        engine.check_blobs(&|digest| there.iter().any(|(_, present)| present == digest))
    };
    if let Ok(Err(violation)) = driver.view(check).await {
        tracing::error!(%violation, "a run needs a tensor file that is missing; restore the blobs folder from a backup");
    }
    Ok(())
}
