//! What an event costs in each algorithm, with nothing of Postgres around it: building the state, merging two halves,
//! reading the answer. `cargo bench -p tidemark-core --bench algorithms [-- FILTER]`; HyperLogLog has a file of its own.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark, not a program")]

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidemark_core::channel::channel_group;
use tidemark_core::ddsketch::{Accuracy, Sketch};
use tidemark_core::event::{Event, EventLog};
use tidemark_core::funnel::stats::FunnelStats;
use tidemark_core::funnel::{Funnel, Mode, WindowMode, window_funnel};
use tidemark_core::retention::cohort::{CohortLog, Spec};
use tidemark_core::retention::matrix::Matrix;
use tidemark_core::sequence::Pattern;
use tidemark_core::sequence::next_node::{NodeLog, Search};
use tidemark_core::session::{Sessionizer, Sessions};
use tidemark_core::{AVec, Global};

const EVENTS: usize = 10_000;
const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1_440 * MINUTE;

/// The events of one busy person: mostly short pauses, in order of time; one of eight conditions is true in each.
fn events() -> Vec<(i64, u32)> {
    let mut random = StdRng::seed_from_u64(42);
    let mut time = 0;
    (0..EVENTS)
        .map(|_| {
            time += if random.random_ratio(1, 8) {
                random.random_range(MINUTE..DAY)
            } else {
                random.random_range(0..3 * MINUTE)
            };
            (time, 1 << random.random_range(0..8))
        })
        .collect()
}

fn shuffled(mut events: Vec<(i64, u32)>) -> Vec<(i64, u32)> {
    let mut random = StdRng::seed_from_u64(7);
    for i in (1..events.len()).rev() {
        events.swap(i, random.random_range(0..=i));
    }
    events
}

fn group<'a>(c: &'a mut Criterion, name: &str, elements: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(elements as u64)).sample_size(20);
    group
}

fn sessions_of(events: &[(i64, u32)]) -> Sessions<Global> {
    let mut sessions = Sessions::new_in(30 * MINUTE, Global);
    events.iter().for_each(|&(time, _)| sessions.push(time, ()));
    sessions
}

