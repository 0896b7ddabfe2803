//! Adapters as other programs read them.

mod card;
mod copy;
pub mod head;
pub mod merged;
pub mod native;
pub mod peft;
pub(crate) mod peft_load;
mod peft_options;
pub mod report;
