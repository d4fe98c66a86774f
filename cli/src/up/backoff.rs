//! How long to wait before a program that ended is started again: for ever, once it has been ready.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// A program that ran this long counts as having worked.
const WORKED: Duration = Duration::from_mins(1);
/// Tries of a program that has never been ready: its settings are wrong, more of the same won't help.
const FIRST_TRIES: u32 = 3;
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Debug)]
pub struct Backoff {
    schedule: ExponentialBuilder,
    pauses: ExponentialBackoff,
    failures: u32,
    was_ready: bool,
}

impl Backoff {
    /// Begins with `shortest` and doubles.
    pub fn new(shortest: Duration) -> Self {
        let schedule = ExponentialBuilder::new()
            .with_min_delay(shortest)
            .with_max_delay(LONGEST)
            .with_factor(2.0)
            .without_max_times();
        Self { schedule, pauses: schedule.build(), failures: 0, was_ready: false }
    }

    /// The program ended after `ran`, having been ready or not. `None`: it is not worth another try.
    pub fn after(&mut self, ran: Duration, ready: bool) -> Option<Duration> {
        self.was_ready |= ready;
        if ready && ran >= WORKED {
            (self.pauses, self.failures) = (self.schedule.build(), 0);
        }
        self.failures += 1;
        self.pauses.next().filter(|_| self.was_ready || self.failures < FIRST_TRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_program_that_was_never_ready_gets_three_tries() {
        let mut backoff = Backoff::new(SECOND);
        assert_eq!(backoff.after(SECOND, false), Some(SECOND));
        assert_eq!(backoff.after(SECOND, false), Some(2 * SECOND));
        assert_eq!(backoff.after(SECOND, false), None);
    }

    #[test]
    fn pauses_double_up_to_half_a_minute_and_never_end() {
        let mut backoff = Backoff::new(SECOND);
        let pauses: Vec<_> =
            (0..1_000).map_while(|_| backoff.after(SECOND, true)).map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!((pauses.len(), pauses[999]), (1_000, 30));
    }

    #[test]
    fn having_worked_for_a_minute_wipes_the_slate() {
        let mut backoff = Backoff::new(SECOND);
        for _ in 0..5 {
            backoff.after(SECOND, true);
        }
        assert_eq!(backoff.after(WORKED, true), Some(SECOND));
    }
}
