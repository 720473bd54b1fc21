//! What was measured: a table for people, and the same as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a figure should be. Missing it fails nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aim {
    /// It is there to be known.
    None,
    AtMost(f64),
    AtLeast(f64),
}

/// One figure.
#[derive(Debug)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    aim: Aim,
}

impl Figure {
    fn is_met(&self) -> Option<bool> {
        match self.aim {
            Aim::None => None,
            Aim::AtMost(most) => Some(self.value <= most),
            Aim::AtLeast(least) => Some(self.value >= least),
        }
    }
}

/// The figures, in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
    notes: Vec<String>,
}

impl Report {
    /// Adds a figure, and tells it at once.
    pub fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, aim: Aim) {
        let what = what.into();
        eprintln!("  {what}: {} {unit}", number(value));
        self.figures.push(Figure { what, value, unit, aim });
    }

    /// Adds what must be known to read the figures, or why one is missing.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        eprintln!("  {note}");
        self.notes.push(note);
    }

    /// The table, aligned. A figure that misses its aim is marked by `!`.
    pub fn table(&self) -> String {
        let rows: Vec<[String; 4]> = self.figures.iter().map(row).collect();
        let width = |column: usize| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let [what, value, unit] = [0, 1, 2].map(width);
        let mut text = String::new();
        for [a, b, c, d] in &rows {
            let line = format!("{a:<what$}  {b:>value$} {c:<unit$}  {d}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let figures = self.figures.iter().map(|figure| {
            let aim = match figure.aim {
                Aim::None => Value::Null,
                Aim::AtMost(most) => json!({ "at_most": most }),
                Aim::AtLeast(least) => json!({ "at_least": least }),
            };
            json!({
                "figure": figure.what, "value": figure.value, "unit": figure.unit,
                "aim": aim, "met": figure.is_met(),
            })
        });
        json!({ "figures": figures.collect::<Vec<_>>(), "notes": self.notes })
    }
}

fn row(figure: &Figure) -> [String; 4] {
    let aim = match figure.aim {
        Aim::None => String::new(),
        Aim::AtMost(most) => format!("≤ {most}"),
        Aim::AtLeast(least) => format!("≥ {least}"),
    };
    let mark = if figure.is_met() == Some(false) { " !" } else { "" };
    [figure.what.clone(), number(figure.value), figure.unit.to_owned(), format!("{aim}{mark}")]
}

/// With as many decimals as mean something.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The value that half of the others are below.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50)
}

/// The smallest value that so many of a hundred are not above.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * percent).div_ceil(100).max(1);
    *sorted.get(place - 1).expect("at least one value was measured")
}
