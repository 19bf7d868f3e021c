//! A backlog, carried by feedline, by a peer, and by programs that show the limits. They take turns, so that a drift of the machine
//! concerns all of them.

use crate::{
    bare,
    contestants::{Backlog, Run, Who},
    kinds::{Bench, Shape},
    meter::median,
    servers::{port::run_directory, process::Server},
};
use std::{env, thread, time::Duration};

/// The conditions of a measurement.
#[derive(Clone, Copy)]
pub(crate) struct Condition {
    pub(crate) name: &'static str,
    /// Whether other processes keep every processor busy.
    is_busy: bool,
    /// The delay of the broker's answers.
    delay: Duration,
    /// The backlog is this many times smaller.
    share: u32,
}

pub(crate) const CONDITIONS: [Condition; 4] = [
    Condition { name: "nothing else runs", is_busy: false, delay: Duration::ZERO, share: 1 },
    Condition { name: "every core is busy otherwise", is_busy: true, delay: Duration::ZERO, share: 4 },
    Condition { name: "the broker answers after 5 ms", is_busy: false, delay: Duration::from_millis(5), share: 2 },
    Condition { name: "the broker answers after 50 ms", is_busy: false, delay: Duration::from_millis(50), share: 4 },
];

pub(crate) const SHAPES: [(&str, Shape); 2] = [
    ("50,000 rows a transaction", Shape { transactions: 20, rows: 50_000 }),
    ("one row a transaction", Shape { transactions: 300_000, rows: 1 }),
];

/// The runs of one program, in one shape under one condition.
pub(crate) struct Runs {
    pub(crate) shape: &'static str,
    pub(crate) condition: &'static str,
    pub(crate) who: Who,
    pub(crate) taken: Vec<Run>,
}

impl Runs {
    /// The median of a figure.
    pub(crate) fn middle(&self, of: impl Fn(&Run) -> f64) -> f64 {
        median(self.taken.iter().map(of).collect())
    }

    /// Its lowest and its highest rate.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let rates = self.taken.iter().map(|run| run.rate);
        (rates.clone().fold(f64::INFINITY, f64::min), rates.fold(0.0, f64::max))
    }

    /// The median of this figure's ratio to another's in the same round.
    pub(crate) fn ratio(&self, other: &Self, of: impl Fn(&Run) -> f64) -> f64 {
        median(self.taken.iter().zip(&other.taken).map(|(one, other)| of(one) / of(other)).collect())
    }
}

/// All programs, in all shapes, under all conditions.
pub(crate) fn run(bench: &Bench, rounds: usize, scale: u32) -> Vec<Runs> {
    let mut all: Vec<Runs> = Vec::new();
    for (shape, _) in SHAPES {
        for Condition { name: condition, delay, .. } in CONDITIONS {
            let takes_part = |who: &Who| delay.is_zero() || who.sends();
            all.extend(Who::ALL.into_iter().filter(takes_part).map(|who| Runs { shape, condition, who, taken: Vec::new() }));
        }
    }
    bare::warm(&bench.kafka, 300_000 / scale);
    for round in 0..rounds {
        for condition in CONDITIONS {
            for (shape, size) in SHAPES {
                let mut these: Vec<&mut Runs> =
                    all.iter_mut().filter(|runs| (runs.shape, runs.condition) == (shape, condition.name)).collect();
                // Another program begins each time.
                let first = round % these.len();
                these.rotate_left(first);
                one(bench, condition, size.smaller(condition.share * scale), &mut these);
                for Runs { who, taken, .. } in these {
                    let run = taken.last().unwrap();
                    println!("round {round}, {}, {shape}: {}: {run:?}", condition.name, who.name());
                }
            }
        }
    }
    all
}

/// One backlog for all programs.
fn one(bench: &Bench, condition: Condition, shape: Shape, these: &mut [&mut Runs]) {
    bench.delay.set(condition.delay);
    let bootstrap = if condition.delay.is_zero() { bench.kafka.bootstrap() } else { format!("127.0.0.1:{}", bench.delay.port()) };
    let mut backlog = Backlog::write(bench, shape, &bootstrap);
    for Runs { who, taken, .. } in these {
        let _busy = condition.is_busy.then(busy);
        taken.push(backlog.carried_by(*who));
    }
    backlog.remove();
}

/// Processes that keep every core busy until this is dropped.
fn busy() -> Vec<Server> {
    let cores = thread::available_parallelism().unwrap().get();
    (0..cores).map(|_| Server::start(&run_directory("busy", None).unwrap(), &["sh", "-c", "while :; do :; done"])).collect()
}

impl Shape {
    /// A shape with this many times fewer rows: fewer transactions, or a smaller one if there is only one.
    fn smaller(self, share: u32) -> Self {
        Self { transactions: (self.transactions / share).max(1), rows: self.rows.min(self.rows * self.transactions / share) }
    }
}

/// The number of rounds.
pub(crate) fn rounds(is_quick: bool) -> usize {
    env::var("BENCH_ROUNDS").map_or(if is_quick { 1 } else { 7 }, |text| text.parse().unwrap())
}
