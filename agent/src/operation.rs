//! Operations: carried out step by step, each by its own journal, and taken up again after a restart.
//!
//! [`drive`] asks the step machine what is next and records what came of it; `perform` says where each step is carried
//! out; `steps/` has the steps, `parts/` what several of them share.

mod context;
mod driver;
mod parts;
mod perform;
mod run;
mod steps;
mod take_up;

pub use context::OperationContext;
pub use driver::{Effects, Log, StepResult, drive};
pub use parts::recipe::{up_arguments, up_limit};
pub use run::{carry_out, go_on, tidy};
pub use steps::hand_over::named;
pub use steps::refresh::what_to_tell;
pub use take_up::{OpenOperation, TakenUp, take_up, take_up_one};
