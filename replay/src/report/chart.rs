//! Charts as shapes: what goes where, in hundredths of the plot's width and height.
//!
//! ```text
//!      0                    100
//!    0 ┌──────────────────────┐   ticks of y at the left and of x below are HTML text, so they keep
//!      │            ▄         │   their size on every screen; shapes are SVG, stretched to fit
//!      │   ▄    ▄   █    ▄    │
//!  100 └──────────────────────┘
//! ```
//!
//! The template draws them (`templates/chart.html`). A charting library was turned down: those
//! that draw SVG fix colours and sizes in it, so that one page cannot serve light, dark, paper and
//! a telephone; those that draw in the browser show nothing without script, nothing to a screen
//! reader, and weigh more than the rest of the report. What remains to do here is two scales.

use super::format;

/// A chart with its values as a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chart {
    /// Unique on the page.
    pub id: &'static str,
    pub title: String,
    /// What to see in it, in a sentence.
    pub caption: String,
    /// What the first column of the table holds.
    pub x_name: &'static str,
    /// What the values are.
    pub y_name: String,
    pub series: Vec<Series>,
    pub x_ticks: Vec<Tick>,
    pub y_ticks: Vec<Tick>,
    pub bars: Vec<Bar>,
    pub lines: Vec<Line>,
    /// One for each position on x.
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub name: String,
    /// The class that gives it its colour.
    pub class: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    pub at: f64,
    pub label: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
    pub class: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub points: String,
    pub class: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Left and width of the slot, for the pointer.
    pub x: f64,
    pub width: f64,
    pub label: String,
    pub values: Vec<String>,
}

/// Values over positions: what a chart is made of.
pub(crate) struct Values {
    pub id: &'static str,
    pub title: String,
    pub caption: String,
    pub x_name: &'static str,
    pub y_name: String,
    pub series: Vec<Series>,
    /// For each position its label and one value for each series.
    pub rows: Vec<(String, Vec<u64>)>,
    /// Which positions are labelled below the plot, and how.
    pub x_ticks: Vec<(usize, String)>,
}

impl Values {
    /// Bars, the series of a position upon each other.
    pub fn stacked(self) -> Chart {
        let top = self.rows.iter().map(|(_, values)| values.iter().sum()).max();
        let (y_ticks, top) = scale(top.unwrap_or(0));
        let width = 100.0 / self.rows.len().max(1) as f64;
        let mut bars = Vec::new();
        for (position, (_, values)) in self.rows.iter().enumerate() {
            let mut below = 0;
            for (value, series) in values.iter().zip(&self.series).filter(|(value, _)| **value > 0)
            {
                let height = *value as f64 / top * 100.0;
                below += value;
                bars.push(Bar {
                    x: (position as f64 + 0.12) * width,
                    y: 100.0 - below as f64 / top * 100.0,
                    width: width * 0.76,
                    height,
                    class: series.class,
                });
            }
        }
        self.chart(y_ticks, bars, Vec::new())
    }

    /// A line for each series.
    pub fn lines(self) -> Chart {
        let top = self.rows.iter().flat_map(|(_, values)| values).max();
        let (y_ticks, top) = scale(top.copied().unwrap_or(0));
        let width = 100.0 / self.rows.len().max(1) as f64;
        let line = |(index, series): (usize, &Series)| {
            let mut points = String::new();
            for (position, (_, values)) in self.rows.iter().enumerate() {
                let (left, right) = (position as f64 * width, (position + 1) as f64 * width);
                let y = 100.0 - values[index] as f64 / top * 100.0;
                points.push_str(&format!("{left:.3},{y:.3} {right:.3},{y:.3} "));
            }
            Line { points: points.trim_end().to_owned(), class: series.class }
        };
        let lines = self.series.iter().enumerate().map(line).collect();
        self.chart(y_ticks, Vec::new(), lines)
    }

    fn chart(self, y_ticks: Vec<Tick>, bars: Vec<Bar>, lines: Vec<Line>) -> Chart {
        let width = 100.0 / self.rows.len().max(1) as f64;
        let x_ticks = self
            .x_ticks
            .into_iter()
            .map(|(position, label)| Tick { at: (position as f64 + 0.5) * width, label });
        let rows = self.rows.into_iter().enumerate().map(|(position, (label, values))| Row {
            x: position as f64 * width,
            width,
            label,
            values: values.into_iter().map(format::grouped).collect(),
        });
        Chart {
            id: self.id,
            title: self.title,
            caption: self.caption,
            x_name: self.x_name,
            y_name: self.y_name,
            series: self.series,
            x_ticks: x_ticks.collect(),
            y_ticks,
            bars,
            lines,
            rows: rows.collect(),
        }
    }
}

