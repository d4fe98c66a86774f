//! What a plan is checked for, each in a file of its own.

pub mod before;
pub mod env;
pub mod env_files;
pub mod in_project_agent;
pub mod manual_run;
pub mod model;
pub mod mounts;
pub mod policy;
pub mod ports;
pub mod probes;
pub mod reach;
pub mod resources;
pub mod space;
pub mod unread;
