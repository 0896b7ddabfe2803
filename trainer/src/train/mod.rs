//! A round's training: the optimiser's steps, private steps, warm-ups, and runs of one client
//! without a coordinator.

pub mod dp_sgd;
pub mod local;
pub mod local_simulation;
pub mod optim;
pub mod warm_up;
