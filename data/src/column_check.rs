//! Checks a file's columns before any run asks for its rows, so that a misspelt name shows at once.

use rondo_proto::run_file::{TaskKind, Template};

use super::error::Place;
use super::read::{self, RecordPlace, Sink};
use super::row_parser::RowParser;
use super::source::OnBadRow;
use super::{DataError, Record, Source, TaskSpec};

impl Source {
    /// Checks the columns; reads the header or the first row, and no further.
    ///
    /// # Errors
    /// The file cannot be read or has no rows; a column that the table names is not there; the
    /// columns serve no task.
    pub fn check_columns(&self) -> Result<(), DataError> {
        let mut first = First { source: self, columns: None };
        let end = read::read(self, self.format()?, &mut first);
        let Some((columns, at)) = first.columns else {
            return end.and(Err(DataError::NoRows { file: self.path.clone() }));
        };
        RowParser::check_named(self, &columns, at)?;
        let serves = |kind: TaskKind| {
            let task = TaskSpec { kind, labels: &[], template: Template::Auto };
            RowParser::check(self, task).and_then(|()| RowParser::new(self, task, &columns, at)).is_ok()
        };
        match TaskKind::ALL.into_iter().any(serves) {
            true => Ok(()),
            false => Err(DataError::NoTask { file: self.path.clone(), at, there: columns }),
        }
    }
}

/// Takes the columns and stops the reading.
struct First<'s> {
    source: &'s Source,
    columns: Option<(Vec<String>, Place)>,
}

impl First<'_> {
    fn take(&mut self, columns: Vec<String>, at: Place) -> Result<(), DataError> {
        self.columns = Some((columns, at));
        // Only an error ends the reading. The caller has the columns then and ignores the error.
        Err(DataError::NoRows { file: self.source.path.clone() })
    }
}

impl Sink for First<'_> {
    fn columns(&mut self, columns: &[String], at: Place) -> Result<(), DataError> {
        self.take(columns.to_vec(), at)
    }

    fn record(&mut self, found: RecordPlace, record: Result<Record, DataError>) -> Result<(), DataError> {
        match record {
            Ok(record) => self.take(record.keys().cloned().collect(), found.place),
            Err(error) if error.is_of_a_row() && self.source.on_bad_row != OnBadRow::Stop => Ok(()),
            Err(error) => Err(error),
        }
    }
}