fn sessions(c: &mut Criterion) {
    let (ordered, mixed) = (events(), shuffled(events()));
    let mut group = group(c, "sessions", EVENTS);
    group.bench_function("ordered", |b| b.iter(|| sessions_of(black_box(&ordered)).count(())));
    group.bench_function("shuffled", |b| b.iter(|| sessions_of(black_box(&mixed)).count(())));
    // 2,000 persons with 50 events each, all of them sessions of their own, in any order of rows.
    let scattered = shuffled((0..100_000).map(|i| (i / 2_000 * DAY, i as u32 % 2_000)).collect());
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("scattered, 2,000 persons", |b| {
        b.iter(|| {
            let mut persons: Vec<_> = (0..2_000).map(|_| Sessions::new_in(30 * MINUTE, Global)).collect();
            for &(time, person) in black_box(&scattered) {
                persons[person as usize].push(time, ());
            }
            persons.iter_mut().map(|person| person.count(())).sum::<usize>()
        });
    });
    group.throughput(Throughput::Elements(EVENTS as u64));
    let (left, right) = mixed.split_at(EVENTS / 2);
    let right = sessions_of(right);
    group.bench_function("merge of two shuffled halves", |b| {
        b.iter_batched_ref(
            || sessions_of(left),
            |left| left.merge(&right, ()).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("sessionize", |b| {
        b.iter(|| {
            let mut state = Sessionizer::new();
            for &(time, _) in black_box(&ordered) {
                black_box(state.next(Some(time), 30 * MINUTE, false).unwrap());
            }
        });
    });
    group.finish();
}

fn log_of(events: &[(i64, u32)]) -> EventLog<Global> {
    let mut log = EventLog::new_in(Global);
    events.iter().for_each(|&(time, conditions)| log.push(time, conditions));
    log
}

fn log(c: &mut Criterion) {
    let (ordered, mixed) = (events(), shuffled(events()));
    let mut group = group(c, "event log", EVENTS);
    group.bench_function("push and sort, ordered", |b| {
        b.iter(|| log_of(black_box(&ordered)).sorted(()).len())
    });
    group
        .bench_function("push and sort, shuffled", |b| b.iter(|| log_of(black_box(&mixed)).sorted(()).len()));
    group.finish();
}

fn sorted_events() -> Vec<Event> {
    log_of(&events()).sorted(()).to_vec()
}

fn funnel(c: &mut Criterion) {
    let events = sorted_events();
    let mut group = group(c, "funnel", EVENTS);
    for mode in ["", "strict_order", "strict_deduplication", "strict_increase", "strict_once"] {
        let parsed = WindowMode::parse(mode).unwrap();
        group.bench_function(format!("window_funnel {mode}"), |b| {
            b.iter(|| window_funnel(black_box(&events), 8, 7 * DAY, parsed, ()));
        });
    }
    for mode in ["", "strict_order", "optional=3", "any_order"] {
        let funnel = Funnel::new(Mode::parse(mode).unwrap(), 8, 7 * DAY).unwrap();
        let mut chain = AVec::new_in(Global);
        group.bench_function(format!("funnel {mode}"), |b| {
            b.iter(|| {
                chain.clear();
                funnel.run(black_box(&events), &mut chain, ());
                chain.len()
            });
        });
    }
    // Nobody gets to the last step, so every row counts.
    let incomplete: Vec<_> = events.iter().filter(|e| e.conditions & 1 << 7 == 0).copied().collect();
    // Thirty rows at each instant, each of them fit for every step but the last.
    let ties: Vec<_> =
        (0..EVENTS).map(|i| Event { time: i as i64 / 30, conditions: (1 << 31) - 1 }).collect();
    for (name, events, steps) in [("incomplete", &incomplete, 8), ("ties", &ties, 32)] {
        for mode in ["", "step_window=7d", "strict_order", "any_order"] {
            let funnel = Funnel::new(Mode::parse(mode).unwrap(), steps, DAY).unwrap();
            let mut chain = AVec::new_in(Global);
            group.bench_function(format!("{name}: funnel {mode}"), |b| {
                b.iter(|| {
                    funnel.run(black_box(events), &mut chain, ());
                    chain.len()
                });
            });
        }
        for mode in ["", "strict_once"] {
            let parsed = WindowMode::parse(mode).unwrap();
            group.bench_function(format!("{name}: window_funnel {mode}"), |b| {
                b.iter(|| window_funnel(black_box(events), steps, DAY, parsed, ()));
            });
        }
    }
    let chain: Vec<Option<i64>> = (0..8).map(|i| Some(i * DAY)).collect();
    group.throughput(Throughput::Elements(1));
    let mut stats = FunnelStats::new_in(8, Global).unwrap();
    group.bench_function("funnel_stats, one chain of 8", |b| {
        b.iter(|| stats.push(black_box(&chain)).unwrap())
    });
    group.finish();
}

fn sequence(c: &mut Criterion) {
    let events = sorted_events();
    let mut group = group(c, "sequence", EVENTS);
    for pattern in ["(?1).*(?2)", "(?1)(?t<=3600)(?2).*(?3)", "(?1)(?2)(?3)"] {
        let compiled = Pattern::parse(pattern, 8).unwrap();
        group.bench_function(format!("match {pattern}"), |b| {
            b.iter(|| compiled.matches(black_box(&events), Global, ()))
        });
        group.bench_function(format!("count {pattern}"), |b| {
            b.iter(|| compiled.count(black_box(&events), Global, ()))
        });
    }
    let search = Search::parse("forward", "head", 2).unwrap();
    group.bench_function("next node", |b| {
        b.iter(|| {
            let mut log = NodeLog::new_in(Global);
            events.iter().for_each(|e| log.push(e.time, b"/page", e.conditions & 1 != 0, e.conditions));
            log.next_node(search, ()).map(<[u8]>::len)
        });
    });
    group.finish();
}

fn retention(c: &mut Criterion) {
    let mixed = shuffled(events());
    let mut group = group(c, "retention", EVENTS);
    for mode in ["", "rolling", "on_or_after,recurring"] {
        let spec = Spec::parse("week", mode, 12, i64::MAX).unwrap();
        group.bench_function(format!("cohort of a person {mode}"), |b| {
            b.iter(|| {
                let mut log = CohortLog::new_in(spec, Global);
                mixed.iter().for_each(|&(time, conditions)| log.push(time, conditions & 1 != 0, true));
                log.members(()).count()
            });
        });
    }
    let retained: Vec<Option<bool>> = (0..12).map(|i| Some(i % 3 == 0)).collect();
    group.throughput(Throughput::Elements(1));
    group.bench_function("matrix, one person of 12 weeks", |b| {
        let mut matrix = Matrix::new_in(Global);
        b.iter(|| matrix.push(black_box(0), &retained).unwrap());
    });
    group.finish();
}

fn sketch_of(values: &[f64]) -> Sketch<Global> {
    let mut sketch = Sketch::new_in(Accuracy::default(), Global);
    values.iter().for_each(|&value| sketch.insert(value).unwrap());
    sketch
}

fn ddsketch(c: &mut Criterion) {
    let mut random = StdRng::seed_from_u64(42);
    let values: Vec<f64> = (0..EVENTS).map(|_| 1.0 / random.random::<f64>().max(1e-6)).collect();
    let mut group = group(c, "ddsketch", EVENTS);
    group.bench_function("insert", |b| b.iter(|| sketch_of(black_box(&values)).count()));
    let (left, right) = values.split_at(EVENTS / 2);
    let (left, right) = (sketch_of(left), sketch_of(right));
    let mut bytes = AVec::new_in(Global);
    left.encode(&mut bytes);
    group.throughput(Throughput::Elements(1));
    group.bench_function("merge", |b| {
        b.iter_batched_ref(
            || Sketch::decode_in(&bytes, Global).unwrap(),
            |left| left.merge(&right).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("quantile", |b| b.iter(|| left.quantile(black_box(0.95)).unwrap()));
    group.finish();
}

fn channel(c: &mut Criterion) {
    let mut group = group(c, "channel", 1);
    for (name, source, medium, referrer) in [
        ("paid", Some("google"), Some("cpc"), None),
        ("organic", None, None, Some("www.google.co.uk")),
        ("referral", None, None, Some("blog.example.org")),
        ("direct", None, None, None),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| channel_group(black_box(source), medium, None, referrer, None))
        });
    }
    group.finish();
}

criterion_group!(benches, sessions, log, funnel, sequence, retention, ddsketch, channel);
criterion_main!(benches);
