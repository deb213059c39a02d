//! One image of the embedded data set: a random stream and a figure -> 32x32x3 bytes.
//!
//! `pixel = background + clutter + coverage * contrast + noise`. Coverage, in `[0, 1]`, is the antialiased figure: from
//! the signed distance (in pixels, negative inside) of its outline. See [`Pattern::coverage`].

use super::SHAPE;
use crate::rng::Philox;
use rand_core::RngCore;

/// What a class shows.
#[derive(Clone, Copy)]
pub(super) enum Figure {
    Disk,
    Ring,
    Square,
    Triangle,
    Cross,
    HorizontalStripes,
    VerticalStripes,
    DiagonalStripes,
    Checker,
    Dots,
}

/// Figure and name of each class.
pub(super) const FIGURES: [(Figure, &str); 10] = [
    (Figure::Disk, "disk"),
    (Figure::Ring, "ring"),
    (Figure::Square, "square"),
    (Figure::Triangle, "triangle"),
    (Figure::Cross, "cross"),
    (Figure::HorizontalStripes, "horizontal-stripes"),
    (Figure::VerticalStripes, "vertical-stripes"),
    (Figure::DiagonalStripes, "diagonal-stripes"),
    (Figure::Checker, "checker"),
    (Figure::Dots, "dots"),
];

/// Half the smallest and largest extent of a pattern, in pixels.
const RADIUS: (f32, f32) = (8.5, 12.0);
/// Smallest and largest difference of pattern and background, in grey levels.
const CONTRAST: (f32, f32) = (60.0, 120.0);
/// Difference of colour channels beyond the common grey, in grey levels.
const TINT: f32 = 35.0;
/// Largest brightness change of the background from its middle to an edge, in grey levels.
const GRADIENT: f32 = 30.0;
/// Number of clutter blobs, their smallest and largest radius in pixels, their largest contrast in grey levels.
const BLOBS: usize = 4;
const BLOB_RADIUS: (f32, f32) = (1.5, 4.0);
const BLOB_CONTRAST: f32 = 40.0;
/// Standard deviation of the noise of each pixel and channel, in grey levels.
const NOISE: f32 = 10.0;
/// Period of stripes, checker and dots, in pixels.
const PERIOD: (f32, f32) = (5.5, 8.0);
/// Largest tangent of a texture's deviation from its named direction (12 degrees).
const TILT: f32 = 0.21;

/// Pattern of one image, in its own coordinates.
struct Pattern {
    figure: Figure,
    centre: [f32; 2],
    /// Unit vector of the pattern's first axis.
    axis: [f32; 2],
    radius: f32,
    period: f32,
    phase: [f32; 2],
    round_patch: bool,
}

/// Soft round spot of the background.
struct Blob {
    centre: [f32; 2],
    inv_radius_squared: f32,
    contrast: [f32; 3],
}

/// Draws an image of `figure` into `out`, `[H, W, C]`.
pub(super) fn image(random: &mut Philox, figure: Figure, out: &mut [u8]) {
    let pattern = Pattern::random(random, figure);
    let base = between(random, (70.0, 185.0));
    let background = colour(random, base, TINT);
    let slope = unit_vector(random).map(|d| d * GRADIENT / (SHAPE.w as f32 / 2.0));
    let sign = if coin(random) { 1.0 } else { -1.0 };
    let contrast = sign * between(random, CONTRAST);
    let contrast = colour(random, contrast, TINT);
    let blobs: [Blob; BLOBS] = std::array::from_fn(|_| Blob::random(random));
    let middle = (SHAPE.w as f32 - 1.0) / 2.0;
    for (y, row) in out.chunks_exact_mut(SHAPE.w * SHAPE.c).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(SHAPE.c).enumerate() {
            let (x, y) = (x as f32, y as f32);
            let shade = slope[0] * (x - middle) + slope[1] * (y - middle);
            let mut value = background.map(|level| level + shade);
            for blob in &blobs {
                blob.add_to(&mut value, x, y);
            }
            let coverage = pattern.coverage(x, y);
            for ((byte, level), contrast) in pixel.iter_mut().zip(value).zip(contrast) {
                // `as` rounds towards zero and saturates to 0..=255.
                *byte = (level + coverage * contrast + noise(random) + 0.5) as u8;
            }
        }
    }
}

impl Pattern {
    fn random(random: &mut Philox, figure: Figure) -> Self {
        let radius = between(random, RADIUS);
        // The pattern lies inside the image (the corners of turned ones not always); augmentation may cut a little.
        let room = (SHAPE.w as f32 / 2.0 - radius).max(0.0);
        let middle = (SHAPE.w as f32 - 1.0) / 2.0;
        let centre = [0, 1].map(|_| middle + between(random, (-room, room)));
        let tilt = between(random, (-TILT, TILT));
        let axis = match figure {
            Figure::HorizontalStripes => unit([tilt, 1.0]),
            Figure::Square | Figure::VerticalStripes => unit([1.0, tilt]),
            Figure::DiagonalStripes => unit([1.0, (1.0 + tilt) * if coin(random) { 1.0 } else { -1.0 }]),
            _ => unit_vector(random),
        };
        let period = between(random, PERIOD);
        let phase = [0, 1].map(|_| random.uniform_f32());
        Self { figure, centre, axis, radius, period, phase, round_patch: coin(random) }
    }

