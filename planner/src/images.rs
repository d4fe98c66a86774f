//! Images as compose files write them: where they stand, what they say, and how one is replaced, exact to the byte.
//!
//! [`scalars`] finds every value of a key `image` in a file's bytes. [`written`] takes such a value apart and says
//! what of it can be changed, for compose fills in variables. [`edit`] writes new values into the file; every other
//! byte stays, and what is given out was parsed again and proved to say the same but for them. [`name`] tells
//! whether two spellings name one image.
//!
//! Caveat: only what stands in this one file is seen. `extends` and `include` of other files are not followed.

#![warn(missing_docs)]

pub mod choose;
pub mod edit;
mod events;
pub mod meaning;
pub mod name;
pub mod proposal;
mod quote;
pub mod scalars;
pub mod settings;
pub mod variable;
pub mod written;

#[cfg(test)]
mod tests;

pub use edit::{EditError, replace};
pub use name::{normal_name, same_name};
pub use scalars::{ImageScalar, Style, Unreadable, image_scalars};
pub use written::{CannotChange, Change, Part, Tag, Written};
