//! Writes the results into the documents, between the marks for them.

use crate::{
    contestants::{Run, Who},
    drain::{CONDITIONS, Condition, Runs, SHAPES},
    servers::port::target,
};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// The document with all results, and the one with ratios only.
const PAGE: &str = "docs/performance.md";
const README: &str = "README.md";
const PICTURE: &str = "docs/performance.svg";

/// The result of one measurement, in words.
#[derive(Default)]
pub(crate) struct Said {
    /// For the page: Markdown.
    pub(crate) page: String,
    /// Rows of the page's table.
    rows: String,
    /// For the page: SVG.
    picture: Option<String>,
    /// For the README: no figure that depends on the machine.
    ratios: String,
}

impl Said {
    /// A row of a table, for the page alone.
    pub(crate) fn row(&mut self, what: &str, measured: &str, against: &str) {
        println!("{what}: {measured} {against}");
        writeln!(self.rows, "| {what} | {measured} | {against} |").unwrap();
    }

    /// A line of ratios.
    pub(crate) fn ratio(&mut self, line: &str) {
        println!("{line}");
        writeln!(self.ratios, "- {line}").unwrap();
    }

    /// Writes it into a file of the target directory, and on request into the documents.
    pub(crate) fn publish(mut self, measurement: &str, is_kept: bool) {
        if !self.rows.is_empty() {
            write!(self.page, "| what | measured | against |\n|---|---|---|\n{}", self.rows).unwrap();
        }
        let path = target().join(format!("bench-{measurement}.md"));
        fs::write(&path, &self.page).unwrap();
        println!("{}\nwritten to {}", self.page, path.display());
        if let Some(picture) = &self.picture {
            fs::write(if is_kept { in_project(PICTURE) } else { target().join("bench-drain.svg") }, picture).unwrap();
        }
        if is_kept {
            replace(PAGE, measurement, &self.page);
            if !self.ratios.is_empty() {
                replace(README, measurement, &self.ratios);
            }
        }
    }
}

/// Puts text between a document's marks of this name.
fn replace(document: &str, name: &str, text: &str) {
    let path = in_project(document);
    let before = fs::read_to_string(&path).unwrap();
    let [begin, end] = ["begin", "end"].map(|mark| format!("<!-- {name}: {mark} -->"));
    let (head, rest) = before.split_once(&begin).unwrap_or_else(|| panic!("{document} has no {begin}"));
    let (_, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("{document} has no {end}"));
    fs::write(&path, format!("{head}{begin}\n{}\n{end}{tail}", text.trim_end())).unwrap();
    println!("written to {document}");
}

fn in_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Tables, and a picture, of the drain.
pub(crate) fn drain(all: &[Runs], said: &mut Said) {
    said.picture = Some(picture(all));
    writeln!(said.page, "![Events a second, of each in each condition](performance.svg)\n").unwrap();
    for (shape, _) in SHAPES {
        for Condition { name: condition, .. } in CONDITIONS {
            let ours = find(all, shape, condition, Who::Feedline);
            writeln!(
                said.page,
                "**{shape}, {condition}**\n\n\
                 | | events/s, the median of {} | lowest, highest | times feedline's rate | its own processor, µs an event | the database's | \
                 the broker's | memory, MB | bytes a record |\n\
                 |---|---|---|---|---|---|---|---|---|",
                ours.taken.len()
            )
            .unwrap();
            for runs in all.iter().filter(|runs| (runs.shape, runs.condition) == (shape, condition)) {
                row(&mut said.page, runs, ours);
            }
            said.page.push('\n');
        }
        ratios(all, shape, said);
    }
}

fn ratios(all: &[Runs], shape: &str, said: &mut Said) {
    let rate = |run: &Run| run.rate;
    for (index, Condition { name: condition, .. }) in CONDITIONS.into_iter().enumerate() {
        let of = |who| find(all, shape, condition, who);
        let (ours, peer) = (of(Who::Feedline), of(Who::Debezium));
        let faster = ours.ratio(peer, rate);
        if index != 0 {
            said.ratio(&format!("The same while {condition}: {faster:.1} times as fast as Debezium."));
            continue;
        }
        said.ratio(&format!(
            "PostgreSQL to Kafka, {shape}: {faster:.1} times as fast as Debezium with {:.2} times its processor time and {:.2} times its memory; \
             {:.2} times the rate of `pg_recvlogical`, {:.2} times that of a bare producer.",
            ours.ratio(peer, |run| run.own_us),
            ours.ratio(peer, memory),
            ours.ratio(of(Who::Recvlogical), rate),
            ours.ratio(of(Who::Producer), rate),
        ));
    }
}

