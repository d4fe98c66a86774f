//! The steps of an operation, each in a file of its own. Each can be done again.

pub mod data;
pub mod finish;
pub mod hand_over;
pub mod preflight;
pub mod pull;
pub mod quiesce;
pub mod refresh;
pub mod retag_images;
pub mod rollback;
pub mod snapshot;
pub mod start;
pub mod verify;
pub mod write;
