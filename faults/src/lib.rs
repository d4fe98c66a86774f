//! Faults on demand, for the tests that show what survives them.
//!
//! | variable | what |
//! |---|---|
//! | `TENANTRY_CRASH_AT` | `name` or `name#3`: the process kills itself at that point, the first or third time it gets there |
//! | `TENANTRY_CRASH_LOG` | a file that gets a line for every point that is reached |
//! | `TENANTRY_POINT_TIMES` | a file that gets a line for every point, too, with the time in microseconds before the name |
//! | `TENANTRY_MUTANT` | a seeded bug that is switched on |
//! | `TENANTRY_EFFECTS_LOG` | a file that gets a line for every effect on a disk |
//!
//! All of it exists only in builds with debug assertions. A release build reads none of the variables: every function
//! here is a constant, and what calls it is optimised away.

#[cfg(debug_assertions)]
mod armed;
mod bug;

#[cfg(debug_assertions)]
pub use armed::{effect, point, point_named};
pub use bug::Bug;

/// A place where a test can have the process killed.
#[cfg(not(debug_assertions))]
#[inline]
pub fn point(_name: &str) {}

/// The same where the name must be put together first.
#[cfg(not(debug_assertions))]
#[inline]
pub fn point_named(_name: impl FnOnce() -> String) {}

impl Bug {
    /// Whether this bug is switched on.
    #[cfg(not(debug_assertions))]
    #[inline]
    pub const fn is_seeded(self) -> bool {
        false
    }
}

/// Tells a test of an effect on a disk.
#[cfg(not(debug_assertions))]
#[inline]
pub fn effect(_line: impl FnOnce() -> String) {}
