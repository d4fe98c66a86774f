//! P7 of images: every other byte stays, and what is read is exactly what is meant.

mod edit;
mod generated;
mod proposal;
mod scalars;
mod written;
