//! Product questions asked of timelines, of one core, beside the same questions asked of rows by the aggregates of this
//! crate; answers are compared before anything is measured. Nothing of Postgres is in it: reading pages comes on top.
//!
//! `cargo bench -p tidemark-core --bench timelines [-- FILTER]`. `EVENTS=10000000` takes so many events instead of two
//! million, `ROWS=1` measures the aggregates over rows as well. Bytes an event are printed in the beginning. What is
//! measured is time on the processor, which other programs disturb less than time on the wall.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark, not a program")]

mod events;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use events::{ADDED, CHECKOUT, COUNTRY, Event, ORDERED, PAGE, PLATFORM, VIEWED, events};
use tidemark_core::event::EventLog;
use tidemark_core::funnel::stats::FunnelStats;
use tidemark_core::funnel::{Funnel, Mode, WindowMode, window_funnel};
use tidemark_core::retention::cohort::{CohortLog, Spec};
use tidemark_core::retention::matrix::Matrix;
use tidemark_core::sequence::Pattern;
use tidemark_core::session::Sessions;
use tidemark_core::timeline::*;
use tidemark_core::{AVec, Global};

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1_440 * MINUTE;
/// 2026-09-01, a Tuesday.
const FROM: i32 = 9740;
const DATES: i32 = 30;
const GAP: i64 = 30 * MINUTE;

struct Store {
    bits: u32,
    /// In order of (slice, date).
    slices: Vec<(i32, Encoded)>,
}

impl Store {
    fn new(events: &[Event]) -> Self {
        // About 650 events a slice.
        let bits = (events.len() / DATES as usize / 650).max(1).ilog2();
        let mut slices = vec![];
        for (date, builder) in builders(events) {
            slices.extend(builder.finish(bits, ()).map(|slice| (date, slice.unwrap())));
        }
        slices.sort_by_key(|(date, slice)| (slice.slice, *date));
        Self { bits, slices }
    }

    /// `of` are the properties that are read.
    fn scan<K: Kernel>(&self, kernel: K, of: &[usize], level: Level) -> K {
        let mut scan = Scan::new(kernel, self.bits, level).unwrap();
        for (date, slice) in &self.slices {
            let properties = of.iter().map(|p| Codes::read(&slice.properties[p - 1]).unwrap()).collect();
            let source = Source::new(View::read(&slice.core).unwrap(), properties).unwrap();
            scan.read(slice.slice, *date, std::slice::from_ref(&source), ()).unwrap();
        }
        scan.finish(())
    }
}

/// A date whose last tenth came in ten rounds, each of them a part for all slices.
struct Open {
    bits: u32,
    slices: Vec<Encoded>,
    parts: Vec<Encoded>,
}

impl Open {
    fn new(events: &[Event], bits: u32, parts: usize) -> Self {
        let encode = |events: &[Event], bits| {
            let mut slices = vec![];
            for (_, builder) in builders(events) {
                slices.extend(builder.finish(bits, ()).map(Result::unwrap));
            }
            slices
        };
        let (old, new) = events.split_at(if parts > 0 { events.len() / 10 * 9 } else { events.len() });
        let round = new.len().div_ceil(parts.max(1)).max(1);
        let parts = new.chunks(round).flat_map(|events| encode(events, 0)).collect();
        Self { bits, slices: encode(old, bits), parts }
    }

    fn scan<K: Kernel>(&self, kernel: K, level: Level) -> K {
        let source = |slice| Source::new(View::read(slice).unwrap(), vec![]).unwrap();
        let mut scan = Scan::new(kernel, self.bits, level).unwrap();
        let parts: Vec<_> = self.parts.iter().map(|part| source(&part.core)).collect();
        let mut slices = self.slices.iter().peekable();
        let mut here = vec![];
        for slice in 0..1 << self.bits {
            here.clear();
            here.extend(slices.next_if(|own| own.slice == slice).map(|own| source(&own.core)));
            here.extend(parts.iter().filter_map(|part| part.of_slice(slice, self.bits)));
            if let Some(date) = here.first().map(|part| part.date()) {
                scan.read(slice, date as i32, &here, ()).unwrap();
            }
        }
        scan.finish(())
    }

