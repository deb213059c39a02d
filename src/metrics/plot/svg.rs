//! A chart -> inline SVG whose colours come from the page (classes) and whose numbers a script can read (`data-`).

use super::axis::{Axis, Unit};
use super::canvas::{Anchor, Canvas, PALETTE, Paint, Stroke, TextStyle};
use super::chart::{Chart, HEIGHT, WIDTH};
use std::fmt::Write;

/// Collects SVG elements.
#[derive(Clone, Debug, Default)]
pub struct Svg {
    body: String,
}

impl Svg {
    /// The `<svg>` element of `chart`; `id` must be unique on the page.
    ///
    /// It carries a title and a description for screen readers, and the range of both axes as `data-x` and `data-y`
    /// (`low,high,from,to,scale,unit`), with which the page's script turns positions back into values.
    pub fn chart(chart: &Chart, id: &str) -> String {
        let mut svg = Self::default();
        chart.draw(&mut svg);
        let data = chart.frame().map_or_else(String::new, |frame| {
            let x = axis_data(&frame.x, frame.left, frame.right);
            let y = axis_data(&frame.y, frame.bottom, frame.top);
            format!(" data-x=\"{x}\" data-y=\"{y}\" data-xname=\"{}\"", escape(chart.x.0))
        });
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\"{data}>\n<title id=\"{id}-t\">{}</title>\
             <desc id=\"{id}-d\">{}</desc>\n{}</svg>\n",
            escape(&chart.title),
            escape(&chart.description),
            svg.body
        )
    }
}

impl Canvas for Svg {
    fn line(&mut self, points: &[(f64, f64)], stroke: Stroke, label: Option<&str>) {
        if let ([point], Some(_)) = (points, label) {
            self.dot(*point, 2.6, stroke.paint);
        }
        let mut list = String::with_capacity(12 * points.len());
        for (x, y) in points {
            let _ = write!(list, "{x:.1},{y:.1} ");
        }
        let dash = if stroke.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let name = label.map_or_else(String::new, |label| format!(" data-name=\"{}\"", escape(label)));
        let (class, width, list) = (class(stroke.paint), stroke.width, list.trim_end());
        let _ = writeln!(
            self.body,
            "<polyline class=\"{class}\" stroke-width=\"{width}\"{dash}{name} points=\"{list}\"/>"
        );
    }

    fn dot(&mut self, (x, y): (f64, f64), radius: f64, paint: Paint) {
        let _ = writeln!(
            self.body,
            "<circle class=\"{} dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>",
            class(paint)
        );
    }

    fn text(&mut self, (x, y): (f64, f64), text: &str, style: TextStyle) {
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if style.bold { " font-weight=\"600\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<text class=\"{}\" x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{}\" text-anchor=\"{anchor}\"{weight}>{}</text>",
            class(style.paint),
            style.size,
            escape(text)
        );
    }
}

fn axis_data(axis: &Axis, from: f64, to: f64) -> String {
    let (low, high) = axis.range();
    let scale = if axis.is_log() { "log" } else { "linear" };
    let unit = match axis.unit() {
        Unit::Plain => "plain",
        Unit::Count => "count",
        Unit::Percent => "percent",
        Unit::Bytes => "bytes",
        Unit::Seconds => "seconds",
    };
    format!("{low:e},{high:e},{from:.1},{to:.1},{scale},{unit}")
}

fn class(paint: Paint) -> String {
    match paint {
        Paint::Series(number) => format!("c{}", number % PALETTE),
        Paint::Faint(number) => format!("c{} faint", number % PALETTE),
        Paint::Text => "ink".into(),
        Paint::Muted => "muted".into(),
        Paint::Grid => "grid".into(),
        Paint::Axis => "axis".into(),
    }
}

/// `text` with the characters that mean something to HTML replaced, and control characters dropped.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && c != '\n' => {}
            c => safe.push(c),
        }
    }
    safe
}
