//! What several steps share.

pub mod attachments;
pub mod container_names;
pub mod data;
pub mod foreign;
pub mod image_pins;
pub mod last_words;
pub mod mend;
pub mod orphans;
pub mod planned;
pub mod probes;
pub mod progress;
pub mod readme;
pub mod recheck;
pub mod recipe;
pub mod references;
pub mod restarts;
pub mod starts;
pub mod stops;
pub mod terms;
pub mod up;
pub mod volumes;