    fn levels(&self, level: Level) -> [u64; 3] {
        let mut counts = [0; 3];
        let count = |r: Reached<'_>| counts.iter_mut().take(r.level).for_each(|n| *n += 1);
        self.scan(Steps::<3, 1, 0, _>::new(plain_question(), DAY, 0, count).unwrap(), level);
        counts
    }

    fn sessions(&self, level: Level) -> usize {
        let mut sessions = 0;
        self.scan(SessionRuns::new(Question::all(), GAP, |_, _| sessions += 1), level);
        sessions
    }
}

fn builders(events: &[Event]) -> BTreeMap<i32, Builder> {
    let mut builders = BTreeMap::new();
    for event in events {
        let builder = builders.entry(event.time.div_euclid(DAY) as i32).or_insert_with(|| Builder::new(3));
        builder.push(event.hash, event.time, event.event, &event.properties).unwrap();
    }
    builders
}

/// What this thread has run, as Linux tells.
struct OnProcessor;

impl Measurement for OnProcessor {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        // Nanoseconds that were run come first; they are brought up to date when the thread gives way.
        std::thread::yield_now();
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
    }

    fn end(&self, started: Duration) -> Duration {
        self.start() - started
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// The conditions of three steps, by a closure for rows and by filters for slices.
type Row3 = fn(&Event) -> u32;

fn plain(e: &Event) -> u32 {
    u32::from(e.event == VIEWED) | u32::from(e.event == ADDED) << 1 | u32::from(e.event == ORDERED) << 2
}

fn filtered(e: &Event) -> u32 {
    u32::from(e.event == VIEWED && e.properties[2] == 1)
        | u32::from(e.event == ADDED && (2..7).contains(&e.properties[1])) << 1
        | u32::from(e.event == ORDERED) << 2
}

fn plain_question() -> Question {
    Question::of([VIEWED, ADDED, ORDERED].map(Filter::event).to_vec())
}

/// Columns 1 and 2 are country and page here, as they are read.
fn filtered_question() -> Question {
    Question::of(vec![
        Filter::And(vec![Filter::event(VIEWED), Filter::Is(2, CodeSet::from_iter([1]))]),
        Filter::And(vec![Filter::event(ADDED), Filter::Is(1, (2..7).collect())]),
        Filter::event(ORDERED),
    ])
}

fn seven_question() -> Question {
    Question::of([0, VIEWED, 2, ADDED, CHECKOUT, ORDERED, 7].map(Filter::event).to_vec())
}

fn logs(events: &[Event], conditions: Row3) -> HashMap<u64, EventLog<Global>> {
    let mut logs = HashMap::new();
    for event in events {
        let bits = conditions(event);
        if bits != 0 {
            logs.entry(event.hash).or_insert_with(|| EventLog::new_in(Global)).push(event.time, bits);
        }
    }
    logs
}

fn levels_by_rows(events: &[Event], conditions: Row3) -> [u64; 3] {
    let mut counts = [0; 3];
    for log in logs(events, conditions).values_mut() {
        let level = window_funnel(log.sorted(()), 3, DAY, WindowMode::default(), ());
        counts.iter_mut().take(level as usize).for_each(|n| *n += 1);
    }
    counts
}

fn levels(store: &Store, question: Question, of: &[usize], level: Level) -> [u64; 3] {
    let mut counts = [0; 3];
    let count = |r: Reached<'_>| counts.iter_mut().take(r.level).for_each(|n| *n += 1);
    store.scan(Steps::<3, 1, 0, _>::new(question, DAY, 0, count).unwrap(), of, level);
    counts
}

fn seven(store: &Store, level: Level) -> [u64; 7] {
    let mut counts = [0; 7];
    let count = |r: Reached<'_>| counts.iter_mut().take(r.level).for_each(|n| *n += 1);
    store.scan(Steps::<7, 1, 0, _>::new(seven_question(), DAY, 0, count).unwrap(), &[], level);
    counts
}

fn by_country(store: &Store, level: Level) -> BTreeMap<u32, [u64; 3]> {
    let mut counts = vec![[0; 3]; 64];
    let count = |r: Reached<'_>| {
        let value = r.value.unwrap() as usize;
        counts[value].iter_mut().take(r.level).for_each(|n| *n += 1);
    };
    let question = Question { value: Some(1), ..plain_question() };
    store.scan(Steps::<3, 1, 1, _>::new(question, DAY, 0, count).unwrap(), &[COUNTRY], level);
    (0..).zip(counts).filter(|(_, n)| n[0] > 0).collect()
}

