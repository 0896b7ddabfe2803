use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/rondo/client.toml")).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_is_the_default_and_paths_start_at_the_folder() {
    assert_eq!(parse("").unwrap(), Config::default());
    let config = parse("[[model]]\npath = \"m\"\n[[dataset]]\nname = \"a\"\npath = \"/data/a.csv\"").unwrap();
    assert_eq!(config.models[0].path, Path::new("/etc/rondo/m"));
    assert_eq!(config.datasets[0].path, Path::new("/data/a.csv"));
    let hub = parse("[[model]]\nhub = \"o/n\"\nrevision = \"r\"").unwrap().models.remove(0);
    assert_eq!((hub.hub.as_deref(), hub.revision.as_deref(), hub.path), (Some("o/n"), Some("r"), "".into()));
    assert_eq!((config.datasets[0].text.as_str(), config.datasets[0].eval_fraction), ("text", 0.1));
}

#[test]
fn bad_files_are_refused_with_the_mend() {
    for (text, says) in [
        ("[limit]\nmax_rank = 3", "unknown key `limit` in the file's top level, did you mean `limits`?"),
        ("[limits]\nmaxrank = 3", "unknown key `maxrank` in [limits], did you mean `max_rank`?"),
        (
            "[[dataset]]\nname='a'\npath='x'\n[[dataset]]\nname='b'\npath='y'\ncolumn=['a']",
            "unknown key `column` in [[dataset]] number 2, did you mean `columns`?",
        ),
        ("[[dataset]]\nnam='a'\npath='x'", "unknown key `nam` in [[dataset]] number 1, did you mean `name`?"),
        ("[[dataset]]\npath='x'", "missing field `name`"),
        ("[limits]\nmax_rank = 'a'", "line 2"),
        ("[[dataset]]\nname='a'\npath='x'\neval_fraction=1.0", "`dataset[0].eval_fraction` is 1; allowed is 0"),
        ("[[dataset]]\nname='a'\npath='x'\n[[dataset]]\nname='a'\npath='x'", "as is that of dataset[0]"),
        (
            "[[dataset]]\nname='a'\npath='x'\nrows='labelled'\ncolumns=['text']",
            "`dataset[0].label` is \"label\", which `columns`",
        ),
        (
            "[[dataset]]\nname='a'\npath='x'\nquestion='{p} {q}'\ncolumns=['p', 'r']",
            "`dataset[0].question` is \"{p} {q}\", which `columns`",
        ),
        (
            "[[dataset]]\nname='a'\npath='x'\nrows='alpca'",
            "unknown variant `alpca`, expected one of `auto`, `labelled`",
        ),
        ("[[dataset]]\nname='a'\npath='x'\nquestoin='q'", "did you mean `question`?"),
        ("[[dataset]]\nname='a'\npath='x'\nmax_bad_rows=2.0", "`dataset[0].max_bad_rows` is 2; allowed is 0 to 1"),
        ("[[dataset]]\nname='a'\npath='x'\noptions=['one']", "`dataset[0].options` must name at least two options"),
        (
            "[[dataset]]\nname='a'\npath='x'\noptions=['a', 'b']\nchoices='c'",
            "`dataset[0].options` and `choices` are both set",
        ),
        ("[limits]\ndevice='gpu'", "\"cuda:N\""),
        ("[policy]\nmax_epsilon=-1.0", "`policy.max_epsilon` must be above 0"),
        ("[policy]\nmax_delta=1.0", "`policy.max_delta` must lie between 0 and 1"),
        (
            "[policy]\nmethods=['fed-bs']",
            "`policy.methods` names \"fed-bs\", which there is not, did you mean \"fed-sb\"?",
        ),
        ("[policy]\ntasks=['classify']", "did you mean \"classification\"?; there are classification, causal-lm"),
        ("[[model]]", "`model[0].path` is missing; give a `path` or a `hub` repository"),
        ("[[model]]\npath='m'\nhub='o/n'", "`model[0].path` stands beside `hub`"),
        ("[[model]]\npath='m'\nrevision='main'", "`model[0].revision` is for models with `hub`"),
        ("[[model]]\npath='m'\nfile='m.gguf'", "`model[0].file` is for models with `hub`"),
        ("[poll]\ninterval_ms=0", "`poll.interval_ms` must be above 0"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(says), "{error:?} should contain {says:?}");
        assert!(error.starts_with("/etc/rondo/client.toml: "), "{error}");
    }
}

