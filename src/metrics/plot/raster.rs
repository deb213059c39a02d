//! Charts -> PNG: anti-aliased lines, dots and stroke text on a white page.

use super::canvas::{Anchor, Canvas, PALETTE, Paint, Stroke, TextStyle};
use super::chart::{Chart, HEIGHT, WIDTH};
use super::font::{CAPITAL, GAP, glyph};
use crate::metrics::MetricsError;
use std::path::Path;

/// A picture in RGB.
pub struct Raster {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    /// Pixels per point.
    scale: f64,
    /// Where the canvas's (0, 0) is, points.
    origin: (f64, f64),
}

impl Raster {
    /// A white picture of `width` by `height` points, with `scale` pixels per point.
    pub fn new(width: f64, height: f64, scale: f64) -> Self {
        let pixels = |points: f64| (points * scale).ceil().clamp(1.0, 16_384.0) as usize;
        let (width, height) = (pixels(width), pixels(height));
        Self { width, height, pixels: vec![255; 3 * width * height], scale, origin: (0.0, 0.0) }
    }

    /// All `charts` in rows of `columns` under a headline, as one picture.
    pub fn sheet(headline: &str, charts: &[Chart], columns: usize) -> Self {
        let (columns, top, gap) = (columns.max(1), 40.0, 16.0);
        let rows = charts.len().div_ceil(columns);
        let (cell_width, cell_height) = (WIDTH + gap, HEIGHT + gap);
        let mut sheet =
            Self::new(columns as f64 * cell_width + gap, top + rows as f64 * cell_height + gap / 2.0, 2.0);
        let style = TextStyle { size: 17.0, anchor: Anchor::Start, paint: Paint::Text, bold: true };
        sheet.text((gap + 8.0, 28.0), headline, style);
        for (i, chart) in charts.iter().enumerate() {
            sheet.origin =
                (gap + (i % columns) as f64 * cell_width, top + (i / columns) as f64 * cell_height);
            chart.draw(&mut sheet);
        }
        sheet.origin = (0.0, 0.0);
        sheet
    }

    /// Width and height, pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The picture as a PNG file's bytes; `path` is named in errors.
    pub fn png(&self, path: &Path) -> Result<Vec<u8>, MetricsError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&self.pixels));
        match written {
            Ok(()) => Ok(bytes),
            Err(source) => Err(MetricsError::Png { path: path.to_path_buf(), source }),
        }
    }

    /// A straight line with round ends, in pixels; each pixel is covered by its distance from the line.
    fn capsule(&mut self, a: (f64, f64), b: (f64, f64), radius: f64, color: [u8; 3]) {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let length_squared = dx * dx + dy * dy;
        let span = |low: f64, high: f64, limit: usize| {
            let first = (low - radius - 1.0).max(0.0) as usize;
            first..((high + radius + 2.0).max(0.0) as usize).min(limit)
        };
        for y in span(a.1.min(b.1), a.1.max(b.1), self.height) {
            for x in span(a.0.min(b.0), a.0.max(b.0), self.width) {
                let (px, py) = (x as f64 + 0.5 - a.0, y as f64 + 0.5 - a.1);
                let along = if length_squared > 0.0 {
                    ((px * dx + py * dy) / length_squared).clamp(0.0, 1.0)
                } else {
                    0.0
                };
                let distance = (px - along * dx).hypot(py - along * dy);
                let cover = (radius + 0.5 - distance).clamp(0.0, 1.0);
                if cover > 0.0 {
                    let pixel = &mut self.pixels[3 * (y * self.width + x)..][..3];
                    for (value, ink) in pixel.iter_mut().zip(color) {
                        *value = (f64::from(*value) * (1.0 - cover) + f64::from(ink) * cover).round() as u8;
                    }
                }
            }
        }
    }

    fn pixel(&self, (x, y): (f64, f64)) -> (f64, f64) {
        ((x + self.origin.0) * self.scale, (y + self.origin.1) * self.scale)
    }
}

impl Canvas for Raster {
    fn line(&mut self, points: &[(f64, f64)], stroke: Stroke, label: Option<&str>) {
        let radius = stroke.width * self.scale / 2.0;
        let color = color(stroke.paint);
        if let ([point], Some(_)) = (points, label) {
            self.dot(*point, 2.6, stroke.paint);
        }
        let mut travelled = 0.0;
        for pair in points.windows(2) {
            let (a, b) = (self.pixel(pair[0]), self.pixel(pair[1]));
            if !stroke.dashed {
                self.capsule(a, b, radius, color);
                continue;
            }
            // Dashes of 5 points with gaps of 4 run on over corners.
            let (dash, period) = (5.0 * self.scale, 9.0 * self.scale);
            let length = (b.0 - a.0).hypot(b.1 - a.1);
            let at = |s: f64| (a.0 + (b.0 - a.0) * s / length, a.1 + (b.1 - a.1) * s / length);
            let mut start = -(travelled % period);
            while start < length {
                if start + dash > 0.0 && length > 0.0 {
                    self.capsule(at(start.max(0.0)), at((start + dash).min(length)), radius, color);
                }
                start += period;
            }
            travelled += length;
        }
    }

