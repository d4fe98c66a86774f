//! Scenarios on real parts. Each says which promise or which line of the design it tries.

mod resource_rules;
