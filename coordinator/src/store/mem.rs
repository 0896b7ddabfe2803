//! A store in memory, for tests: it also fails on demand.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Batch, Records, Store, StoreError, with_prefix};

/// Records in a map; cloned handles are not offered, share it by `Arc`.
#[derive(Debug, Default)]
pub struct MemStore {
    records: Mutex<Records>,
    failing: AtomicBool,
}

impl MemStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// While on, every commit fails and changes nothing, as on a full disk.
    pub fn fail_commits(&self, on: bool) {
        self.failing.store(on, Ordering::SeqCst);
    }

    fn with<T>(&self, read: impl FnOnce(&mut Records) -> T) -> T {
        // A panic in another test thread leaves whole records behind: a batch is applied under the
        // lock.
        read(&mut self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Store for MemStore {
    fn load(&self) -> Result<Records, StoreError> {
        Ok(self.with(|records| records.clone()))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.with(|records| records.get(key).cloned()))
    }

    fn scan(&self, prefix: &str) -> Result<Records, StoreError> {
        Ok(self.with(|records| with_prefix(records, prefix)))
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(StoreError::File {
                action: "write",
                path: "memory".into(),
                source: std::io::ErrorKind::StorageFull.into(),
            });
        }
        self.with(|records| batch.apply(records));
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