fn by_country_by_rows(events: &[Event]) -> BTreeMap<u32, [u64; 3]> {
    let mut first: HashMap<u64, (i64, u32)> = HashMap::new();
    for e in events.iter().filter(|e| e.event == VIEWED) {
        let this = (e.time, e.properties[1]);
        first.entry(e.hash).and_modify(|f| *f = this.min(*f)).or_insert(this);
    }
    let mut counts = BTreeMap::new();
    for (hash, mut log) in logs(events, plain) {
        let level = window_funnel(log.sorted(()), 3, DAY, WindowMode::default(), ());
        if level > 0 {
            let counts = counts.entry(first[&hash].1).or_insert([0; 3]);
            counts.iter_mut().take(level as usize).for_each(|n| *n += 1);
        }
    }
    counts
}

type Rows = Vec<(u64, Option<f64>, Option<f64>)>;

fn figures(stats: &FunnelStats<Global>) -> Rows {
    stats.rows().map(|row| (row.entered, row.median_seconds, row.avg_seconds)).collect()
}

fn chains(store: &Store, level: Level) -> Rows {
    let mut stats = FunnelStats::new_in(3, Global).unwrap();
    let each = |r: Reached<'_>| {
        let mut chain = [None; 3];
        chain.iter_mut().zip(r.times).for_each(|(to, time)| *to = Some(*time));
        stats.push(&chain[..r.level]).unwrap();
    };
    store.scan(Steps::<3, 3, 0, _>::new(plain_question(), DAY, 0, each).unwrap(), &[], level);
    figures(&stats)
}

/// Any mode: the rows of each person, then the funnel.
fn chains_of_mode(store: &Store, mode: &str, level: Level) -> Rows {
    let funnel = Funnel::new(Mode::parse(mode).unwrap(), 3, DAY).unwrap();
    let mut stats = FunnelStats::new_in(3, Global).unwrap();
    let (mut memory, mut chain) = (vec![], AVec::new_in(Global));
    let question = Question { unmatched: funnel.needs_unmatched_rows(), ..plain_question() };
    let each = |_, rows: &[Row]| {
        funnel.run(as_events(rows, &mut memory), &mut chain, ());
        stats.push(&chain).unwrap();
    };
    store.scan(EachPerson::new(question, each), &[], level);
    figures(&stats)
}

fn chains_by_rows(events: &[Event]) -> Rows {
    let funnel = Funnel::new(Mode::default(), 3, DAY).unwrap();
    let mut stats = FunnelStats::new_in(3, Global).unwrap();
    let mut chain = AVec::new_in(Global);
    for log in logs(events, plain).values_mut() {
        funnel.run(log.sorted(()), &mut chain, ());
        stats.push(&chain).unwrap();
    }
    figures(&stats)
}

fn median(mut durations: Vec<i64>) -> (usize, i64) {
    let middle = durations.len() / 2;
    (durations.len(), *durations.select_nth_unstable(middle).1)
}

fn sessions(store: &Store, level: Level) -> (usize, i64) {
    let mut durations = vec![];
    store.scan(
        SessionRuns::new(Question::all(), GAP, |_, s| durations.push(s.ended_at - s.started_at)),
        &[],
        level,
    );
    median(durations)
}

fn sessions_by_rows(events: &[Event]) -> (usize, i64) {
    let mut persons: HashMap<u64, Sessions<Global>> = HashMap::new();
    for e in events {
        persons.entry(e.hash).or_insert_with(|| Sessions::new_in(GAP, Global)).push(e.time, ());
    }
    median(persons.values_mut().flat_map(|p| p.finish(()).map(|s| s.ended_at - s.started_at)).collect())
}

type Cells = Vec<(i64, u64, Vec<Option<u64>>)>;

fn cells(matrix: &Matrix<Global>) -> Cells {
    matrix.rows().map(|row| (row.cohort, row.size, row.retained().collect())).collect()
}

fn weekly() -> Spec {
    Spec::parse("week", "", 5, i64::from(FROM + DATES) * DAY).unwrap()
}

fn retention(store: &Store, level: Level) -> Cells {
    let question = Question::of(vec![Filter::any(), Filter::any()]);
    let kernel = Cohorts::new(question, weekly(), FROM, FROM + DATES).unwrap();
    cells(&store.scan(kernel, &[], level).matrix(()).unwrap())
}

