//! Rows, medians, the table and the JSON.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The measurements' unit.
    pub unit: &'static str,
    /// Ours, in the order of measuring.
    pub ours: Vec<f64>,
    /// The same done by hand; empty where the figure stands for itself.
    pub by_hand: Vec<f64>,
    /// Median of ours ÷ median of by hand; or the figure itself.
    pub value: f64,
    /// The value to reach: no more than this.
    pub limit: f64,
}

impl Row {
    /// Pairs of measurements: the value is the proportion of the medians.
    pub fn ratio(name: &str, unit: &'static str, pairs: &[(f64, f64)], limit: f64) -> Self {
        let (ours, by_hand): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let value = median(&ours) / median(&by_hand);
        Self { name: name.to_owned(), unit, ours, by_hand, value, limit }
    }

    /// A figure that stands for itself: the largest that was seen.
    pub fn most(name: &str, unit: &'static str, seen: Vec<f64>, limit: f64) -> Self {
        let value = seen.iter().copied().fold(f64::NAN, f64::max);
        Self { name: name.to_owned(), unit, ours: seen, by_hand: Vec::new(), value, limit }
    }

    /// Whether the value is what it has to be. A value that is no number is not.
    pub fn reached(&self) -> bool {
        self.value <= self.limit
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The table, in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("| what | ours | by hand | value | to reach | |\n|---|---|---|---|---|---|\n");
    for row in rows {
        let side = |values: &[f64]| match values {
            [] => String::new(),
            values => format!("{:.1} {}", median(values), row.unit),
        };
        let value = if row.by_hand.is_empty() {
            format!("{:.1} {}", row.value, row.unit)
        } else {
            format!("{:.3}", row.value)
        };
        let verdict = if row.reached() { "reached" } else { "**missed**" };
        let (ours, by_hand) = (side(&row.ours), side(&row.by_hand));
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "| {} | {ours} | {by_hand} | {value} | ≤ {} | {verdict} |", row.name, row.limit);
    }
    text
}

/// Everything that was measured.
pub fn json(rows: &[Row], pairs: u32) -> Result<String> {
    Ok(serde_json::to_string_pretty(&serde_json::json!({"pairs": pairs, "rows": rows}))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_the_medians() {
        let row = Row::ratio("upgrade", "ms", &[(10.0, 10.0), (30.0, 20.0), (1000.0, 20.0)], 1.05);
        assert!((row.value - 1.5).abs() < 1e-9);
        assert!(!row.reached());
        assert!(table(&[row]).contains("**missed**"));
    }

    #[test]
    fn a_figure_is_the_largest_that_was_seen_and_none_is_not_reached() {
        assert!((Row::most("writes", "", vec![7.0, 9.0, 8.0], 10.0).value - 9.0).abs() < 1e-9);
        assert!(!Row::most("writes", "", Vec::new(), 10.0).reached());
    }

    #[test]
    fn an_even_number_of_values_has_its_median_between() {
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }
}
