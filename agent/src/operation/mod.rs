//! Operations: taken on, carried out step by step, found again by their id.

mod accept;
pub mod bounds;
mod changes;
mod driver;
mod env_check;
mod finish;
mod hand_run;
mod keep;
mod policy;
mod preflight;
mod pull;
mod refresh;
mod rollback;
mod run;
mod staged;
mod start;
mod verify;
mod work;
mod write;

pub use accept::check;
pub use driver::{Effects, Log, Performed, Wrong, drive};
pub use run::{Carried, carry_out};
pub use work::Work;