fn retention_by_rows(events: &[Event]) -> Cells {
    let mut persons: HashMap<u64, CohortLog<Global>> = HashMap::new();
    for e in events {
        let log = persons.entry(e.hash).or_insert_with(|| CohortLog::new_in(weekly(), Global));
        log.push(e.time, true, true);
    }
    let mut matrix = Matrix::new_in(Global);
    for log in persons.values_mut() {
        for member in log.members(()) {
            matrix.push(member.cohort, &member.retained().collect::<Vec<_>>()).unwrap();
        }
    }
    cells(&matrix)
}

/// From headers alone, as an index has them; and counted, of one event.
fn actives(store: &Store) -> BTreeMap<i32, u64> {
    let mut dates = BTreeMap::new();
    for (date, slice) in &store.slices {
        *dates.entry(*date).or_insert(0) += View::read(&slice.core).unwrap().persons() as u64;
    }
    dates
}

fn buyers(store: &Store, level: Level) -> BTreeMap<i32, u64> {
    let question = Question::of(vec![Filter::event(ORDERED)]);
    store.scan(Persons::new(question, false), &[], level).dates().clone()
}

fn persons_by_rows(events: &[Event], which: impl Fn(&Event) -> bool) -> BTreeMap<i32, u64> {
    let mut dates: BTreeMap<i32, HashSet<u64>> = BTreeMap::new();
    for e in events.iter().filter(|e| which(e)) {
        dates.entry(e.time.div_euclid(DAY) as i32).or_default().insert(e.hash);
    }
    dates.into_iter().map(|(date, persons)| (date, persons.len() as u64)).collect()
}

fn trend(store: &Store, level: Level) -> BTreeMap<(i64, u32), u64> {
    let question = Question { value: Some(1), ..Question::of(vec![Filter::event(VIEWED)]) };
    store.scan(Trend::new(question, DAY), &[PLATFORM], level).counts().collect()
}

fn trend_by_rows(events: &[Event]) -> BTreeMap<(i64, u32), u64> {
    let mut counts = BTreeMap::new();
    for e in events.iter().filter(|e| e.event == VIEWED) {
        *counts.entry((e.time.div_euclid(DAY) * DAY, e.properties[0])).or_insert(0) += 1;
    }
    counts
}

fn sequence(store: &Store, level: Level) -> u64 {
    let pattern = Pattern::parse("(?1)(?t<=1h)(?2).*(?3)", 3).unwrap();
    let (mut memory, mut found) = (vec![], 0);
    let each =
        |_, rows: &[Row]| found += u64::from(pattern.matches(as_events(rows, &mut memory), Global, ()));
    store.scan(EachPerson::new(plain_question(), each), &[], level);
    found
}

fn edges(store: &Store, level: Level) -> HashMap<(u32, u32, u32), u64> {
    let mut edges = HashMap::new();
    let rules = PathRules { gap_us: GAP, start: None, end: None, items: 5 };
    let each = |_, rows: &[Row]| {
        paths(rows, rules, |e| *edges.entry((e.step, e.source, e.target)).or_insert(0) += 1);
    };
    store.scan(EachPerson::new(Question { value: Some(0), ..Question::all() }, each), &[], level);
    edges
}