#[test]
fn one_file_has_one_domain_and_is_public_or_not() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("data/a.tsv"), "").unwrap();
    let file = dir.path().join("client.toml");
    let problem = |first: &str, second: &str, rest: &str| {
        let table = |name: &str, path: &str, keys: &str| format!("[[dataset]]\nname='{name}'\npath='{path}'\n{keys}\n");
        let text = format!("{}{}{rest}", table("a", "data/a.tsv", first), table("b", "data/../data/a.tsv", second));
        Config::parse(&text, &file).map_err(|error| error.to_string()).err().unwrap_or_default()
    };
    assert!(
        problem("", "", "")
            .contains("`dataset[1].privacy_domain` is \"b\", and dataset[0] with the same file has \"a\"")
    );
    assert_eq!(problem("", "privacy_domain='a'", ""), "");
    assert_eq!(problem("privacy_domain='x'", "privacy_domain='x'", ""), "");
    assert!(
        problem("", "public=true", "")
            .contains("`dataset[1].public` is true, and dataset[0] with the same file says false")
    );
    assert_eq!(problem("public=true", "public=true", ""), "");
    let budget = "[[privacy]]\ndomain='a'\nepsilon=8.0\ndelta=1e-6";
    assert!(
        problem("public=true", "public=true", budget)
            .contains("`dataset[0].public` is true, but its domain \"a\" has a")
    );
}

#[test]
fn the_known_keys_are_those_of_the_types() {
    let whole = Config {
        models: vec![Model {
            path: "m".into(),
            hub: Some("owner/name".to_owned()),
            revision: Some("main".to_owned()),
            file: Some("m.gguf".to_owned()),
        }],
        datasets: vec![Source {
            format: Some(rondo_data::Format::Csv),
            mapping: rondo_data::Mapping {
                prompt: Some("text".to_owned()),
                completion: Some("text".to_owned()),
                instruction: Some("text".to_owned()),
                input: Some("text".to_owned()),
                output: Some("text".to_owned()),
                messages: Some("text".to_owned()),
                question: Some("text".to_owned()),
                choices: Some(rondo_data::Columns::Many(vec!["text".to_owned()])),
                choice_labels: Some("text".to_owned()),
                options: Some(vec!["text".to_owned()]),
                answer: Some("text".to_owned()),
                answer_after: Some("text".to_owned()),
                group: Some("text".to_owned()),
            },
            columns: Some(vec!["text".to_owned(), "label".to_owned()]),
            quotes: Some(true),
            privacy_domain: Some("a".to_owned()),
            ..Source::new("a", "b")
        }],
        privacy: vec![PrivacyBudget { domain: "a".to_owned(), epsilon: 8.0, delta: 1e-6 }],
        policy: PolicyConfig { max_epsilon: Some(1.0), max_delta: Some(1e-5), ..PolicyConfig::default() },
        ..Config::default()
    };
    let table = toml::Table::try_from(&whole).unwrap();
    let sorted = |keys: &mut dyn Iterator<Item = &str>| {
        let mut keys: Vec<String> = keys.map(str::to_owned).collect();
        keys.sort();
        keys
    };
    for (name, keys) in super::keys::KEYS {
        let there = match table.get(name) {
            None => &table,
            Some(toml::Value::Table(table)) => table,
            Some(value) => value.as_array().unwrap()[0].as_table().unwrap(),
        };
        assert_eq!(sorted(&mut there.keys().map(String::as_str)), sorted(&mut keys.iter().copied()), "{name}");
    }
    let mut sound = Config { models: Vec::new(), ..whole.clone() };
    sound.datasets[0].mapping.options = None;
    assert_eq!(parse(&toml::to_string(&sound).unwrap()).unwrap().policy, whole.policy);
}

#[test]
fn the_examples_are_sound() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files = std::fs::read_dir(examples.join("clients")).unwrap().map(|file| file.unwrap().path());
    let mut read = 0;
    for file in files.chain([examples.join("compose/client.toml")]) {
        let config = Config::read(&file).unwrap();
        assert!(!config.models.is_empty() && !config.datasets.is_empty(), "{}", file.display());
        read += 1;
    }
    assert!(read > 1);
}
