//! A bar chart in SVG: ratios to the passthrough on a logarithmic scale.

use std::fmt::Write as _;

use crate::plan::size_name;
use crate::single::Ratios;

const BAR: f64 = 14.0;
const LABELS: f64 = 250.0;
const PANEL: f64 = 330.0;
const GAP: f64 = 30.0;
const TOP: f64 = 56.0;
/// Where the bars end: 2^11 times the passthrough.
const DOUBLINGS: f64 = 11.0;

/// Encrypting on the left, decrypting on the right; a group for each size.
pub fn ratios(ratios: &[Ratios]) -> String {
    let mut sizes: Vec<usize> = ratios.iter().map(|ratio| ratio.bytes).collect();
    sizes.dedup();
    let height = TOP + ratios.len() as f64 * (BAR + 4.0) + sizes.len() as f64 * 26.0 + 30.0;
    let width = LABELS + 2.0 * (PANEL + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">CPU time per row, as a multiple of the passthrough (less is better, logarithmic)</text>\n"
    );
    for (panel, title) in ["encrypt", "decrypt"].iter().enumerate() {
        let left = panel_left(panel);
        text(&mut svg, left, 42.0, title, "#333333");
        for doubling in (0..=10).step_by(2) {
            let x = left + scale(f64::from(1_u32 << doubling));
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>",
                height - 24.0
            );
            text(&mut svg, x - 4.0, height - 8.0, &format!("{}", 1_u32 << doubling), "#777777");
        }
    }
    let mut y = TOP;
    for bytes in sizes {
        y += 18.0;
        text(&mut svg, 10.0, y, &size_name(bytes), "#000000");
        y += 8.0;
        for entry in ratios.iter().filter(|entry| entry.bytes == bytes) {
            let colour = if entry.name == "envelope_pg" { "#1f6f4a" } else { "#a9b4c0" };
            text(&mut svg, 30.0, y + 11.0, entry.name, "#333333");
            for (panel, ratio) in [entry.encrypt, entry.decrypt].into_iter().enumerate() {
                let (left, length) = (panel_left(panel), scale(ratio).max(1.0));
                let _ = writeln!(
                    svg,
                    "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"
                );
                text(&mut svg, left + length + 4.0, y + 11.0, &crate::table::ratio(ratio), "#333333");
            }
            y += BAR + 4.0;
        }
    }
    svg + "</svg>\n"
}

fn panel_left(panel: usize) -> f64 {
    LABELS + panel as f64 * (PANEL + GAP)
}

/// Pixels of a ratio.
fn scale(ratio: f64) -> f64 {
    ratio.max(1.0).log2() / DOUBLINGS * (PANEL - 40.0)
}

fn text(svg: &mut String, x: f64, y: f64, content: &str, colour: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{content}</text>");
}
