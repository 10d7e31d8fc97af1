//! What `tidemark load` and `produce` read: compressed files, several files, byte order marks, files cut short. What
//! becomes of their lines is in `load`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, Generated, assert_books, assert_exact, id, line};
use tidemark_tests::process::{Finished, tidemark};
use tidemark_tests::wait_until;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn load(database: &Database<'_>, files: &[&Path]) -> Finished {
    let mut arguments = vec!["load", "--batch-rows", "2000"];
    arguments.extend(files.iter().map(|f| f.to_str().unwrap()));
    tidemark(&arguments).database(&database.loader_url()).run()
}

fn nothing_to_do(finished: &Finished) -> bool {
    finished.stdout.contains("were read before, nothing to do")
}

#[test]
fn a_compressed_file_is_the_same_file() {
    let file =
        Generated::new("--events 8000 --days 3 --users 200 --seed 41 --malformed 0.01 --duplicates 0.01");
    let content = std::fs::read(&file.path).unwrap();
    let middle = content.len() / 2;
    let forms: Vec<PathBuf> = [
        gzip(&content),
        [gzip(&content[..middle]), gzip(&content[middle..])].concat(),
        zstd::stream::encode_all(content.as_slice(), 3).unwrap(),
    ]
    .iter()
    .map(|bytes| events::file(bytes))
    .collect();
    for first in &forms {
        let database = cluster::shared().database();
        let counts = load(&database, &[first]).ok().counts();
        assert_eq!((counts.read, counts.dead), (file.number("lines"), file.number("malformed")));
        assert_exact(&database, &file.path);
        // Every other form of it, the plain one included, was loaded with it.
        for other in forms.iter().chain([&file.path]) {
            assert!(nothing_to_do(&load(&database, &[other]).ok()));
        }
        assert_exact(&database, &file.path);
    }
}

#[test]
fn a_load_of_a_compressed_file_that_was_killed_goes_on_with_the_plain_one() {
    let database = cluster::shared().database();
    let file = crate::big_file();
    let compressed = events::file(&gzip(&std::fs::read(&file.path).unwrap()));
    let process = tidemark(&["load", compressed.to_str().unwrap(), "--batch-rows", "2000"])
        .database(&database.loader_url())
        .start();
    let position = "SELECT coalesce(sum(next_offset), 0) FROM loader.offsets";
    wait_until("the load to get on", Duration::from_secs(120), || database.number(position) >= 30_000);
    process.kill_9();
    database.settle();
    let done = database.number(position) as u64;
    assert!(done < file.number("lines"), "nothing was left");
    assert_eq!(load(&database, &[&file.path]).ok().counts().read, file.number("lines") - done);
    assert_exact(&database, &file.path);
}

#[test]
fn a_file_cut_short_is_refused_and_a_pipe_cut_short_keeps_what_came() {
    let file = Generated::new("--events 5000 --days 2 --users 100 --seed 42 --malformed 0 --duplicates 0");
    let content = std::fs::read(&file.path).unwrap();
    for whole in [gzip(&content), zstd::stream::encode_all(content.as_slice(), 1).unwrap()] {
        let database = cluster::shared().database();
        let cut = events::file(&whole[..whole.len() * 2 / 3]);
        let refused = load(&database, &[&cut]);
        assert!(refused.refused(66).contains("cut short"), "{}", refused.stderr);
        assert_eq!(database.number("SELECT count(*) FROM bronze.events"), 0);

        let piped = tidemark(&["load", "-"]).database(&database.loader_url()).stdin(&cut).run();
        // Not `refused`: on a busy machine lines about the progress come before.
        assert_eq!(piped.code, Some(66), "{}", piped.stderr);
        assert!(piped.stderr.contains("cut short"), "{}", piped.stderr);
        let loaded = database.number("SELECT count(*) FROM bronze.events");
        assert!(loaded > 0 && loaded < file.number("events") as i64, "{loaded}");
        assert!(piped.stderr.contains(&format!("{loaded} whole records")), "{}", piped.stderr);
        assert_eq!(database.number("SELECT count(*) FROM loader.dead_letters"), 0, "half a line is no line");
        assert_books(&database);

        let counts = load(&database, &[&events::file(&whole)]).ok().counts();
        assert_eq!((counts.loaded + loaded as u64, counts.duplicate), (file.number("events"), loaded as u64));
    }
}

