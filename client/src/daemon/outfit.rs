//! What client.toml brings to runs, looked at before the first poll: a client that lacks something is never invited, and
//! nobody would tell it why.

use std::fs::File;

use super::StartError;
use crate::config::Config;
use rondo_data::{OnBadRow, Source};

/// Looks at the data files; warns where no run can invite this client.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    for table in lacking(config) {
        tracing::warn!("client.toml has no {table}, so no run will invite this client; add one and start it again");
    }
    config.datasets.iter().try_for_each(data_set)
}

/// The tables without which no run fits.
fn lacking(config: &Config) -> Vec<&'static str> {
    let tables = [(config.models.is_empty(), "[[model]]"), (config.datasets.is_empty(), "[[dataset]]")];
    tables.into_iter().filter(|(lacks, _)| *lacks).map(|(_, table)| table).collect()
}

fn data_set(source: &Source) -> Result<(), StartError> {
    let name = source.name.clone();
    File::open(&source.path).map_err(|error| {
        let path = source.path.clone();
        StartError::Dataset { name: name.clone(), path, source: error }
    })?;
    match source.check_columns() {
        // Rows that are skipped may have other columns than those that are used.
        Err(error) if source.on_bad_row == OnBadRow::Skip => {
            tracing::warn!(dataset = name, problem = %error, "the first row cannot be used");
            Ok(())
        }
        Err(error) => Err(StartError::Rows { name, source: Box::new(error) }),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Model;

    #[test]
    fn what_would_never_be_invited_is_seen_at_the_start() {
        assert_eq!(lacking(&Config::default()), ["[[model]]", "[[dataset]]"]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reviews.tsv");
        let source = Source { label: "verdict".to_owned(), ..Source::new("reviews", &path) };
        let mut config = Config { models: vec![Model::default()], datasets: vec![source], ..Config::default() };
        assert!(lacking(&config).is_empty());
        let refused = |config: &Config| check(config).unwrap_err().to_string();
        assert!(refused(&config).contains("cannot open") && refused(&config).contains("set the right `path`"));
        std::fs::write(&path, "text\tverdikt\nso it is\tgood\n").unwrap();
        let told = refused(&config);
        assert!(
            told.contains("data set \"reviews\"")
                && told.contains("missing column `verdict`; there are `text`, `verdikt`")
        );
        // Rows that may be skipped are no reason not to start.
        config.datasets[0].on_bad_row = OnBadRow::Skip;
        check(&config).unwrap();
        std::fs::write(&path, "text\tverdict\nso it is\tgood\n").unwrap();
        config.datasets[0].on_bad_row = OnBadRow::Stop;
        check(&config).unwrap();
    }
}