    fn dot(&mut self, center: (f64, f64), radius: f64, paint: Paint) {
        let center = self.pixel(center);
        self.capsule(center, center, radius * self.scale, color(paint));
    }

    fn text(&mut self, (x, y): (f64, f64), text: &str, style: TextStyle) {
        // Capitals are 0.7 of the font size high, as in most fonts.
        let unit = style.size * 0.7 / CAPITAL;
        let glyphs: Vec<_> = text.chars().map(glyph).collect();
        let width: f64 = glyphs.iter().map(|(_, width)| (width + GAP) * unit).sum::<f64>() - GAP * unit;
        let mut left = match style.anchor {
            Anchor::Start => x,
            Anchor::Middle => x - width / 2.0,
            Anchor::End => x - width,
        };
        let radius = style.size * if style.bold { 0.062 } else { 0.045 } * self.scale;
        for (strokes, width) in glyphs {
            for stroke in strokes {
                let place = |p: &(f64, f64)| (left + p.0 * unit, y + (p.1 - CAPITAL) * unit);
                let points: Vec<(f64, f64)> = stroke.iter().map(|p| self.pixel(place(p))).collect();
                for pair in points.windows(2) {
                    self.capsule(pair[0], pair[1], radius, color(style.paint));
                }
            }
            left += (width + GAP) * unit;
        }
    }
}

fn color(paint: Paint) -> [u8; 3] {
    const SERIES: [[u8; 3]; PALETTE] = [
        [0x1d, 0x5f, 0xd6],
        [0xd4, 0x6a, 0x00],
        [0x0f, 0x80, 0x4a],
        [0x8a, 0x3f, 0xd1],
        [0xcf, 0x2f, 0x3a],
        [0x08, 0x7c, 0x94],
        [0xc4, 0x31, 0x88],
        [0x8a, 0x5a, 0x12],
        [0x5b, 0x67, 0x7a],
        [0x5f, 0x7d, 0x0a],
    ];
    match paint {
        Paint::Series(number) => SERIES[number % PALETTE],
        Paint::Faint(number) => SERIES[number % PALETTE].map(|value| 255 - (255 - value) / 3),
        Paint::Text => [0x1a, 0x1d, 0x23],
        Paint::Muted => [0x5a, 0x62, 0x6e],
        Paint::Grid => [0xe6, 0xe8, 0xec],
        Paint::Axis => [0x8a, 0x92, 0x9e],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_text_leave_ink_where_they_should() {
        let mut raster = Raster::new(100.0, 40.0, 1.0);
        let stroke = Stroke { paint: Paint::Text, width: 2.0, dashed: false };
        raster.line(&[(10.0, 20.0), (90.0, 20.0)], stroke, None);
        let ink = |raster: &Raster, x: usize, y: usize| 255 - raster.pixels[3 * (y * raster.width + x)];
        assert!(ink(&raster, 50, 19) > 200 && ink(&raster, 50, 20) > 200);
        assert!(ink(&raster, 50, 23) == 0 && ink(&raster, 95, 20) == 0);
        let before = raster.pixels.clone();
        raster.text(
            (50.0, 35.0),
            "Ag8",
            TextStyle { size: 12.0, anchor: Anchor::Middle, paint: Paint::Text, bold: false },
        );
        assert_ne!(before, raster.pixels);
        // Far outside, and not finite: nothing to draw, nothing to panic about.
        raster.line(&[(-1e9, 1e9), (1e9, -1e9)], Stroke { dashed: false, ..stroke }, None);
        raster.line(&[(f64::NAN, 1.0), (2.0, f64::INFINITY)], stroke, None);
        let png = raster.png(Path::new("x.png")).unwrap();
        assert_eq!(&png[1..4], b"PNG");
    }

    #[test]
    fn dashes_have_gaps() {
        let mut raster = Raster::new(100.0, 10.0, 1.0);
        raster.line(
            &[(0.0, 5.0), (100.0, 5.0)],
            Stroke { paint: Paint::Text, width: 2.0, dashed: true },
            None,
        );
        let row: Vec<bool> = (0..100).map(|x| raster.pixels[3 * (5 * 100 + x)] < 128).collect();
        let changes = row.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!((18..=24).contains(&changes), "{changes}");
    }
}