#[test]
fn standard_input_may_be_compressed() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 2000 --days 2 --users 50 --seed 43 --malformed 0");
    let compressed = events::file(&gzip(&std::fs::read(&file.path).unwrap()));
    let piped = tidemark(&["load", "-"]).database(&database.loader_url()).stdin(&compressed).run().ok();
    assert_eq!(piped.counts().loaded, file.number("events"));
    assert_exact(&database, &file.path);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_event() {
    let database = cluster::shared().database();
    let lines: Vec<String> = (1..=2).map(|n| line(n, "u", "2026-09-01T10:00:00Z")).collect();
    let marked = format!("\u{feff}{}\n{}\n", lines[0], lines[1]);
    let counts = load(&database, &[&events::file(marked.as_bytes())]).ok().counts();
    assert_eq!((counts.loaded, counts.dead), (2, 0));
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), [id(1), id(2)]);
    // Files that were put together have one in their middle; within a line it is what it is.
    let later = format!("{}\n\u{feff}{}\n", lines[0], lines[1]);
    assert_eq!(load(&database, &[&events::file(later.as_bytes())]).ok().counts().duplicate, 2);
    // The mark alone is an empty line.
    assert_eq!(load(&database, &[&events::file("\u{feff}\n".as_bytes())]).ok().counts().filtered, 1);
}

#[test]
fn arrays_pretty_objects_tables_and_archives_are_loaded_record_by_record() {
    let database = cluster::shared().database();
    let lines: Vec<String> = (0..40).map(|n| line(n, "u", "2026-09-01T10:00:00Z")).collect();
    let array = format!("[{}]", lines[..10].join(",\n"));
    let pretty: String =
        lines[10..20].iter().map(|line| line.replace(",\"", ",\n  \"").replace('}', "\n}\n")).collect();
    let mut csv = "messageId;event;timestamp;userId\n".to_owned();
    for n in 20..30 {
        csv += &format!("{};\"a \"\"view\"\"; here\";2026-09-01T10:00:00Z;u\n", id(n));
    }
    let mut archive = tar::Builder::new(Vec::new());
    for (n, line) in lines[30..].iter().enumerate() {
        let content = gzip(line.as_bytes());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, format!("export/{n}.json.gz"), content.as_slice()).unwrap();
    }
    let archive = archive.into_inner().unwrap();
    for (n, form) in [array.as_bytes(), pretty.as_bytes(), csv.as_bytes(), &archive].into_iter().enumerate() {
        let counts = load(&database, &[&events::file(form)]).ok().counts();
        assert_eq!((counts.read, counts.loaded), (10, 10), "form {n}");
        let ids: Vec<String> = (0..10 * (n as u64 + 1)).map(id).collect();
        assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), ids);
    }
    let of_table =
        "SELECT DISTINCT event_type FROM bronze.events WHERE payload ? 'userId' AND event_type LIKE 'a %'";
    assert_eq!(database.column(of_table), ["a \"view\"; here"]);
    assert_books(&database);
}

