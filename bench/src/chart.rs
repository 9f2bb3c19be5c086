//! Charts in SVG, on logarithmic scales: bars of ratios to the passthrough, and lines of how a cost grows.

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

/// A line of a chart.
pub struct Line {
    pub name: &'static str,
    /// Both above 0.
    pub points: Vec<(f64, f64)>,
}

/// Lines of how a cost grows with a number; both scales are logarithmic.
pub fn growth(title: &str, across: &str, up: &str, lines: &[Line]) -> String {
    const WIDTH: f64 = 640.0;
    const HEIGHT: f64 = 380.0;
    const LEFT: f64 = 70.0;
    const RIGHT: f64 = 590.0;
    const LINES_TOP: f64 = 60.0;
    const BOTTOM: f64 = 320.0;
    const COLOURS: [&str; 4] = ["#1f6f4a", "#c0562b", "#3b5b92", "#8a6d1f"];
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let decades = |values: &dyn Fn((f64, f64)) -> f64| {
        let exponents: Vec<f64> = points().map(|point| values(point).log10()).collect();
        let (low, high) = exponents.iter().fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
        (low.floor(), high.ceil().max(low.floor() + 1.0))
    };
    let (x_low, x_high) = decades(&|point| point.0);
    let (y_low, y_high) = decades(&|point| point.1);
    let x_of = |x: f64| LEFT + (x.log10() - x_low) / (x_high - x_low) * (RIGHT - LEFT);
    let y_of = |y: f64| BOTTOM - (y.log10() - y_low) / (y_high - y_low) * (BOTTOM - LINES_TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let _ = writeln!(svg, "<text x=\"10\" y=\"22\" font-size=\"15\">{title}</text>");
    text(&mut svg, 10.0, 44.0, up, "#777777");
    text(&mut svg, RIGHT - 110.0, HEIGHT - 14.0, across, "#777777");
    for decade in x_low as i32..=x_high as i32 {
        let x = x_of(10_f64.powi(decade));
        let _ =
            writeln!(svg, "<line x1=\"{x:.1}\" y1=\"{LINES_TOP}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\" stroke=\"#dddddd\"/>");
        text(&mut svg, x - 8.0, BOTTOM + 18.0, &crate::table::count(10_f64.powi(decade)), "#777777");
    }
    for decade in y_low as i32..=y_high as i32 {
        let y = y_of(10_f64.powi(decade));
        let _ = writeln!(svg, "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>");
        text(&mut svg, 10.0, y + 4.0, &crate::table::count(10_f64.powi(decade)), "#777777");
    }
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let path: Vec<String> = line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (x, y) in &line.points {
            let _ =
                writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>", x_of(*x), y_of(*y));
        }
        text(&mut svg, LEFT + 12.0, LINES_TOP + 16.0 + 17.0 * index as f64, line.name, colour);
    }
    svg + "</svg>\n"
}