fn find<'r>(all: &'r [Runs], shape: &str, condition: &str, who: Who) -> &'r Runs {
    all.iter().find(|runs| (runs.shape, runs.condition, runs.who) == (shape, condition, who)).unwrap()
}

fn memory(run: &Run) -> f64 {
    run.memory_mb.map_or(f64::NAN, |megabytes| f64::from(u32::try_from(megabytes).unwrap()))
}

fn row(page: &mut String, runs: &Runs, ours: &Runs) {
    let (lowest, highest) = runs.spread();
    let of_broker = if runs.who.sends() { format!("{:.1}", runs.middle(|run| run.broker_us)) } else { String::new() };
    let of_database = if runs.who == Who::Producer { String::new() } else { format!("{:.1}", runs.middle(|run| run.database_us)) };
    let memory = if runs.taken[0].memory_mb.is_some() { format!("{:.0}", runs.middle(memory)) } else { String::new() };
    let bytes = runs.taken[0].record_bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
    writeln!(
        page,
        "| {} | {} | {}, {} | {:.2} | {:.1} | {of_database} | {of_broker} | {memory} | {bytes} |",
        runs.who.name(),
        thousands(runs.middle(|run| run.rate)),
        thousands(lowest),
        thousands(highest),
        runs.ratio(ours, |run| run.rate),
        runs.middle(|run| run.own_us),
    )
    .unwrap();
}

/// A rate, with a comma before its last three digits: `12,300`.
fn thousands(rate: f64) -> String {
    let hundreds = (rate / 100.0).round();
    if hundreds < 10.0 { format!("{rate:.0}") } else { format!("{:.0},{:.0}00", (hundreds / 10.0).floor(), hundreds % 10.0) }
}

/// Bars of the medians, with lines from the lowest to the highest.
fn picture(all: &[Runs]) -> String {
    const LEFT: f64 = 250.0;
    const WIDTH: f64 = 520.0;
    const STEP: f64 = 18.0;
    let most = all.iter().map(|runs| runs.spread().1).fold(1.0, f64::max);
    let x = |rate: f64| LEFT + rate / most * WIDTH;
    let (mut bars, mut y, mut group) = (String::new(), 10.0, ("", ""));
    for runs in all {
        if group != (runs.shape, runs.condition) {
            group = (runs.shape, runs.condition);
            y += STEP * 1.5;
            writeln!(bars, "<text x=\"10\" y=\"{y:.0}\" font-weight=\"bold\">{}, {}</text>", group.0, group.1).unwrap();
            y += STEP / 2.0;
        }
        let (middle, (lowest, highest)) = (runs.middle(|run| run.rate), runs.spread());
        let colour = match runs.who {
            Who::Feedline => "#1a7f4b",
            Who::Debezium => "#c2571a",
            Who::Recvlogical | Who::Reader | Who::Producer => "#9aa0a6",
        };
        let (text_y, line_y) = (y + 10.0, y + 6.0);
        writeln!(
            bars,
            "<text x=\"{:.0}\" y=\"{text_y:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"12\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{line_y:.0}\" y2=\"{line_y:.0}\" stroke=\"#202124\"/>\
             <text x=\"{:.1}\" y=\"{text_y:.0}\">{}</text>",
            LEFT - 8.0,
            runs.who.name(),
            x(middle) - LEFT,
            x(lowest),
            x(highest),
            x(highest) + 6.0,
            thousands(middle),
        )
        .unwrap();
        y += STEP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"{0:.0}\" viewBox=\"0 0 860 {0:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#202124\">\n<rect width=\"860\" height=\"{0:.0}\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"18\">Events a second: medians, and lines from the lowest to the highest round</text>\n{bars}</svg>\n",
        y + 10.0
    )
}
