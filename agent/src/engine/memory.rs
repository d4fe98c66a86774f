//! What the engine said before, believed only while its event stream is unbroken and silent about it.
//!
//! A read that follows a change of our own must be a fresh one: the event may come a moment after the change.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::events::Generation;

/// How much is remembered: above what a busy host has.
const LIMIT: usize = 4_096;

/// Answers by name, each with the moment from before it was asked for.
pub(super) struct Memory<T>(Mutex<HashMap<String, (Generation, T)>>);

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Memory<T> {
    /// What was said at this very moment.
    pub(super) fn get(&self, name: &str, moment: Option<Generation>) -> Option<T> {
        let known = self.0.lock();
        known.get(name).filter(|(then, _)| Some(*then) == moment).map(|(_, answer)| answer.clone())
    }

    /// Remembers an answer; `moment` is from before it was asked for.
    pub(super) fn put(&self, name: &str, moment: Option<Generation>, answer: &T) {
        let Some(moment) = moment else { return };
        let mut known = self.0.lock();
        if known.len() >= LIMIT {
            known.clear();
        }
        known.insert(name.to_owned(), (moment, answer.clone()));
    }
}
