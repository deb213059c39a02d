//! A chart: title, legend, two axes, series; laid out here, drawn by a [`Canvas`].

use super::axis::{Axis, Unit};
use super::canvas::{Anchor, Canvas, Paint, Stroke, TextStyle};
use super::series::{Mark, Series};

/// Width of a chart, points.
pub const WIDTH: f64 = 480.0;
/// Height of a chart, points.
pub const HEIGHT: f64 = 280.0;

const TICK_SIZE: f64 = 12.0;
const LEGEND_ROW: f64 = 17.0;
/// Mean advance of a character, as a share of the font size.
const CHARACTER: f64 = 0.55;

/// A line chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows, in a few words.
    pub title: String,
    /// What to read from it, in a sentence, for readers who cannot see it.
    pub description: String,
    /// Name and unit of the horizontal axis.
    pub x: (&'static str, Unit),
    /// Unit of the vertical axis.
    pub y: Unit,
    /// Vertical axis in powers of ten.
    pub log_y: bool,
    /// Values that the vertical axis must include, as 0.
    pub include_y: Vec<f64>,
    /// The data.
    pub series: Vec<Series>,
    /// Named horizontal lines.
    pub rules: Vec<Rule>,
}

/// A horizontal line at a value that matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Its height.
    pub y: f64,
}

/// Where the data of a drawn chart is: the plot's edges in points and its axes.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Left edge.
    pub left: f64,
    /// Right edge.
    pub right: f64,
    /// Upper edge.
    pub top: f64,
    /// Lower edge.
    pub bottom: f64,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
}

impl Frame {
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let right = self.left + self.x.position(x) * (self.right - self.left);
        (right, self.bottom - self.y.position(y) * (self.bottom - self.top))
    }
}

impl Chart {
    /// Where everything goes; None if there is nothing to show.
    pub fn frame(&self) -> Option<Frame> {
        let points = || {
            self.series
                .iter()
                .flat_map(|series| &series.points)
                .filter(|p| p.0.is_finite() && p.1.is_finite())
        };
        // Times, steps and bytes all begin at 0.
        let x = Axis::over(points().map(|point| point.0).chain([0.0]), self.x.1, false, false)?;
        points().next()?;
        let extra = self.include_y.iter().copied().chain(self.rules.iter().map(|rule| rule.y));
        let data = points().map(|point| point.1);
        // A logarithmic axis of data without a value above 0 falls back to a linear one.
        let log = self.log_y && points().any(|point| point.1 > 0.0);
        let y = Axis::over(data.chain(extra), self.y, log, true)?;
        let widest = y.ticks().iter().map(|(_, label)| label.chars().count()).max().unwrap_or(1);
        let left = 14.0 + widest as f64 * CHARACTER * TICK_SIZE;
        let top = 32.0 + self.legend_rows().len() as f64 * LEGEND_ROW + 6.0;
        Some(Frame { left, right: WIDTH - 14.0, top, bottom: HEIGHT - 42.0, x, y })
    }

    /// Draws it on `canvas`.
    pub fn draw(&self, canvas: &mut dyn Canvas) {
        let style = TextStyle { size: 15.0, anchor: Anchor::Start, paint: Paint::Text, bold: true };
        canvas.text((8.0, 20.0), &self.title, style);
        let Some(frame) = self.frame() else {
            let style = TextStyle { size: 13.0, anchor: Anchor::Middle, paint: Paint::Muted, bold: false };
            canvas.text((WIDTH / 2.0, HEIGHT / 2.0), "nothing was recorded", style);
            return;
        };
        self.draw_legend(canvas);
        self.draw_axes(canvas, &frame);
        for rule in self.rules.iter().filter(|rule| frame.y.position(rule.y).is_finite()) {
            let height = frame.place((0.0, rule.y)).1;
            let stroke = Stroke { paint: Paint::Muted, width: 1.2, dashed: true };
            canvas.line(&[(frame.left, height), (frame.right, height)], stroke, None);
        }
        self.series.iter().for_each(|series| draw_series(canvas, &frame, series));
    }

