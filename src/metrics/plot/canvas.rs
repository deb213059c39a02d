//! What a chart needs of a drawing surface. Lengths are in points, y grows downwards.

/// A surface that charts are drawn on.
pub trait Canvas {
    /// A line through `points`; a single point is a dot. `label` names what it shows, for a pointer over it.
    fn line(&mut self, points: &[(f64, f64)], stroke: Stroke, label: Option<&str>);

    /// A dot of the given radius.
    fn dot(&mut self, center: (f64, f64), radius: f64, paint: Paint);

    /// A line of text; `at` is its anchor on the baseline.
    fn text(&mut self, at: (f64, f64), text: &str, style: TextStyle);
}

/// A colour by role, so that light and dark pages can choose their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// A data series; numbers beyond the palette repeat.
    Series(usize),
    /// The same, pale: raw values behind a smoothed line.
    Faint(usize),
    /// Titles.
    Text,
    /// Tick labels and axis names.
    Muted,
    /// Grid lines.
    Grid,
    /// The frame of the plot.
    Axis,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stroke {
    /// Colour.
    pub paint: Paint,
    /// Points.
    pub width: f64,
    /// Dashed instead of solid.
    pub dashed: bool,
}

/// Which part of a text stands at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

/// How text is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextStyle {
    /// Height of the font, points.
    pub size: f64,
    /// Alignment.
    pub anchor: Anchor,
    /// Colour.
    pub paint: Paint,
    /// Heavier strokes.
    pub bold: bool,
}

/// Number of series colours.
pub(super) const PALETTE: usize = 10;
