//! Adapters as other programs read them.

mod card;
pub mod head;
pub mod peft;
mod peft_load;