    fn draw_axes(&self, canvas: &mut dyn Canvas, frame: &Frame) {
        let Frame { left, right, top, bottom, .. } = *frame;
        let thin = |paint| Stroke { paint, width: 1.0, dashed: false };
        let style = TextStyle { size: TICK_SIZE, anchor: Anchor::End, paint: Paint::Muted, bold: false };
        for (value, label) in frame.y.ticks() {
            let height = bottom - frame.y.position(value) * (bottom - top);
            canvas.line(&[(left, height), (right, height)], thin(Paint::Grid), None);
            canvas.text((left - 6.0, height + 4.0), &label, style);
        }
        canvas.line(&[(left, bottom), (right, bottom)], thin(Paint::Axis), None);
        let style = TextStyle { anchor: Anchor::Middle, ..style };
        let mut free_from = f64::NEG_INFINITY;
        for (value, label) in frame.x.ticks() {
            let at = left + frame.x.position(value) * (right - left);
            let half = label.chars().count() as f64 * CHARACTER * TICK_SIZE / 2.0;
            let center = at.min(WIDTH - 3.0 - half);
            canvas.line(&[(at, bottom), (at, bottom + 4.0)], thin(Paint::Axis), None);
            if center - half >= free_from {
                canvas.text((center, bottom + 17.0), &label, style);
                free_from = center + half + 5.0;
            }
        }
        let unit = frame.x.unit_name();
        let name = if unit.is_empty() { self.x.0.to_string() } else { format!("{} ({unit})", self.x.0) };
        canvas.text(((left + right) / 2.0, HEIGHT - 8.0), &name, style);
    }

    fn draw_legend(&self, canvas: &mut dyn Canvas) {
        let style = TextStyle { size: TICK_SIZE, anchor: Anchor::Start, paint: Paint::Muted, bold: false };
        for (row, entries) in self.legend_rows().into_iter().enumerate() {
            let height = 38.0 + row as f64 * LEGEND_ROW;
            let mut at = 8.0;
            for (name, stroke, dots) in entries {
                match dots {
                    true => canvas.dot((at + 8.0, height - 4.0), 3.0, stroke.paint),
                    false => canvas.line(&[(at, height - 4.0), (at + 16.0, height - 4.0)], stroke, None),
                }
                canvas.text((at + 21.0, height), name, style);
                at += entry_width(name);
            }
        }
    }

    /// Legend entries in rows that fit the width; none if a single series speaks for itself.
    fn legend_rows(&self) -> Vec<Vec<(&str, Stroke, bool)>> {
        let series = self.series.iter().filter(|series| !series.name.is_empty());
        let entries = series.map(|series| (series.name.as_str(), stroke(series), series.mark == Mark::Dots));
        let rule = Stroke { paint: Paint::Muted, width: 1.2, dashed: true };
        let rules = self.rules.iter().map(|rule_line| (rule_line.name.as_str(), rule, false));
        let all: Vec<_> = entries.chain(rules).collect();
        let mut rows: Vec<Vec<(&str, Stroke, bool)>> = Vec::new();
        let mut width = f64::INFINITY;
        for entry in if all.len() > 1 { all } else { Vec::new() } {
            let needed = entry_width(entry.0);
            if width + needed > WIDTH - 8.0 {
                rows.push(Vec::new());
                width = 8.0;
            }
            width += needed;
            rows.last_mut().expect("pushed above").push(entry);
        }
        // More rows than this would leave no room for the data.
        rows.truncate(4);
        rows
    }
}

fn entry_width(name: &str) -> f64 {
    35.0 + name.chars().count() as f64 * CHARACTER * TICK_SIZE
}

fn stroke(series: &Series) -> Stroke {
    match series.mark {
        Mark::Faint => Stroke { paint: Paint::Faint(series.color), width: 1.0, dashed: false },
        Mark::Dashed => Stroke { paint: Paint::Series(series.color), width: 1.6, dashed: true },
        Mark::Line | Mark::DotLine | Mark::Dots => {
            Stroke { paint: Paint::Series(series.color), width: 1.8, dashed: false }
        }
    }
}

fn draw_series(canvas: &mut dyn Canvas, frame: &Frame, series: &Series) {
    let points: Vec<(f64, f64)> = series.thinned().into_iter().map(|point| frame.place(point)).collect();
    let shown = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
    let stroke = stroke(series);
    if series.mark == Mark::Dots {
        points.iter().filter(|point| shown(point)).for_each(|&point| canvas.dot(point, 2.2, stroke.paint));
        return;
    }
    let dots = series.mark == Mark::DotLine && points.len() <= 60;
    for segment in points.split(|point| !shown(point)).filter(|segment| !segment.is_empty()) {
        canvas.line(segment, stroke, Some(&series.name));
        if dots {
            segment.iter().for_each(|&point| canvas.dot(point, 2.6, stroke.paint));
        }
    }
}
