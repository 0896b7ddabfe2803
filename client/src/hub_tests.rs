use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub on the loopback: the list of files, addresses that redirect
/// to where the bytes are, and byte ranges there.
struct FakeHub {
    endpoint: String,
    /// "path from-which-byte" of every request for bytes.
    asked: Arc<Mutex<Vec<String>>>,
    rules: Arc<Mutex<Rules>>,
}

#[derive(Default)]
struct Rules {
    files: HashMap<String, Vec<u8>>,
    /// Files whose next whole answers end after so many bytes.
    cuts: HashMap<String, Vec<usize>>,
    /// Files that come from the start, whatever range was asked for.
    deaf: Vec<String>,
    sha: Option<String>,
}

impl FakeHub {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let hub =
            Self { endpoint, asked: Arc::default(), rules: Arc::new(Mutex::new(Rules { files, ..Rules::default() })) };
        let asked = hub.asked.clone();
        let rules = hub.rules.clone();
        let base = hub.endpoint.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let asked = asked.clone();
                let rules = rules.clone();
                let base = base.clone();
                std::thread::spawn(move || answer(stream.unwrap(), &asked, &rules, &base));
            }
        });
        hub
    }

    fn hub(&self, home: &Path) -> Hub {
        Hub::new(Some(format!("{}/", self.endpoint)), home)
    }
}

fn answer(mut stream: TcpStream, asked: &Mutex<Vec<String>>, rules: &Mutex<Rules>, base: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let mut from = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            let (first, last) = range.split_once('-').unwrap();
            from = Some((first.parse::<usize>().unwrap(), last.parse::<usize>().ok()));
        }
    }
    let mut rules = rules.lock().unwrap();
    let sha = rules.sha.clone().unwrap_or_else(|| COMMIT.to_owned());
    let send = |stream: &mut TcpStream, status: &str, headers: &str, length: usize, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    if let Some(rest) = path.strip_prefix("/api/models/owner/name/revision/") {
        assert!(["main?blobs=true", &format!("{COMMIT}?blobs=true")].contains(&rest), "{rest}");
        let file = |(name, bytes): (&String, &Vec<u8>)| serde_json::json!({"rfilename": name, "size": bytes.len()});
        let body = serde_json::json!({"sha": sha, "siblings": rules.files.iter().map(file).collect::<Vec<_>>()});
        let body = body.to_string();
        send(&mut stream, "200 OK", "", body.len(), body.as_bytes());
    } else if let Some(name) = path.strip_prefix(&format!("/owner/name/resolve/{COMMIT}/")) {
        let headers = format!("x-repo-commit: {COMMIT}\r\netag: \"e-{name}\"\r\nlocation: {base}/bytes/{name}\r\n");
        let there = rules.files.contains_key(name);
        send(&mut stream, if there { "302 Found" } else { "404 Not Found" }, &headers, 0, b"");
    } else if let Some(name) = path.strip_prefix("/bytes/") {
        let bytes = rules.files[name].clone();
        let (first, last) = from.unwrap();
        let probe = last == Some(0);
        let first = if rules.deaf.contains(&name.to_owned()) { 0 } else { first };
        let end = last.map_or(bytes.len(), |last| (last + 1).min(bytes.len()));
        let part = &bytes[first..end];
        let mut sent = part.len();
        if !probe {
            asked.lock().unwrap().push(format!("{name} {first}"));
            if let Some(cut) = rules.cuts.get_mut(name).and_then(|cuts| (!cuts.is_empty()).then(|| cuts.remove(0))) {
                sent = cut.min(sent);
            }
        }
        let headers = format!("content-range: bytes {first}-{}/{}\r\n", end.max(1) - 1, bytes.len());
        send(&mut stream, "206 Partial Content", &headers, part.len(), &part[..sent]);
    } else {
        send(&mut stream, "404 Not Found", "", 0, b"");
    }
    let _ = stream.flush();
    // What the client still sends must not become a reset that swallows the answer.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0; 64]);
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/goldens").join(name)).unwrap()
}

fn tiny_bert() -> FakeHub {
    let [config, tokenizer, weights] =
        ["config.json", "tokenizer.json", "model.safetensors"].map(|name| golden(&format!("tiny-bert/{name}")));
    FakeHub::start(&[
        ("config.json", &config),
        ("tokenizer.json", &tokenizer),
        ("model.safetensors", &weights),
        ("model.fp16.safetensors", b"another copy"),
        ("pytorch_model.bin", b"a pickle"),
        ("modeling_tiny.py", b"code"),
        ("tokenizer_config.json", b"{}"),
        ("../evil", b"a name that leaves the folder"),
    ])
}

fn wanted(revision: &str, file: Option<&str>) -> Wanted {
    Wanted::new("owner/name", revision, file).unwrap()
}

