//! One set of points in a chart, thinned to what a screen can show.

/// Points in a chart, in order of x.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Name in the legend; without a name it has no entry there.
    pub name: String,
    /// `(x, y)`; points that are not finite interrupt a line.
    pub points: Vec<(f64, f64)>,
    /// Number of its colour.
    pub color: usize,
    /// How it is drawn.
    pub mark: Mark,
}

/// How points are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// A line.
    #[default]
    Line,
    /// A pale line: raw values behind a smoothed one.
    Faint,
    /// A dashed line.
    Dashed,
    /// A line with a dot at each point, for few points.
    DotLine,
    /// Dots only.
    Dots,
}

/// Most columns of points that a line keeps.
const COLUMNS: usize = 300;

impl Series {
    /// A line called `name` through `points`.
    pub fn line(name: impl Into<String>, color: usize, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, color, mark: Mark::Line }
    }

    /// The same points drawn as `mark`.
    pub fn marked(self, mark: Mark) -> Self {
        Self { mark, ..self }
    }

    /// At most four points for each of 300 equal spans of the list: its first, lowest, highest and last, so
    /// that no peak is lost. A span with a point that is not finite keeps that too, as an interruption.
    pub fn thinned(&self) -> Vec<(f64, f64)> {
        let n = self.points.len();
        if n <= 2 * COLUMNS {
            return self.points.clone();
        }
        let mut kept = Vec::with_capacity(5 * COLUMNS);
        for column in 0..COLUMNS {
            let (start, end) = (column * n / COLUMNS, (column + 1) * n / COLUMNS);
            let span = &self.points[start..end];
            let finite = |i: &usize| span[*i].1.is_finite();
            let by_y = |a: &usize, b: &usize| span[*a].1.total_cmp(&span[*b].1);
            let mut chosen = vec![0, span.len() - 1];
            chosen.extend((0..span.len()).filter(finite).min_by(by_y));
            chosen.extend((0..span.len()).filter(finite).max_by(by_y));
            chosen.extend((0..span.len()).find(|i| !finite(i)));
            chosen.sort_unstable();
            chosen.dedup();
            kept.extend(chosen.into_iter().map(|i| span[i]));
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_ends_peaks_and_gaps() {
        let mut points: Vec<(f64, f64)> = (0..50_000).map(|i| (f64::from(i), f64::from(i % 10))).collect();
        points[31_234].1 = 1e6;
        points[7_777].1 = -5.0;
        points[40_001].1 = f64::NAN;
        let series = Series::line("x", 0, points.clone());
        let thin = series.thinned();
        assert!(thin.len() <= 5 * COLUMNS);
        assert_eq!((thin[0], *thin.last().unwrap()), (points[0], points[49_999]));
        assert!(thin.contains(&(31_234.0, 1e6)) && thin.contains(&(7_777.0, -5.0)));
        assert!(thin.iter().any(|point| point.1.is_nan()));
        assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(Series::line("y", 0, points[..5].to_vec()).thinned(), points[..5]);
    }
}
