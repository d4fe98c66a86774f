//! Agents as real processes and real containers: killed, recreated, and left alone with what does not answer.

mod inside;
mod orphan;
mod rig;
