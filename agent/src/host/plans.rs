//! The plans that are being made: each has a name, and with it a staged tree, of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// The plans that are being made on this host.
#[derive(Clone, Default)]
pub struct Plans(Arc<Mutex<Made>>);

#[derive(Default)]
struct Made {
    last: u64,
    open: BTreeSet<String>,
}

/// A plan that is being made. Its name is taken until this is dropped.
pub struct OpenPlan {
    name: String,
    plans: Plans,
}

impl Plans {
    /// Names a plan that is about to be made.
    pub fn open(&self) -> OpenPlan {
        let mut made = self.0.lock();
        made.last += 1;
        let name = format!("plan-{}", made.last);
        made.open.insert(name.clone());
        OpenPlan { name, plans: self.clone() }
    }

    /// Whether the plan of this name is being made.
    pub fn is_open(&self, name: &str) -> bool {
        self.0.lock().open.contains(name)
    }
}

impl OpenPlan {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for OpenPlan {
    fn drop(&mut self) {
        self.plans.0.lock().open.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_plans_can_be_made_at_once_each_under_a_name_of_its_own() {
        let plans = Plans::default();
        let (one, two) = (plans.open(), plans.open());
        assert_ne!(one.name(), two.name());
        assert!(plans.is_open(one.name()) && plans.is_open(two.name()));
        let left = one.name().to_owned();
        drop(one);
        assert!(!plans.is_open(&left) && plans.is_open(two.name()));
    }
}
