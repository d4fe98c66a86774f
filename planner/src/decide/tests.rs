//! What is decided, case by case; and what holds for every case.

mod accept;
mod asks;
mod back;
mod contact;
mod flight;
mod leave;
mod promises;
mod steady;
mod upgrade;
mod world;
