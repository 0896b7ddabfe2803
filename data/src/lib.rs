//! The client's own examples: read from JSONL, JSON, CSV, TSV or Parquet files, brought from the columns there are to what
//! a task needs, and split once and for all into training and held-out examples.
//!
//! ```text
//! file -- read --> records -- shape --> examples -- split --> data set (in memory, or an index of the file)
//! ```

pub mod batches;
mod choice;
mod column;
mod dataset;
mod error;
mod example;
mod look;
mod read;
mod shape;
mod shaper;
mod source;
mod split;
mod store;
pub mod template;

pub use dataset::{Dataset, Part};
pub use error::{DataError, Place};
pub use example::{Content, Example, Message, Role};
pub use shape::{Shape, Wants};
pub use source::{Columns, Format, Mapping, OnBadRow, Source};

/// One row as a file has it: a value per column.
type Record = serde_json::Map<String, serde_json::Value>;

#[cfg(test)]
mod tests;
