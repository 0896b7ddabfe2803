//! The file that describes an experiment.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use toml::{Table, Value};

use crate::federation::Member;

/// An experiment: who owns what, and what is run over it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    /// What it shows.
    pub(crate) title: String,
    /// Name of the base model.
    pub(crate) base: String,
    /// The data owners.
    #[serde(rename = "client")]
    clients: Vec<Client>,
    /// The `[[dataset]]` table of every client.toml, but for the path.
    dataset: Table,
    /// The `[limits]` table of every client.toml.
    #[serde(default)]
    limits: Table,
    /// The run file, but for the method.
    run: Table,
    /// The methods, one run each.
    #[serde(rename = "method")]
    methods: Vec<MethodSpec>,
}

/// One data owner.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    name: String,
    /// File in the data folder.
    data: String,
    /// Of a JSON array only every `of`-th row, from row `take` on.
    share: Option<Share>,
    /// Largest adapter rank that it trains.
    max_rank: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    take: usize,
    of: usize,
}

/// One run.
#[derive(Debug, Deserialize)]
pub(crate) struct MethodSpec {
    /// Registry id.
    pub(crate) id: String,
    /// Learning rate, where it differs from the run's.
    lr: Option<f64>,
    /// The rest of the `[method]` table.
    #[serde(flatten)]
    options: Table,
}

impl Spec {
    /// Reads a file.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        toml::from_str(&text).with_context(|| format!("{} describes no experiment", file.display()))
    }

    /// The methods asked for; all when none is named.
    pub(crate) fn methods(&self, wanted: &[String]) -> Result<Vec<&MethodSpec>> {
        if let Some(unknown) = wanted.iter().find(|id| !self.methods.iter().any(|method| method.id == **id)) {
            let there: Vec<&str> = self.methods.iter().map(|method| method.id.as_str()).collect();
            bail!("the experiment has no method {unknown:?}; it has {}", there.join(", "));
        }
        Ok(self.methods.iter().filter(|method| wanted.is_empty() || wanted.contains(&method.id)).collect())
    }

    /// The data owners with their files.
    pub(crate) fn members(&self, data: &Path, model: &dyn Fn(&str) -> PathBuf) -> Result<Vec<Member>> {
        self.clients.iter().map(|client| self.member(client, data, &model(&self.base))).collect()
    }

    fn member(&self, client: &Client, data: &Path, model: &Path) -> Result<Member> {
        let source = data.join(&client.data);
        let mut content = std::fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        if let Some(Share { take, of }) = client.share {
            let rows: Vec<serde_json::Value> = serde_json::from_slice(&content)
                .with_context(|| format!("{} is no JSON array, so it cannot be shared out", source.display()))?;
            let own: Vec<_> = rows.into_iter().skip(take).step_by(of.max(1)).collect();
            content = serde_json::to_vec(&own)?;
        }
        let path = PathBuf::from("data").join(&client.data);
        let mut dataset = self.dataset.clone();
        dataset.insert("path".to_owned(), path.to_string_lossy().into_owned().into());
        let mut limits = self.limits.clone();
        if let Some(rank) = client.max_rank {
            limits.insert("max_rank".to_owned(), rank.into());
        }
        let mut base = Table::new();
        base.insert("path".to_owned(), model.to_string_lossy().into_owned().into());
        let mut poll = Table::new();
        poll.insert("interval_ms".to_owned(), 500.into());
        // Experiments compare groups of public data.
        let mut policy = Table::new();
        policy.insert("report_groups".to_owned(), true.into());
        policy.insert("min_group".to_owned(), 2.into());
        let tables = [
            ("model", Value::Array(vec![base.into()])),
            ("dataset", Value::Array(vec![dataset.into()])),
            ("limits", limits.into()),
            ("poll", poll.into()),
            ("policy", policy.into()),
        ];
        let config: Table = tables.into_iter().map(|(name, table)| (name.to_owned(), table)).collect();
        Ok(Member { name: client.name.clone(), config: toml::to_string(&config)?, files: vec![(path, content)] })
    }

    /// The run file of one method.
    pub(crate) fn run_file(&self, method: &MethodSpec, rounds: Option<u32>) -> Result<String> {
        let mut run = self.run.clone();
        let mut base = Table::new();
        base.insert("model".to_owned(), self.base.clone().into());
        run.insert("base".to_owned(), base.into());
        let mut options = method.options.clone();
        options.insert("id".to_owned(), method.id.clone().into());
        run.insert("method".to_owned(), options.into());
        let mut change = |table: &str, key: &str, value: Value| -> Result<()> {
            let found = run.get_mut(table).and_then(Value::as_table_mut);
            found.with_context(|| format!("no table [run.{table}]"))?.insert(key.to_owned(), value);
            Ok(())
        };
        if let Some(lr) = method.lr {
            change("train", "lr", lr.into())?;
        }
        if let Some(count) = rounds {
            change("rounds", "count", count.into())?;
        }
        toml::to_string(&run).context("a run file cannot be written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_repository_describe_experiments() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/experiments");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let spec = Spec::read(&entry.unwrap().path()).unwrap();
            for method in spec.methods(&[]).unwrap() {
                let run: Table = spec.run_file(method, Some(1)).unwrap().parse().unwrap();
                assert_eq!(run["rounds"]["count"].as_integer(), Some(1));
                assert!(run["method"]["rank"].is_integer() && run["base"]["model"].is_str());
            }
            read += 1;
        }
        assert!(read > 0);
    }

    #[test]
    fn rows_are_shared_out_without_loss() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rows.json"), "[1,2,3,4,5]").unwrap();
        let text = "title = \"t\"\nbase = \"b\"\nrun = {}\nmethod = []\n[dataset]\nname = \"d\"\n\
                    [[client]]\nname = \"one\"\ndata = \"rows.json\"\nshare = { take = 0, of = 2 }\n\
                    [[client]]\nname = \"two\"\ndata = \"rows.json\"\nshare = { take = 1, of = 2 }\nmax_rank = 4\n";
        let spec: Spec = toml::from_str(text).unwrap();
        let members = spec.members(dir.path(), &|model| PathBuf::from("/models").join(model)).unwrap();
        let rows: Vec<&[u8]> = members.iter().map(|member| member.files[0].1.as_slice()).collect();
        assert_eq!(rows, [b"[1,3,5]".as_slice(), b"[2,4]"]);
        assert!(members[1].config.contains("max_rank = 4") && members[0].config.contains("/models/b"));
        assert!(spec.methods(&["flora".to_owned()]).is_err());
    }
}
