use std::time::Duration;

use super::*;

fn id() -> UploadId {
    UploadId {
        client: ClientId::new("movies").unwrap(),
        work: WorkKey { run: RunId::new("sentiment-1a2b").unwrap(), round: 3, attempt: 2 },
        digest: Digest::of(b"update"),
    }
}

fn keep(staging: &Staging, bytes: &[u8]) {
    let path = staging.path(&id());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_partial_upload_outlives_the_process_and_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    keep(&Staging::open(dir.path(), 100).unwrap(), b"half");
    let staging = Staging::open(dir.path(), 100).unwrap();
    assert_eq!(staging.list().unwrap(), [(id(), 4)]);
    assert_eq!((staging.stored(&id()).await.unwrap(), staging.reserved()), (4, 4));
    let mut lease = staging.acquire(&id(), 20).await.unwrap();
    assert_eq!(staging.reserved(), 20);
    lease.count(10);
    assert_eq!(lease.counted(), 14);
    staging.give_back(&id(), lease).await;
    assert_eq!(staging.reserved(), 4);
    assert_eq!(staging.acquire(&id(), 20).await.unwrap().counted(), 14);
    staging.remove_file(&id()).await;
    assert_eq!((staging.stored(&id()).await.unwrap(), staging.list().unwrap()), (0, vec![]));
    assert_eq!(std::fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_newer_stream_takes_the_upload_over() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Arc::new(Staging::open(dir.path(), 100).unwrap());
    let first = staging.acquire(&id(), 10).await.unwrap();
    tokio::time::timeout(Duration::from_millis(20), first.superseded()).await.unwrap_err();
    let second = tokio::spawn({
        let staging = Arc::clone(&staging);
        async move { staging.acquire(&id(), 10).await.unwrap() }
    });
    tokio::time::timeout(Duration::from_secs(5), first.superseded()).await.unwrap();
    drop(first);
    let second = second.await.unwrap();
    tokio::time::timeout(Duration::from_millis(20), second.superseded()).await.unwrap_err();
}

#[tokio::test]
async fn another_digest_replaces_what_a_client_has_stored() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::open(dir.path(), 100).unwrap();
    for n in 0..20u8 {
        let other = UploadId { digest: Digest::of(&[n]), ..id() };
        let lease = staging.acquire(&other, 60).await.unwrap();
        let path = staging.path(&other);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, [n; 50]).unwrap();
        staging.give_back(&other, lease).await;
        assert_eq!((staging.list().unwrap(), staging.reserved()), (vec![(other, 50)], 50));
    }
}

#[tokio::test]
async fn what_is_announced_is_set_aside_before_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::open(dir.path(), 100).unwrap();
    let other = UploadId { client: ClientId::new("news").unwrap(), ..id() };
    let first = staging.acquire(&id(), 60).await.unwrap();
    let refused = staging.acquire(&other, 60).await;
    assert!(matches!(refused, Err(UploadError::StagingFull { held: 60, limit: 100 })));
    staging.give_back(&id(), first).await;
    staging.acquire(&other, 60).await.unwrap();
}
