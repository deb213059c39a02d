//! Run records -> pages that need nothing but a browser: no network, no other file.

mod compare;
mod html;
mod plots;
mod run;

pub use compare::{compare_html, compare_markdown, compare_raster};
pub use run::run_html;

/// A run's name, short enough for legends and table heads.
fn short_name(name: &str) -> String {
    let mut short: String = name.chars().take(32).collect();
    if name.chars().nth(32).is_some() {
        short.push('…');
    }
    short
}
