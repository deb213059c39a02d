//! Series of numbers -> line charts, drawn by one layout on any [`Canvas`]: [`Svg`] for reports, [`Raster`] for PNG.

mod axis;
mod canvas;
mod chart;
mod font;
mod raster;
mod series;
mod svg;

pub use axis::{Axis, Unit};
pub use canvas::{Anchor, Canvas, Paint, Stroke, TextStyle};
pub use chart::{Chart, Frame, HEIGHT, Rule, WIDTH};
pub use raster::Raster;
pub use series::{Mark, Series};
pub use svg::{Svg, escape};
