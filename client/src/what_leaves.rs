//! The table of docs/what-leaves.md: every field that this program sends. Declarations are made
//! from it, so the page and they cannot say different things.

/// The page.
const PAGE: &str = include_str!("../../docs/what-leaves.md");

/// The kinds of runs, as the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// No `[privacy]` table.
    Plain,
    /// `privacy.unit = "client"`.
    UnitClient,
    /// `privacy.unit = "example"`.
    UnitExample,
}

/// A row: a field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// "Message.field".
    pub field: &'static str,
    /// In words.
    pub what: &'static str,
    /// Whether it is sent, by kind of run: plain, unit client, unit example, secure.
    pub sent: [&'static str; 4],
    /// Who can read it.
    pub read_by: &'static str,
    /// How long the coordinator keeps it.
    pub kept: &'static str,
    /// How it is deleted.
    pub deleted: &'static str,
}

impl Row {
    /// Whether it is sent in a run of this kind: "yes", "by choice", "0", "no", ...
    pub fn sent_in(&self, kind: RunKind) -> &'static str {
        match kind {
            RunKind::Plain => self.sent[0],
            RunKind::UnitClient => self.sent[1],
            RunKind::UnitExample => self.sent[2],
        }
    }
}

/// All rows, in the page's order.
pub fn rows() -> Vec<Row> {
    PAGE.lines().filter_map(row).collect()
}

fn row(line: &'static str) -> Option<Row> {
    let cells: Vec<&str> = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ").collect();
    let [field, what, plain, unit_client, unit_example, secure, read_by, kept, deleted] = cells[..] else {
        return None;
    };
    let sent = [plain, unit_client, unit_example, secure];
    Some(Row { field: field.strip_suffix('`')?, what, sent, read_by, kept, deleted })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// The fields of everything that the clients' services take, from the .proto files: those of
    /// messages inside messages too, by the message that they stand in.
    fn fields() -> BTreeSet<String> {
        let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/protos");
        let files = ["rondo/v1/federation.proto", "rondo/v1/enrolment.proto"];
        let compiled = protox::compile(files, [protos]).unwrap();
        let of_rondo = || compiled.file.iter().filter(|file| file.package() == "rondo.v1");
        let messages: BTreeMap<String, _> = of_rondo()
            .flat_map(|file| &file.message_type)
            .map(|message| (format!(".rondo.v1.{}", message.name()), message))
            .collect();
        let methods = of_rondo().flat_map(|file| &file.service).flat_map(|service| &service.method);
        let mut open: Vec<String> = methods.map(|method| method.input_type().to_owned()).collect();
        assert!(open.len() >= 10, "both services were found: {open:?}");
        let mut seen = BTreeSet::new();
        let mut fields = BTreeSet::new();
        while let Some(name) = open.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let message = messages[&name];
            assert!(message.nested_type.is_empty(), "{name} has messages of its own, which this test does not follow");
            for field in &message.field {
                if messages.contains_key(field.type_name()) {
                    open.push(field.type_name().to_owned());
                } else {
                    fields.insert(format!("{}.{}", message.name(), field.name()));
                }
            }
        }
        fields
    }

    #[test]
    fn the_page_lists_every_field_that_a_client_sends_and_no_other() {
        let listed: Vec<&str> = rows().iter().map(|row| row.field).collect();
        let set: BTreeSet<String> = listed.iter().map(ToString::to_string).collect();
        assert_eq!(set.len(), listed.len(), "a field is listed twice");
        let fields = fields();
        let missing: Vec<_> = fields.difference(&set).collect();
        assert!(missing.is_empty(), "docs/what-leaves.md does not say what becomes of {missing:?}");
        let gone: Vec<_> = set.difference(&fields).collect();
        assert!(gone.is_empty(), "docs/what-leaves.md lists fields that no client sends: {gone:?}");
        let table = PAGE.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(table, listed.len(), "a row has too few or too many cells");
    }

    #[test]
    fn the_cells_say_what_the_page_explains() {
        let words = ["yes", "0", "no", "by choice", "public data", "public data, by choice"];
        for row in rows() {
            assert!(row.sent[..3].iter().all(|cell| words.contains(cell)), "{row:?}");
            assert_eq!(row.sent[3], "not offered", "{row:?}");
            let texts = [row.what, row.read_by, row.kept, row.deleted];
            assert!(texts.iter().all(|text| !text.trim().is_empty()), "{row:?}");
        }
    }
}
