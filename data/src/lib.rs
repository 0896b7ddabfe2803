//! A client's own data: rows of JSONL, JSON, CSV, TSV or Parquet files become the examples that a
//! task needs, split once and for all into training and held-out examples.
//!
//! ```text
//! file -- read --> records -- row_parser --> examples -- split_key --> data set
//!                                              (in memory, or an index of the file)
//! ```

pub mod batches;
mod choices;
mod column;
mod column_check;
mod conversation;
mod dataset;
mod error;
mod example;
mod field;
mod loading;
mod read;
mod row_format;
mod row_parser;
mod row_store;
mod source;
mod split_key;
mod task_spec;
pub mod template;

pub use conversation::{Conversation, Message, Role};
pub use dataset::{Dataset, Split};
pub use error::{DataError, Place};
pub use example::{Content, Example};
pub use row_format::RowFormat;
pub use source::{Columns, Format, Mapping, OnBadRow, Source};
pub use task_spec::TaskSpec;

/// One row as a file has it: a value per column.
type Record = serde_json::Map<String, serde_json::Value>;

#[cfg(test)]
mod tests;
