//! The page around a report: skeleton, tiles, tables, chart cards. All text is escaped here.

use crate::metrics::plot::{Chart, Svg, escape};
use std::fmt::Write;

/// Most rows of a table; longer ones show every k-th.
const MAX_ROWS: usize = 60;

/// A page in the making.
pub(super) struct Page {
    title: String,
    body: String,
    charts: usize,
}

impl Page {
    /// A page with a headline.
    pub fn new(title: &str) -> Self {
        Self { title: title.into(), body: format!("<h1>{}</h1>\n", escape(title)), charts: 0 }
    }

    /// A paragraph with a CSS class: `lead`, `muted`, `note`, `warn`.
    pub fn paragraph(&mut self, class: &str, text: &str) {
        let _ = writeln!(self.body, "<p class=\"{class}\">{}</p>", escape(text));
    }

    /// A section heading.
    pub fn heading(&mut self, text: &str) {
        let _ = writeln!(self.body, "<h2>{}</h2>", escape(text));
    }

    /// Headline numbers: `(value, what it is)`.
    pub fn tiles(&mut self, tiles: &[(String, String)]) {
        self.body.push_str("<div class=\"tiles\">\n");
        for (value, what) in tiles {
            let (value, what) = (escape(value), escape(what));
            let _ = writeln!(self.body, "<div class=\"tile\"><b>{value}</b><span>{what}</span></div>");
        }
        self.body.push_str("</div>\n");
    }

    /// Charts side by side, as many as the width allows.
    pub fn charts(&mut self, charts: &[Chart]) {
        self.body.push_str("<div class=\"charts\">\n");
        for chart in charts {
            self.charts += 1;
            let svg = Svg::chart(chart, &format!("chart{}", self.charts));
            let _ = writeln!(self.body, "<figure class=\"card\">\n{svg}</figure>");
        }
        self.body.push_str("</div>\n");
    }

    /// Content that opens on request.
    pub fn details(&mut self, summary: &str, fill: impl FnOnce(&mut Self)) {
        let _ = writeln!(self.body, "<details><summary>{}</summary>", escape(summary));
        fill(self);
        self.body.push_str("</details>\n");
    }

    /// Text with its line breaks.
    pub fn preformatted(&mut self, text: &str) {
        let _ = writeln!(self.body, "<pre>{}</pre>", escape(text));
    }

    /// Two columns: what, and its value.
    pub fn facts(&mut self, facts: &[(&str, String)]) {
        self.body.push_str("<div class=\"scroll\"><table class=\"facts\"><tbody>\n");
        for (what, value) in facts {
            let (what, value) = (escape(what), escape(value));
            let _ = writeln!(self.body, "<tr><th scope=\"row\">{what}</th><td>{value}</td></tr>");
        }
        self.body.push_str("</tbody></table></div>\n");
    }

    /// A table; the first cell of a row names it, cells that start with `*` are marked as best.
    pub fn table(&mut self, caption: &str, header: &[String], rows: &[Vec<String>]) {
        let every = rows.len().div_ceil(MAX_ROWS).max(1);
        let caption = match every {
            1 => caption.to_string(),
            _ => format!("{caption} (every {every}th of {} rows, and the last)", rows.len()),
        };
        let _ = write!(
            self.body,
            "<div class=\"scroll\"><table><caption>{}</caption>\n<thead><tr>",
            escape(&caption)
        );
        for name in header {
            let _ = write!(self.body, "<th scope=\"col\">{}</th>", escape(name));
        }
        self.body.push_str("</tr></thead>\n<tbody>\n");
        for (i, row) in rows.iter().enumerate() {
            if i % every != 0 && i + 1 != rows.len() {
                continue;
            }
            self.body.push_str("<tr>");
            for (column, cell) in row.iter().enumerate() {
                let _ = match (column, cell.strip_prefix('*')) {
                    (0, _) => write!(self.body, "<th scope=\"row\">{}</th>", escape(cell)),
                    (_, Some(best)) => write!(self.body, "<td class=\"best\">{}</td>", escape(best)),
                    _ => write!(self.body, "<td>{}</td>", escape(cell)),
                };
            }
            self.body.push_str("</tr>\n");
        }
        self.body.push_str("</tbody></table></div>\n");
    }

    /// The finished page.
    pub fn finish(self) -> String {
        let (style, script) = (include_str!("style.css"), include_str!("script.js"));
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{}\
             <footer>Made by scadles {}. This page needs no network.</footer>\n\
             </main>\n<script>\n{script}</script>\n</body>\n</html>\n",
            escape(&self.title),
            self.body,
            env!("CARGO_PKG_VERSION")
        )
    }
}