/// Round numbers from zero to at least `most`, and where the plot ends.
fn scale(most: u64) -> (Vec<Tick>, f64) {
    let step = nice_step(most);
    let steps = most.div_ceil(step).max(1);
    let top = steps as f64 * step as f64;
    let tick = |count: u64| {
        let value = count as f64 * step as f64;
        Tick { at: 100.0 - value / top * 100.0, label: format::short(value) }
    };
    ((0..=steps).map(tick).collect(), top)
}

/// 1, 2 or 5 times a power of ten, so that at most five of them reach `most`.
fn nice_step(most: u64) -> u64 {
    let mut power: u64 = 1;
    loop {
        for factor in [1, 2, 5] {
            let Some(step) = power.checked_mul(factor) else { return most };
            if most.div_ceil(step) <= 5 {
                return step;
            }
        }
        let Some(next) = power.checked_mul(10) else { return most };
        power = next;
    }
}

/// Labels for slots of time: round times of the calendar, at most eight of them.
pub(crate) fn time_ticks(starts: &[u64]) -> Vec<(usize, String)> {
    const STEPS: [u64; 13] = [
        1,
        10,
        60,
        600,
        3_600,
        3 * 3_600,
        6 * 3_600,
        12 * 3_600,
        86_400,
        2 * 86_400,
        7 * 86_400,
        30 * 86_400,
        360 * 86_400,
    ];
    const LABELS_MAX: usize = 8;
    let marks = |step: u64| -> Vec<usize> {
        let is_first =
            |index: usize| index == 0 || starts[index - 1] / step != starts[index] / step;
        let is_near = |index: usize| starts[index].is_multiple_of(step) || index > 0;
        (0..starts.len()).filter(|index| is_first(*index) && is_near(*index)).collect()
    };
    let fitting = STEPS.into_iter().map(|step| (step, marks(step)));
    let chosen = fitting.into_iter().find(|(_, marks)| marks.len() <= LABELS_MAX);
    let Some((step, marks)) = chosen else { return Vec::new() };
    let form = match step {
        ..60 => "%H:%M:%S",
        60..86_400 => "%b %-d, %H:%M",
        _ => "%b %-d",
    };
    marks.into_iter().map(|index| (index, format::strftime(starts[index], form))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers_above_the_largest_value() {
        let cases = [
            (0, "0 1"),
            (1, "0 1"),
            (3, "0 1 2 3"),
            (7, "0 2 4 6 8"),
            (23, "0 5 10 15 20 25"),
            (431, "0 100 200 300 400 500"),
            (2_600_000, "0 1 M 2 M 3 M"),
        ];
        for (most, expected) in cases {
            let (ticks, top) = scale(most);
            let labels: Vec<_> =
                ticks.iter().map(|tick| tick.label.replace('\u{a0}', " ")).collect();
            assert_eq!(labels.join(" "), expected, "{most}");
            assert!(top >= most as f64);
            assert_eq!((ticks[0].at, ticks[ticks.len() - 1].at), (100.0, 0.0));
        }
        scale(u64::MAX);
    }

    #[test]
    fn a_week_is_labelled_by_its_days() {
        let starts: Vec<u64> =
            (0..84).map(|slot| 1_790_000_000 / 7_200 * 7_200 + slot * 7_200).collect();
        let labels: Vec<String> = time_ticks(&starts).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels[..2], ["Sep 22", "Sep 23"]);
        assert_eq!(labels.len(), 7);
        assert_eq!(time_ticks(&[]), vec![]);
    }

    fn values(rows: &[[u64; 2]]) -> Values {
        let series = [("a", "s1"), ("b", "s2")];
        Values {
            id: "orders",
            title: "Orders".to_owned(),
            caption: String::new(),
            x_name: "time",
            y_name: "orders".to_owned(),
            series: series.map(|(name, class)| Series { name: name.to_owned(), class }).to_vec(),
            rows: rows.iter().map(|row| ("x".to_owned(), row.to_vec())).collect(),
            x_ticks: vec![(1, "one".to_owned())],
        }
    }

    #[test]
    fn bars_stand_upon_each_other() {
        let chart = values(&[[3, 1], [0, 2]]).stacked();
        let shapes: Vec<_> =
            chart.bars.iter().map(|bar| (bar.x.round(), bar.y, bar.height, bar.class)).collect();
        let expected = [(6.0, 25.0, 75.0, "s1"), (6.0, 0.0, 25.0, "s2"), (56.0, 50.0, 50.0, "s2")];
        assert_eq!(shapes, expected);
        assert_eq!(chart.x_ticks, [Tick { at: 75.0, label: "one".to_owned() }]);
        assert_eq!(chart.rows[1].values, ["0", "2"]);
    }

    #[test]
    fn lines_go_level_through_each_slot() {
        let chart = values(&[[4, 0], [2, 0]]).lines();
        assert_eq!(chart.lines[0].points, "0.000,0.000 50.000,0.000 50.000,50.000 100.000,50.000");
    }
}
