//! What a trainer is asked and answers, how much of the machine it may take, and how much memory a
//! step takes. Free of libtorch: the daemon and its tests link this alone.

pub mod limits;
pub mod memory;
pub mod work;