#[test]
fn what_is_no_file_of_events_is_refused_before_its_first_record() {
    let database = cluster::shared().database();
    let utf16: Vec<u8> = "{\"a\": 1}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let broken = format!("[{}, {{\"event\": ", line(1, "u", "2026-09-01T10:00:00Z"));
    for (content, why) in [
        (utf16.as_slice(), "iconv -f UTF-16"),
        (b"\x89PNG\r\n\x1a\n\x00", "holds no events"),
        (b"Dear reader,\nhello\n", "holds no events"),
        (broken.as_bytes(), "ends in the middle of record 2"),
    ] {
        let refused = load(&database, &[&events::file(content)]);
        assert!(refused.refused(66).contains(why), "{}", refused.stderr);
    }
    assert_eq!(database.number("SELECT count(*) FROM bronze.events"), 0);
    assert_eq!(database.number("SELECT count(*) FROM loader.dead_letters"), 0);
    assert_eq!(database.number("SELECT count(*) FROM loader.offsets"), 0);
}

#[test]
fn a_file_of_which_nothing_is_loaded_is_a_failure_that_says_how_to_try_again() {
    let database = cluster::shared().database();
    let content: String = (1..=2)
        .map(|n| format!("{{\"id\":\"{}\",\"name\":\"x\",\"at\":\"2026-09-01T10:00:00Z\"}}\n", id(n)))
        .collect();
    let path = events::file(content.as_bytes());
    let load = |time: &str, more: &[&str]| {
        let time = format!("event_time=/{time}");
        let mut arguments = vec![
            "load",
            path.to_str().unwrap(),
            "--envelope",
            "event_id=/id",
            "--envelope",
            "event_type=/name",
        ];
        arguments.extend(["--envelope", &time]);
        arguments.extend(more);
        tidemark(&arguments).database(&database.loader_url()).run()
    };
    let first = load("ts", &[]);
    assert_eq!(first.code, Some(66), "{}", first.stderr);
    assert_eq!(first.counts().dead, 2);
    assert!(first.stderr.contains("nothing was loaded of"), "{}", first.stderr);
    let topic = database.value("SELECT topic FROM loader.offsets");
    let command = format!("tidemark dead-letters replay --topic {topic}");
    assert!(first.stderr.contains(&command), "{}", first.stderr);
    // The mapping is mended: the file was read, and what it says helps.
    let again = load("at", &[]).ok();
    assert!(
        again.stdout.contains("2 of them became dead letters") && again.stdout.contains(&command),
        "{}",
        again.stdout
    );
    let restarted = load("at", &["--restart"]).ok().counts();
    assert_eq!((restarted.read, restarted.loaded), (2, 2));
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), [id(1), id(2)]);
    assert_eq!(load("at", &["--restart"]).ok().counts().duplicate, 2);
    assert_books(&database);
}

#[test]
fn a_directory_stands_for_the_files_in_it() {
    let database = cluster::shared().database();
    let directory = events::file(b"").with_extension("d");
    std::fs::create_dir_all(directory.join("more")).unwrap();
    for (n, name) in ["b.ndjson", "a.json", "more/c", ".hidden"].iter().enumerate() {
        std::fs::write(directory.join(name), line(n as u64, "u", "2026-09-01T10:00:00Z")).unwrap();
    }
    let counts = load(&database, &[&directory]).ok().counts();
    assert_eq!((counts.read, counts.loaded), (3, 3));
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), [id(0), id(1), id(2)]);
}

#[test]
fn several_files_are_loaded_one_after_the_other() {
    let database = cluster::shared().database();
    let file = |n| events::file(format!("{}\n", line(n, "u", "2026-09-01T10:00:00Z")).as_bytes());
    let (a, b, c) = (file(1), file(2), file(3));
    load(&database, &[&b]).ok();
    // A name that is wrong comes to light before anything is loaded.
    let missing = load(&database, &[&a, Path::new("/nowhere/x")]);
    assert!(missing.refused(66).contains("/nowhere/x"), "{}", missing.stderr);
    assert_eq!(database.column("SELECT event_id FROM bronze.events"), [id(2)]);
    let finished = load(&database, &[&a, &b, &c]).ok();
    assert!(nothing_to_do(&finished), "{}", finished.stdout);
    assert_eq!((finished.counts().read, finished.counts().loaded), (2, 2));
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), [id(1), id(2), id(3)]);
    assert_books(&database);
}
