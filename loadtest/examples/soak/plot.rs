//! The samples of a run as an SVG file: one panel for each figure, all over the same time.

use std::fmt::Write;

use crate::growth::{FIGURES, Sample};

const WIDTH: u64 = 900;
const PANEL_HEIGHT: u64 = 150;
const PANEL_GAP: u64 = 50;
const LEFT: u64 = 90;
const RIGHT: u64 = 20;

/// The plot. `title` says what was run, and for how long.
pub(crate) fn svg(title: &str, samples: &[Sample]) -> String {
    let height = FIGURES.len() as u64 * (PANEL_HEIGHT + PANEL_GAP) + PANEL_GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    let end_ms = samples.last().map_or(1, |sample| sample.at_ms.max(1));
    for (index, figure) in FIGURES.iter().enumerate() {
        let top = PANEL_GAP + index as u64 * (PANEL_HEIGHT + PANEL_GAP);
        let values: Vec<u64> = samples.iter().map(figure.value).collect();
        // Each panel begins at zero, so that a line that looks flat is flat.
        let most = values.iter().copied().max().unwrap_or(0).max(1) * 11 / 10 + 1;
        let x = |at_ms: u64| LEFT + at_ms * (WIDTH - LEFT - RIGHT) / end_ms;
        let y = |value: u64| top + PANEL_HEIGHT - value * PANEL_HEIGHT / most;
        let (right, bottom) = (WIDTH - RIGHT, top + PANEL_HEIGHT);
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">{}</text>", top - 6, figure.name);
        let _ = writeln!(svg, "<path d=\"M{LEFT} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"gray\"/>");
        for value in [0, most / 2, most] {
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", LEFT - 6, y(value) + 4, short(value));
        }
        for part in 0..=4 {
            let at_ms = end_ms * part / 4;
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{} s</text>", x(at_ms), bottom + 15, at_ms / 1000);
        }
        let points: String = samples.iter().zip(&values).map(|(sample, value)| format!("{},{} ", x(sample.at_ms), y(*value))).collect();
        let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#0b61a4\"/>", points.trim_end());
    }
    svg + "</svg>\n"
}

/// With a unit prefix where that is shorter.
fn short(value: u64) -> String {
    match value {
        0..10_000 => value.to_string(),
        10_000..10_000_000 => format!("{} k", value / 1000),
        _ => format!("{} M", value / 1_000_000),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
