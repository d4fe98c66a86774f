//! Operations: taken on, carried out step by step, found again by their id.

mod accept;
mod back;
pub mod bounds;
mod changes;
mod data;
mod driver;
mod env_check;
mod finish;
mod hand_over;
mod hand_run;
mod inside;
mod keep;
mod leaving;
mod point;
mod policy;
mod ports;
mod preflight;
mod pull;
mod readme;
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
pub use hand_over::named;
pub(crate) use point::briefs;
pub use refresh::what_to_tell;
pub use run::{Carried, carry_out, go_on, tidy};
pub use start::{up_arguments, up_limit};
pub use work::Work;
