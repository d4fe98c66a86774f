
pub mod env;
