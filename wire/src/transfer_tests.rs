use super::*;
use proptest::prelude::*;
use rondo_proto::v1::UploadKey;
use tokio_stream::StreamExt;

fn file(bytes: usize) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    let data: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    std::fs::write(&path, &data).unwrap();
    (dir, path, data)
}

#[test]
fn no_message_of_a_transfer_exceeds_one_mebibyte() {
    let data = Bytes::from(vec![7; CHUNK_BYTES]);
    let chunk = Chunk { data: data.clone(), total_bytes: u64::MAX };
    assert!(wire_bytes(&chunk) <= MESSAGE_BYTES as u64);
    assert!(wire_bytes(&UploadMessage { part: Some(upload_message::Part::Data(data)) }) <= MESSAGE_BYTES as u64);
}

#[test]
fn chunks_cover_the_file_and_the_first_names_its_size() {
    let (_dir, path, data) = file(CHUNK_BYTES + 10);
    let all: Vec<Chunk> = chunks(&path, 3).unwrap().map(Result::unwrap).collect();
    assert_eq!(all.iter().map(|chunk| chunk.data.len()).collect::<Vec<_>>(), [CHUNK_BYTES, 7]);
    assert_eq!((all[0].total_bytes, all[1].total_bytes), (data.len() as u64, 0));
    let joined: Vec<u8> = all.iter().flat_map(|chunk| chunk.data.to_vec()).collect();
    assert_eq!(joined, data[3..]);
    // Asking for nothing more still tells the size.
    let none: Vec<Chunk> = chunks(&path, data.len() as u64).unwrap().map(Result::unwrap).collect();
    assert_eq!((none.len(), none[0].total_bytes), (1, data.len() as u64));
    assert_eq!(chunks(&path, data.len() as u64 + 1).err().unwrap().kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn an_upload_is_its_header_and_the_rest_of_the_file() {
    let (_dir, path, data) = file(CHUNK_BYTES * 2 + 1);
    let key = UploadKey { run: "r".to_owned(), ..UploadKey::default() };
    let header = UploadHeader { key: Some(key), offset: 5, ..UploadHeader::default() };
    let mut messages = stream(upload_messages(header.clone(), &path).unwrap());
    let first = messages.next().await.unwrap().unwrap();
    assert_eq!(first.part, Some(upload_message::Part::Header(header)));
    let mut joined = Vec::new();
    while let Some(message) = messages.next().await {
        let Some(upload_message::Part::Data(bytes)) = message.unwrap().part else { panic!("a second header") };
        joined.extend_from_slice(&bytes);
    }
    assert_eq!(joined, data[5..]);
}

#[test]
fn a_download_goes_on_where_it_stopped_and_is_checked() {
    let (dir, path, data) = file(3 * CHUNK_BYTES);
    let target = dir.path().join("copy");
    let digest = Digest::of(&data);
    let mut receiver = Receiver::open(&target, digest).unwrap();
    receiver.absorb(&chunks(&path, 0).unwrap().next().unwrap().unwrap()).unwrap();
    assert!(matches!(receiver.finish(), Err(ReceiveError::Size { .. })));
    assert!(!target.exists());

    let mut receiver = Receiver::open(&target, digest).unwrap();
    assert_eq!(receiver.offset(), CHUNK_BYTES as u64);
    for chunk in chunks(&path, receiver.offset()).unwrap() {
        receiver.absorb(&chunk.unwrap()).unwrap();
    }
    assert_eq!(receiver.finish().unwrap(), target);
    assert_eq!(std::fs::read(&target).unwrap(), data);
}

#[test]
fn wrong_bytes_are_refused_and_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("copy");
    let wrong = Chunk { data: Bytes::from_static(b"wrong"), total_bytes: 5 };
    let mut receiver = Receiver::open(&target, Digest::of(b"right")).unwrap();
    receiver.absorb(&wrong).unwrap();
    assert!(matches!(receiver.finish(), Err(ReceiveError::Digest { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let mut receiver = Receiver::open(&target, Digest::of(b"right")).unwrap();
    let long = Chunk { total_bytes: 3, ..wrong };
    assert!(matches!(receiver.absorb(&long), Err(ReceiveError::Size { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_offset_gives_the_rest(bytes in 0usize..5000, offset in 0usize..6000) {
        let (_dir, path, data) = file(bytes);
        match chunks(&path, offset as u64) {
            Ok(rest) => {
                let joined: Vec<u8> = rest.flat_map(|chunk| chunk.unwrap().data.to_vec()).collect();
                prop_assert_eq!(&joined, &data[offset..]);
            }
            Err(_) => prop_assert!(offset > bytes),
        }
    }
}
