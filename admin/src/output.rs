//! The one place that prints: a value as text for a person, or as JSON for a program.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::error::CliError;

/// Where a command's result goes.
pub struct Output {
    json: bool,
    terminal: bool,
    out: Box<dyn Write + Send>,
}

impl Output {
    /// To standard output.
    pub fn stdout(json: bool) -> Self {
        Self { json, terminal: io::stdout().is_terminal(), out: Box::new(io::stdout()) }
    }

    /// To a writer that is no terminal.
    pub fn to(out: Box<dyn Write + Send>, json: bool) -> Self {
        Self { json, terminal: false, out }
    }

    /// True when JSON was asked for.
    pub fn json(&self) -> bool {
        self.json
    }

    /// True when a person watches, so that something live may be drawn.
    pub fn live(&self) -> bool {
        self.terminal && !self.json
    }

    /// Prints a command's result.
    ///
    /// # Errors
    /// The value cannot be written as JSON, or the output cannot be written. A reader that has gone
    /// away is no error.
    pub fn show<T: Serialize>(&mut self, value: &T, human: impl FnOnce(&T) -> String) -> Result<(), CliError> {
        if self.json {
            let text = serde_json::to_string_pretty(value).map_err(|error| CliError::failed(error.to_string()))?;
            self.line(&text)
        } else {
            let text = human(value);
            self.line(text.trim_end())
        }
    }

    /// Prints one value of several as one line of JSON.
    ///
    /// # Errors
    /// The value cannot be written as JSON, or the output cannot be written. A reader that has gone
    /// away is no error.
    pub fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|error| CliError::failed(error.to_string()))?;
        self.line(&text)
    }

    /// Prints a line of text at once.
    ///
    /// # Errors
    /// The output cannot be written. A reader that has gone away is no error.
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        match writeln!(self.out, "{text}").and_then(|()| self.out.flush()) {
            // Whoever read our output has seen enough, as in `rondo run list | head -1`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(CliError::failed(format!("cannot print: {error}"))),
            Ok(()) => Ok(()),
        }
    }
}

/// Prints why a command failed, on standard error.
pub fn print_error(error: &CliError, json: bool) {
    let text = if json {
        serde_json::json!({ "error": error.message, "hint": error.hint }).to_string()
    } else {
        let hint = error.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("error: {}{hint}", error.message)
    };
    // Where even standard error is closed nobody reads this; the exit code says it.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints what went wrong beside the command's own work, on standard error.
pub fn warn(error: &CliError) {
    let hint = error.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    // As above.
    let _ = writeln!(io::stderr(), "warning: {}{hint}", error.message);
}

/// Prints something worth knowing beside the command's result, on standard error.
pub fn note(text: &str) {
    // As above.
    let _ = writeln!(io::stderr(), "note: {text}");
}

/// A plain table: a line of titles, then the rows; `nothing` when there are none.
pub fn table(titles: &[&str], rows: Vec<Vec<String>>, nothing: &str) -> String {
    if rows.is_empty() {
        return nothing.to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(titles.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Names and values, one a line; empty values are left out.
pub fn facts(pairs: &[(&str, String)]) -> String {
    let shown = pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = shown.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
    shown.map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_facts_line_up() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["NAME", "N"], rows, "none"), "NAME  N\na     1\nlong  22\n");
        assert_eq!(table(&["NAME"], Vec::new(), "none"), "none");
        let pairs = [("a", "1".to_owned()), ("empty", String::new()), ("bcd", "2".to_owned())];
        assert_eq!(facts(&pairs), "a    1\nbcd  2\n");
    }
}