    /// Share of the pixel at column `x`, row `y` that the pattern covers.
    fn coverage(&self, x: f32, y: f32) -> f32 {
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        let (u, v) = (dx * self.axis[0] + dy * self.axis[1], dy * self.axis[0] - dx * self.axis[1]);
        let r = self.radius;
        let from_centre = (dx * dx + dy * dy).sqrt();
        match self.figure {
            Figure::Disk => inside(from_centre - 0.9 * r),
            Figure::Ring => inside((from_centre - 0.78 * r).abs() - 0.2 * r),
            Figure::Square => inside(u.abs().max(v.abs()) - 0.8 * r),
            // Equilateral: three half-planes at distance r/2 from the centroid.
            Figure::Triangle => inside((-v).max(0.5 * v + 0.866_025_4 * u.abs()) - 0.55 * r),
            Figure::Cross => {
                let bar = |along: f32, across: f32| (along.abs() - r).max(across.abs() - 0.28 * r);
                inside(bar(u, v).min(bar(v, u)))
            }
            Figure::HorizontalStripes | Figure::VerticalStripes | Figure::DiagonalStripes => {
                self.patch(dx, dy, from_centre) * self.stripe(u, 0)
            }
            Figure::Checker => {
                let (a, b) = (self.stripe(u, 0), self.stripe(v, 1));
                self.patch(dx, dy, from_centre) * (a + b - 2.0 * a * b)
            }
            Figure::Dots => {
                let (a, b) = (self.distance_to_line(u, 0), self.distance_to_line(v, 1));
                self.patch(dx, dy, from_centre) * inside((a * a + b * b).sqrt() - 0.3 * self.period)
            }
        }
    }

    /// Coverage of the disk or square that holds a texture.
    fn patch(&self, dx: f32, dy: f32, from_centre: f32) -> f32 {
        if self.round_patch {
            inside(from_centre - self.radius)
        } else {
            inside(dx.abs().max(dy.abs()) - 0.85 * self.radius)
        }
    }

    /// Coverage of stripes across `u`, half of each period.
    fn stripe(&self, u: f32, phase: usize) -> f32 {
        inside(self.distance_to_line(u, phase) - 0.25 * self.period)
    }

    /// Distance of `u` from the nearest of a set of lines, one per period.
    fn distance_to_line(&self, u: f32, phase: usize) -> f32 {
        let turns = u / self.period + self.phase[phase];
        (turns - turns.round()).abs() * self.period
    }
}

impl Blob {
    fn random(random: &mut Philox) -> Self {
        let radius = between(random, BLOB_RADIUS);
        let centre = [SHAPE.w, SHAPE.h].map(|extent| between(random, (0.0, extent as f32)));
        let contrast = between(random, (-BLOB_CONTRAST, BLOB_CONTRAST));
        Self {
            centre,
            inv_radius_squared: 1.0 / (radius * radius),
            contrast: colour(random, contrast, TINT / 2.0),
        }
    }

    fn add_to(&self, value: &mut [f32; 3], x: f32, y: f32) {
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        let height = (1.0 - (dx * dx + dy * dy) * self.inv_radius_squared).max(0.0);
        for (value, contrast) in value.iter_mut().zip(self.contrast) {
            *value += height * contrast;
        }
    }
}

/// Coverage of a pixel whose centre lies at this signed distance from an outline.
fn inside(distance: f32) -> f32 {
    (0.5 - distance).clamp(0.0, 1.0)
}

fn between(random: &mut Philox, (low, high): (f32, f32)) -> f32 {
    low + (high - low) * random.uniform_f32()
}

fn coin(random: &mut Philox) -> bool {
    random.next_u32() >> 31 == 1
}

fn colour(random: &mut Philox, grey: f32, tint: f32) -> [f32; 3] {
    [0; 3].map(|_| grey + between(random, (-tint, tint)))
}

fn unit(v: [f32; 2]) -> [f32; 2] {
    let length = (v[0] * v[0] + v[1] * v[1]).sqrt();
    v.map(|d| d / length)
}

/// A uniformly random direction, by rejection from the square.
fn unit_vector(random: &mut Philox) -> [f32; 2] {
    loop {
        let v = [0, 1].map(|_| between(random, (-1.0, 1.0)));
        let squared = v[0] * v[0] + v[1] * v[1];
        if (0.01..=1.0).contains(&squared) {
            return unit(v);
        }
    }
}

/// Nearly normal noise of standard deviation [`NOISE`]: the sum of the four bytes of one random word.
fn noise(random: &mut Philox) -> f32 {
    /// Standard deviation of the sum: sqrt(4 * (256^2 - 1) / 12).
    const STD: f32 = 147.8;
    let sum: u32 = random.next_u32().to_le_bytes().map(u32::from).iter().sum();
    (sum as f32 - 510.0) * (NOISE / STD)
}
