//! Values of timelines: read, checked, asked every kind of question, written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::retention::cohort::Spec;
use tidemark_core::timeline::{
    Builder, Codes, Cohorts, Corrupt, EachPerson, Encoded, Filter, FirstLast, Kernel, Level, PathRules,
    Persons, Question, Reached, Row, Scan, SessionRuns, Source, Steps, Trend, View, check_counts, each_cell,
    paths, seal,
};
use tidemark_fuzz::{bounded, joined, parts, seeds};

const DAY: i64 = 86_400_000_000;

fn encoded(rows: &[(u64, i64, u32, u32)]) -> Encoded {
    let mut builder = Builder::new(1);
    for &(hash, time, event, code) in rows {
        builder.push(hash, time, event, &[code]).expect("one property");
    }
    builder.finish(0, ()).next().expect("there are rows").expect("one date")
}

fn examples() -> Vec<Vec<u8>> {
    let mut builder = Builder::new(1);
    (0..9)
        .for_each(|i| builder.push(1, i64::from(i) * 1_000_000_000, i % 3, &[i % 2]).expect("one property"));
    let counts = builder.counts(());
    let many: Vec<_> =
        (0..200u32).map(|i| (u64::from(i % 7), i64::from(i / 2) * 1000, i % 5, i % 70)).collect();
    [
        encoded(&[(1, 5_000_000, 1, 0)]),
        encoded(&[(1, 5, 1, 3), (1, 5, 2, 1), (u64::MAX, DAY - 1, 0, 9), (1, DAY - 1, 1, 9)]),
        encoded(&many),
    ]
    .iter()
    .map(|slice| joined(&[&slice.core, &slice.properties[0]]))
    .chain(counts.into_iter().flatten())
    .collect()
}

/// Asks a question of one part, and of it twice, as if they were two.
fn ask<K: Kernel>(source: &Source<'_>, date: i32, kernel: impl Fn() -> K) {
    for level in [Level::plain(), Level::best()] {
        for twice in [false, true] {
            let mut scan = Scan::new(kernel(), 0, level).expect("few conditions");
            let read = match twice {
                true => scan.read(0, date, &[source.clone(), source.clone()], ()),
                false => scan.read(0, date, std::slice::from_ref(source), ()),
            };
            read.expect("its own date");
            scan.finish(());
        }
    }
}

fn ask_all(source: &Source<'_>, date: i32) {
    let steps = || Question::of((0..3).map(Filter::event).collect());
    let valued = || Question { value: Some(1), ..steps() };
    ask(source, date, || EachPerson::new(valued(), |_, rows: &[Row]| assert!(rows.is_sorted())));
    let rules = PathRules { gap_us: 1000, start: None, end: Some(1), items: 3 };
    ask(source, date, || EachPerson::new(valued(), |_, rows: &[Row]| paths(rows, rules, |_| ())));
    let each = |reached: Reached<'_>| assert!((1..=3).contains(&reached.level));
    ask(source, date, || Steps::<3, 1, 0, _>::new(steps(), 1000, 0, each).expect("three steps"));
    ask(source, date, || Steps::<3, 3, 1, _>::new(valued(), 1000, 1, each).expect("three steps"));
    ask(source, date, || SessionRuns::new(Question::all(), 1000, |_, session| assert!(session.events > 0)));
    ask(source, date, || Persons::new(steps(), true));
    ask(source, date, || Trend::new(valued(), DAY));
    ask(source, date, || FirstLast::new(valued(), |_, _, _| ()));
    let spec = Spec::parse("day", "", 3, i64::MAX).expect("valid");
    let two = Question::of((0..2).map(Filter::event).collect());
    ask(source, date, || Cohorts::new(two.clone(), spec, date, date + 1).expect("one day"));
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let mut counts = data.to_vec();
    seal(&mut counts);
    if check_counts(&counts).is_ok() {
        let mut rows = 0u64;
        let counted = each_cell(&counts, |cell| rows += cell.rows).expect("it was checked");
        assert_eq!(counted, rows > 0);
    }
    let [core, codes] = parts(data);
    let (mut core, mut codes) = (core.into_owned(), codes.into_owned());
    let Ok(before) = View::read(&core) else { return };
    let stored = before.check();
    seal(&mut core);
    // Codes are tied to the core by its checksum.
    if codes.len() >= 16 && core.len() >= 16 {
        codes[8..12].copy_from_slice(&core[12..16]);
    }
    seal(&mut codes);
    let view = View::read(&core).expect("the checksum is not looked at");
    let whole = view.check();
    assert!(stored == whole || stored == Err(Corrupt::Checksum));
    let codes = Codes::read(&codes).ok();
    let proper = whole.is_ok() && codes.is_some_and(|codes| codes.check().is_ok());
    let Ok(source) = Source::new(view, codes.into_iter().collect()) else { return };
    if codes.is_some() && let Ok(date) = i32::try_from(view.date()) && date < i32::MAX {
        bounded(data.len(), 4096, || ask_all(&source, date));
    }
    // What is accepted is what would be written, but for the order of rows that differ in their properties only.
    if whole.is_ok() {
        let mut builder = Builder::new(usize::from(codes.is_some()));
        builder.add(&source).expect("as many properties");
        let again: Vec<_> = builder.finish(0, ()).map(|slice| slice.expect("it was written before")).collect();
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].core, core);
        assert!(!proper || again[0].properties.iter().all(|p| Codes::read(p).is_ok_and(|p| p.check().is_ok())));
    }
});