#[test]
fn a_model_is_fetched_once_and_a_cut_download_goes_on() {
    let fake = tiny_bert();
    let home = tempfile::tempdir().unwrap();
    let whole = golden("tiny-bert/model.safetensors").len();
    fake.rules.lock().unwrap().cuts.insert("model.safetensors".to_owned(), vec![1000, 500]);
    let folder = fake.hub(home.path()).cached_or_fetched(&wanted("main", None)).unwrap();
    let base = rondo_base::describe(&folder, "tiny").unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/goldens/tiny-bert");
    assert_eq!(base.digest, rondo_base::describe(&golden, "tiny").unwrap().digest);
    let asked = fake.asked.lock().unwrap().clone();
    let of_weights: Vec<&String> = asked.iter().filter(|asked| asked.starts_with("model.safetensors")).collect();
    assert_eq!(
        of_weights,
        ["model.safetensors 0", "model.safetensors 1000", "model.safetensors 1500"],
        "of {whole} bytes"
    );
    assert_eq!(asked.len(), 6, "nothing but what a base needs: {asked:?}");

    // Again, with the hub gone: out of the cache, by the branch and by the commit.
    let gone = Hub::new(Some("http://127.0.0.1:9".to_owned()), home.path());
    for revision in ["main", COMMIT] {
        assert_eq!(gone.cached_or_fetched(&wanted(revision, None)).unwrap(), folder);
    }
    let error = gone.cached_or_fetched(&wanted("v2", None)).unwrap_err().to_string();
    assert!(error.contains("owner/name at v2: the list of files") && error.contains("HF_ENDPOINT"), "{error}");
    // A cache that lacks weights is not whole.
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    assert!(gone.cached_or_fetched(&wanted("main", None)).is_err());
}

#[test]
fn a_download_that_was_given_up_goes_on_later() {
    let fake = tiny_bert();
    let home = tempfile::tempdir().unwrap();
    fake.rules.lock().unwrap().cuts.insert("model.safetensors".to_owned(), vec![100; ATTEMPTS as usize]);
    let error = fake.hub(home.path()).fetch(&wanted(COMMIT, None)).unwrap_err().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
    fake.hub(home.path()).fetch(&wanted(COMMIT, None)).unwrap();
    assert!(fake.asked.lock().unwrap().contains(&"model.safetensors 400".to_owned()));
}

#[test]
fn a_server_that_ignores_ranges_is_noticed() {
    let fake = tiny_bert();
    let home = tempfile::tempdir().unwrap();
    {
        let mut rules = fake.rules.lock().unwrap();
        rules.cuts.insert("model.safetensors".to_owned(), vec![1000]);
        rules.deaf.push("model.safetensors".to_owned());
    }
    let error = fake.hub(home.path()).fetch(&wanted("main", None)).unwrap_err().to_string();
    assert!(
        error.contains("model.safetensors came out with") && error.contains("it was removed, try again"),
        "{error}"
    );
    fake.hub(home.path()).fetch(&wanted("main", None)).unwrap();
}

#[test]
fn one_gguf_file_is_a_model() {
    let tiny = golden("gguf/tiny.gguf");
    let fake = FakeHub::start(&[("tiny.gguf", &tiny), ("README.md", b"")]);
    let home = tempfile::tempdir().unwrap();
    let hub = fake.hub(home.path());
    let path = hub.cached_or_fetched(&wanted("main", Some("tiny.gguf"))).unwrap();
    assert_eq!(fs::read(path).unwrap(), tiny);
    let error = hub.fetch(&wanted("main", None)).unwrap_err().to_string();
    assert!(error.contains("has no config.json; name one of its .gguf files as `file`: tiny.gguf"), "{error}");
    let error = hub.fetch(&wanted("main", Some("other.gguf"))).unwrap_err().to_string();
    assert!(error.contains("has no file \"other.gguf\""), "{error}");
}

#[test]
fn shards_are_those_of_the_index() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let files: [(&str, &[u8]); 6] = [
        ("config.json", b"{}"),
        ("tokenizer.json", b"{}"),
        (INDEX_FILE, index),
        ("model-1.safetensors", b"1"),
        ("model-2.safetensors", b"2"),
        ("consolidated.safetensors", b"3"),
    ];
    let fake = FakeHub::start(&files);
    let home = tempfile::tempdir().unwrap();
    let folder = fake.hub(home.path()).fetch(&wanted("main", None)).unwrap();
    assert!(folder.join("model-2.safetensors").exists() && !folder.join("consolidated.safetensors").exists());
    for (index, says) in [
        (r#"{"weight_map": {"a": "model-3.safetensors"}}"#, "has no \"model-3.safetensors\""),
        (
            r#"{"weight_map": {"a": "../x.safetensors"}}"#,
            "\"a\" in \"../x.safetensors\", which is no .safetensors file",
        ),
        ("[]", "broken model.safetensors.index.json"),
    ] {
        let home = tempfile::tempdir().unwrap();
        fake.rules.lock().unwrap().files.insert(INDEX_FILE.to_owned(), index.as_bytes().to_vec());
        let error = fake.hub(home.path()).fetch(&wanted("main", None)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn names_that_would_leave_the_cache_are_refused() {
    for (repository, revision, file) in [
        ("../../etc", "main", None),
        ("owner/name/more", "main", None),
        ("", "main", None),
        ("owner/name", "../main", None),
        ("owner/name", "a b", None),
        ("owner/name", "main", Some("../m.gguf")),
        ("owner/name", "main", Some("m.bin")),
    ] {
        assert!(
            matches!(Wanted::new(repository, revision, file), Err(HubError::Name { .. })),
            "{repository} {revision}"
        );
    }
    assert!(Wanted::new("gpt2", "refs/pr/1", Some("sub/m.gguf")).is_ok());
    let fake = tiny_bert();
    let home = tempfile::tempdir().unwrap();
    fake.rules.lock().unwrap().sha = Some("../../x".to_owned());
    let error = fake.hub(home.path()).fetch(&wanted("main", None)).unwrap_err().to_string();
    assert!(error.contains("the commit \"../../x\", which is none"), "{error}");
}
