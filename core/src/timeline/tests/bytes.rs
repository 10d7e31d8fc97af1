//! The bytes: canonical, small, and refused when they are anything else.

use super::*;

fn read(core: &[u8]) -> Result<View<'_>, Corrupt> {
    let view = View::read(core)?;
    view.check()?;
    Ok(view)
}

fn read_codes(bytes: &[u8]) -> Result<(), Corrupt> {
    Codes::read(bytes)?.check()
}

/// The rows of a value, as they were given, in their order.
fn decoded(slice: &Encoded) -> Vec<(u64, i64, [u32; 3])> {
    let source = source(slice);
    let mut rows = vec![];
    for person in 0..source.view.persons() {
        for row in source.view.rows_of(&(person..person + 1)) {
            let code = |column| source.column(column).unwrap().code(row);
            rows.push((source.view.hash(person), source.view.time(row), [code(0), code(1), code(2)]));
        }
    }
    rows
}

fn key(row: &Given) -> (u64, i64, [u32; 3]) {
    (row.hash(), row.time, row.codes())
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn what_is_written_is_read_back_and_the_order_of_rows_leaves_no_trace(
        rows in histories(), bits in 0u32..4, turn in 0usize..40
    ) {
        let slices = encode(&rows, bits);
        let mut turned = rows.clone();
        turned.rotate_left(turn.min(rows.len()));
        turned.reverse();
        prop_assert_eq!(&slices, &encode(&turned, bits));
        let mut expected: Vec<_> = rows.iter().map(key).collect();
        expected.sort_unstable();
        let mut all = vec![];
        for slice in &slices {
            prop_assert_eq!(read(&slice.core).map(|v| (v.rows(), v.persons())), Ok((slice.rows, slice.persons)));
            for property in &slice.properties {
                prop_assert_eq!(read_codes(property), Ok(()));
            }
            let rows = decoded(slice);
            prop_assert!(rows.iter().all(|row| slice_of(row.0, bits) == slice.slice));
            all.extend(rows);
        }
        prop_assert_eq!(all, expected);
    }

    #[test]
    fn compacted_parts_are_the_whole(rows in histories(), bits in 0u32..3) {
        let mut by_part: BTreeMap<u8, Vec<Given>> = BTreeMap::new();
        rows.iter().for_each(|row| by_part.entry(row.part).or_default().push(*row));
        let parts: Vec<Encoded> = by_part.values().flat_map(|rows| encode(rows, 0)).collect();
        // Each slice by itself, and all at once.
        let mut by_slice = vec![];
        let mut at_once = Builder::new(2);
        for slice in 0..1 << bits {
            let mut builder = Builder::new(2);
            for part in &parts {
                source(part).of_slice(slice, bits).iter().for_each(|part| builder.add(part).unwrap());
            }
            by_slice.extend(builder.finish(bits, ()).map(Result::unwrap));
        }
        parts.iter().for_each(|part| at_once.add(&source(part)).unwrap());
        let all: Vec<_> = at_once.finish(bits, ()).map(Result::unwrap).collect();
        prop_assert_eq!(&all, &encode(&rows, bits));
        prop_assert_eq!(&by_slice, &all);
    }

    #[test]
    fn altered_and_truncated_bytes_are_refused(rows in histories(), at: usize, flip in 1u8.., cut: usize) {
        for slice in encode(&rows, 1) {
            for (bytes, core) in [(&slice.core, true), (&slice.properties[1], false)] {
                let check = |bytes: &[u8]| if core { read(bytes).map(|_| ()) } else { read_codes(bytes) };
                let cheap = |bytes: &[u8]| {
                    if core { View::read(bytes).map(|_| ()) } else { Codes::read(bytes).map(|_| ()) }
                };
                prop_assert!(cheap(&bytes[..cut % bytes.len()]).is_err());
                prop_assert!(cheap(&[&bytes[..], &[0]].concat()).is_err());
                let mut altered = bytes.clone();
                altered[at % bytes.len()] ^= flip;
                prop_assert!(check(&altered).is_err());
            }
        }
    }

    /// Whoever can write a value can write its checksum; then the rest must be found.
    #[test]
    fn another_form_of_the_same_is_refused(rows in histories(), at: usize, flip in 1u8..) {
        for slice in encode(&rows, 1) {
            let mut altered = slice.core.clone();
            altered[at % slice.core.len()] ^= flip;
            seal(&mut altered);
            let Ok(view) = read(&altered) else { continue };
            // What is accepted is what would be written of the rows in it.
            let mut builder = Builder::new(0);
            builder.add(&Source::new(view, vec![]).unwrap()).unwrap();
            let again: Vec<_> = builder.finish(0, ()).map(|slice| slice.unwrap().core).collect();
            prop_assert_eq!(again, [altered]);
        }
    }

    #[test]
    fn bytes_that_were_never_checked_do_not_panic(
        rows in histories(), question in questions(),
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8)
    ) {
        let Some(mut slice) = encode(&rows, 0).pop() else { return Ok(()) };
        for (at, byte) in damage {
            let len = slice.core.len();
            slice.core[at % len] = byte;
        }
        let Ok(view) = View::read(&slice.core) else { return Ok(()) };
        let Ok(codes) = slice.properties.iter().map(|p| Codes::read(p)).collect() else { return Ok(()) };
        let Ok(source) = Source::new(view, codes) else { return Ok(()) };
        let date = view.date() as i32;
        for level in [Level::plain(), Level::best()] {
            let sorted = |_, rows: &[Row]| assert!(rows.is_sorted());
            let mut scan = Scan::new(EachPerson::new(question.clone(), sorted), 0, level).unwrap();
            let _ = scan.read(0, date, &[source.clone(), source.clone()], ());
            scan.finish(());
            let mut scan = Scan::new(SessionRuns::new(Question::all(), 5, |_, _| ()), 0, level).unwrap();
            let _ = scan.read(0, date, std::slice::from_ref(&source), ());
            scan.finish(());
        }
    }
}

