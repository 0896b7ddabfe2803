//! Checks of what client.toml offers to runs, made before the first poll. No run invites a client
//! that lacks something, and no message would say why.

use std::fs::File;

use rondo_data::{OnBadRow, Source};

use super::StartError;
use crate::config::Config;

/// Opens the data files and reads their first rows; warns where no run can invite this client.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    for table in missing_tables(config) {
        tracing::warn!("{}", no_table(table));
    }
    config.datasets.iter().try_for_each(check_dataset)
}

/// What a missing table means.
pub fn no_table(table: &str) -> String {
    format!("client.toml has no {table}, so no run will invite this client; add one and start it again")
}

/// The tables without which no run fits.
pub fn missing_tables(config: &Config) -> Vec<&'static str> {
    let tables = [(config.models.is_empty(), "[[model]]"), (config.datasets.is_empty(), "[[dataset]]")];
    tables.into_iter().filter(|(is_missing, _)| *is_missing).map(|(_, table)| table).collect()
}

/// Opens a data file and reads its first row.
///
/// # Errors
/// The file cannot be opened, or its columns serve no task.
pub fn check_dataset(source: &Source) -> Result<(), StartError> {
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
    fn a_client_that_no_run_would_invite_is_reported_at_the_start() {
        assert_eq!(missing_tables(&Config::default()), ["[[model]]", "[[dataset]]"]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reviews.tsv");
        let source = Source { label: "verdict".to_owned(), ..Source::new("reviews", &path) };
        let mut config = Config { models: vec![Model::default()], datasets: vec![source], ..Config::default() };
        assert!(missing_tables(&config).is_empty());
        let refused = |config: &Config| check(config).unwrap_err().to_string();
        assert!(refused(&config).contains("cannot open") && refused(&config).contains("set the right `path`"));
        std::fs::write(&path, "text\tverdikt\nso it is\tgood\n").unwrap();
        let message = refused(&config);
        assert!(
            message.contains("data set \"reviews\"")
                && message.contains("missing column `verdict`; there are `text`, `verdikt`")
        );
        // Rows that may be skipped are no reason not to start.
        config.datasets[0].on_bad_row = OnBadRow::Skip;
        check(&config).unwrap();
        std::fs::write(&path, "text\tverdict\nso it is\tgood\n").unwrap();
        config.datasets[0].on_bad_row = OnBadRow::Stop;
        check(&config).unwrap();
    }
}
