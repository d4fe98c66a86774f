
pub mod env;
pub mod bundle;
pub mod decide;
pub mod render;
pub mod target;
pub mod model;
pub mod compare;
pub mod verify;
pub mod steps;
