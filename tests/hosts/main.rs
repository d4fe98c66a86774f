//! Agents as real processes and real containers: killed, recreated, and left alone with what does not answer.

mod image;
mod inside;
mod orphan;
mod rig;
mod volumes;
