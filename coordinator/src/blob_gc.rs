//! Deletes blobs that no run references, and none that a run has come to reference meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use rondo_proto::{Digest, RunId};
use rondo_rounds::Engine;

use crate::driver::Driver;
use crate::store::blobs::{BlobError, Blobs};

/// Drops those of a run's blobs that the engine does not reference.
pub async fn drop_unreferenced(driver: &Driver, blobs: &Blobs, run: &RunId, digests: Vec<Digest>) {
    let _dropping = blobs.lock_for_drop().await;
    let view = move |engine: &Engine| {
        // Asked for many at once, the engine's set is made once.
        let needed = engine.blobs();
        digests.into_iter().filter(|digest| !needed.contains(digest)).collect::<Vec<_>>()
    };
    // Once the driver has stopped, the next start collects the garbage.
    let Ok(unneeded) = driver.view(view).await else { return };
    for digest in unneeded {
        if let Err(error) = blobs.drop_blob(run, &digest).await {
            tracing::warn!(%run, %digest, %error, "a blob that is not needed stays");
        }
    }
}

/// Drops every blob that no run references; for the start. Says loudly when a blob that a run needs
/// is not there.
///
/// # Errors
/// The blobs cannot be listed. A blob that is missing or cannot be dropped is no error.
pub async fn collect_garbage(driver: &Driver, blobs: &Blobs) -> Result<(), BlobError> {
    let mut by_run: BTreeMap<RunId, Vec<Digest>> = BTreeMap::new();
    for (run, digest) in blobs.list()? {
        by_run.entry(run).or_default().push(digest);
    }
    let there: BTreeSet<Digest> = by_run.values().flatten().copied().collect();
    for (run, digests) in by_run {
        drop_unreferenced(driver, blobs, &run, digests).await;
    }
    let check = move |engine: &Engine| engine.check_blobs(&|digest| there.contains(digest));
    if let Ok(Err(violation)) = driver.view(check).await {
        tracing::error!(%violation, "a run needs a tensor file that is missing; restore the blobs folder from a backup");
    }
    Ok(())
}