fn timelines(c: &mut Criterion<OnProcessor>) {
    let n = std::env::var("EVENTS").map_or(2_000_000, |n| n.parse().unwrap());
    let rows = events(n);
    let begun = Instant::now();
    let builders = builders(&rows);
    let pushed = begun.elapsed();
    drop(builders);
    let begun = Instant::now();
    let store = Store::new(&rows);
    let built = begun.elapsed();
    let core: usize = store.slices.iter().map(|(_, s)| s.core.len()).sum();
    let property = |p: usize| store.slices.iter().map(|(_, s)| s.properties[p].len()).sum::<usize>() as f64;
    let persons: usize = store.slices.iter().map(|(_, s)| s.persons).sum();
    let of = |bytes: f64| bytes / n as f64;
    println!(
        "{n} events, {} slices of dates, {persons} person-dates; bytes an event: core {:.3}, platform {:.3}, \
         country {:.3}, page {:.3}; built in {:.0} ns an event, {:.0} of them to collect",
        store.slices.len(),
        of(core as f64),
        of(property(0)),
        of(property(1)),
        of(property(2)),
        built.as_nanos() as f64 / n as f64,
        pushed.as_nanos() as f64 / n as f64,
    );
    let level = Level::best();
    assert_eq!(levels(&store, plain_question(), &[], level), levels_by_rows(&rows, plain));
    let found = levels(&store, filtered_question(), &[COUNTRY, PAGE], level);
    assert_eq!(found, levels_by_rows(&rows, filtered));
    assert_eq!(by_country(&store, level), by_country_by_rows(&rows));
    assert_eq!(chains(&store, level), chains_by_rows(&rows));
    assert_eq!(chains_of_mode(&store, "", level), chains_by_rows(&rows));
    assert_eq!(sessions(&store, level), sessions_by_rows(&rows));
    assert_eq!(retention(&store, level), retention_by_rows(&rows));
    assert_eq!(actives(&store), persons_by_rows(&rows, |_| true));
    assert_eq!(buyers(&store, level), persons_by_rows(&rows, |e| e.event == ORDERED));
    assert_eq!(trend(&store, level), trend_by_rows(&rows));

    let today: Vec<Event> = rows.iter().filter(|e| e.time.div_euclid(DAY) == 9755).copied().collect();
    let closed = Open::new(&today, store.bits, 0);
    let open = Open::new(&today, store.bits, 10);
    assert_eq!(open.levels(level), closed.levels(level));
    assert_eq!(open.sessions(level), closed.sessions(level));

    let mut group = c.benchmark_group("timelines");
    group.throughput(Throughput::Elements(n as u64)).sample_size(20).warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(2));
    for (name, level) in [("", Level::best()), (", any processor", Level::plain())] {
        macro_rules! ask {
            ($title:literal, $ask:expr) => {
                group.bench_function(format!("{}{name}", $title), |b| b.iter(|| black_box($ask)));
            };
        }
        ask!("funnel", levels(&store, plain_question(), &[], level));
        ask!("funnel with filters", levels(&store, filtered_question(), &[COUNTRY, PAGE], level));
        ask!("funnel by country", by_country(&store, level));
        ask!("funnel of 7 steps", seven(&store, level));
        ask!("chains", chains(&store, level));
        ask!("chains by way of rows", chains_of_mode(&store, "", level));
        ask!("chains, strict_order", chains_of_mode(&store, "strict_order", level));
        ask!("sessions", sessions(&store, level));
        ask!("weekly retention", retention(&store, level));
        ask!("daily actives", actives(&store));
        ask!("daily buyers", buyers(&store, level));
        ask!("trend by platform", trend(&store, level));
        ask!("sequence", sequence(&store, level));
        ask!("paths", edges(&store, level));
    }
    group.throughput(Throughput::Elements(today.len() as u64));
    group.bench_function("a date: funnel", |b| b.iter(|| closed.levels(level)));
    group.bench_function("a date: funnel, a tenth in parts", |b| b.iter(|| open.levels(level)));
    group.bench_function("a date: sessions", |b| b.iter(|| closed.sessions(level)));
    group.bench_function("a date: sessions, a tenth in parts", |b| b.iter(|| open.sessions(level)));
    group.throughput(Throughput::Elements(n as u64)).sample_size(10);
    group.bench_function("build", |b| b.iter(|| Store::new(black_box(&rows)).slices.len()));
    if std::env::var_os("ROWS").is_some() {
        group.bench_function("rows: funnel", |b| b.iter(|| levels_by_rows(&rows, plain)));
        group.bench_function("rows: funnel with filters", |b| b.iter(|| levels_by_rows(&rows, filtered)));
        group.bench_function("rows: funnel by country", |b| b.iter(|| by_country_by_rows(&rows)));
        group.bench_function("rows: chains", |b| b.iter(|| chains_by_rows(&rows)));
        group.bench_function("rows: sessions", |b| b.iter(|| sessions_by_rows(&rows)));
        group.bench_function("rows: weekly retention", |b| b.iter(|| retention_by_rows(&rows)));
        group.bench_function("rows: daily actives", |b| b.iter(|| persons_by_rows(&rows, |_| true)));
        group.bench_function("rows: trend by platform", |b| b.iter(|| trend_by_rows(&rows)));
    }
    group.finish();
}

criterion_group!(name = benches; config = Criterion::default().with_measurement(OnProcessor); targets = timelines);
criterion_main!(benches);
