//! What is decided, case by case; and what holds for every case.

mod accept;
mod adoption;
mod annotations;
mod deletion;
mod drift;
mod in_flight;
mod lifecycle;
mod passing;
mod policy;
mod promises;
mod reach;
mod rollback;
mod summary;
mod suspended;
mod upgrade;
mod world;