#[test]
fn a_value_says_what_is_wrong_with_it() {
    let rows = [(1, 5), (1, 5), (2, 7)].map(|(person, time)| Given {
        person,
        time,
        event: 3,
        properties: [0, 2],
        part: 0,
    });
    let slices = encode(&rows, 0);
    let Encoded { core, properties, .. } = &slices[0];
    let error = |bytes: &[u8]| View::read(bytes).unwrap_err().to_string();
    assert_eq!(error(&core[..5]), "timeline is truncated: 5 bytes are no header");
    assert_eq!(
        error(&core[..core.len() - 1]),
        format!("timeline has {} bytes, its header says {}", core.len() - 1, core.len())
    );
    assert_eq!(error(&[&properties[1][..], &[0; 8]].concat()), "timeline is of kind 112, expected 116");
    assert_eq!(error(&[&[9], &core[1..]].concat()), "timeline has format version 9, this build reads 1");
    let mut altered = core.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(View::read(&altered).unwrap().check(), Err(Corrupt::Checksum));
    // All codes of the first property are 0: no planes at all.
    assert_eq!(properties[0].len(), 16);
    let other = encode(&rows[1..], 0);
    let foreign = Source::new(View::read(core).unwrap(), vec![Codes::read(&other[0].properties[0]).unwrap()]);
    assert_eq!(foreign.unwrap_err().to_string(), "codes of property 1 do not belong to this timeline");
}

/// Version 1, for ever.
#[test]
fn golden_bytes() {
    let mut builder = Builder::new(1);
    for (hash, ms, event, code) in [(7, 2, 1, 3), (5, 1, 2, 0), (7, 2, 1, 1)] {
        builder.push(hash, ms * 1000, event, &[code]).unwrap();
    }
    let slices: Vec<_> = builder.finish(8, ()).map(Result::unwrap).collect();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let word = |n: u64| hex(&n.to_le_bytes());
    let int = |n: u32| hex(&n.to_le_bytes());
    let sum = |bytes: &[u8]| hex(&bytes[12..16]);
    let Encoded { slice, rows, persons, core, properties } = &slices[0];
    assert_eq!((*slice, *rows, *persons, slices.len()), (0, 3, 2, 1));
    let arrays =
        [word(5), word(7), word(0b011), word(0b100), int(0), int(1), int(1), word(0b110), word(0b001)];
    let header = ["01740902".to_owned(), int(3), int(2), sum(core), word(1)];
    assert_eq!(hex(core), header.concat() + &arrays.concat());
    let header = ["01700200".to_owned(), int(3), sum(core), sum(&properties[0])];
    assert_eq!(hex(&properties[0]), header.concat() + &word(0b110) + &word(0b100));
    assert_eq!((sum(core), sum(&properties[0])), ("c577d94f".to_owned(), "c12a436e".to_owned()));
}

#[test]
fn rows_that_cannot_be_written_are_refused() {
    let mut builder = Builder::new(1);
    let properties = BuildError::Properties { found: 2, expected: 1 };
    assert_eq!(builder.push(0, 0, 0, &[0, 0]), Err(properties));
    builder.push(0, i64::MIN, 0, &[0]).unwrap();
    builder.push(0, i64::MAX, 0, &[0]).unwrap();
    assert_eq!(builder.finish(0, ()).next(), Some(Err(BuildError::Span)));
    let mut builder = Builder::new(0);
    builder.push(0, i64::MAX, 0, &[]).unwrap();
    assert_eq!(builder.finish(0, ()).next(), Some(Err(BuildError::Span)));
}

#[test]
fn slices_are_read_in_order_and_where_they_belong() {
    let at = |person, date: i64| Given { person, time: date * DAY, event: 0, properties: [0; 2], part: 0 };
    let one = encode(&[at(1, 3)], 0);
    let slice = slice_of(at(1, 3).hash(), 8);
    let scan = || Scan::new(Persons::new(Question::all(), true), 8, Level::best()).unwrap();
    assert_eq!(scan().read(slice, 3, &[source(&one[0])], ()), Ok(()));
    assert_eq!(scan().read(slice, 4, &[source(&one[0])], ()), Err(ScanError::Place { slice, date: 4 }));
    let place = ScanError::Place { slice: slice ^ 1, date: 3 };
    assert_eq!(scan().read(slice ^ 1, 3, &[source(&one[0])], ()), Err(place));
    let mut twice = scan();
    twice.read(slice, 3, &[source(&one[0])], ()).unwrap();
    let order = ScanError::Order { slice, date: 3, last_slice: slice, last_date: 3 };
    assert_eq!(twice.read(slice, 3, &[source(&one[0])], ()), Err(order));
    let value = Question { value: Some(3), ..Question::all() };
    let mut missing = Scan::new(EachPerson::new(value, |_, _| ()), 8, Level::best()).unwrap();
    assert_eq!(missing.read(slice, 3, &[source(&one[0])], ()), Err(ScanError::Property(3)));
    let many = Question::of(vec![Filter::any(); 33]);
    let refused = Scan::new(EachPerson::new(many, |_, _| ()), 8, Level::best());
    assert_eq!(refused.err(), Some(ScanError::Conditions(33)));
}
