//! What wraps events leaves no trace in them; what is no file of events is refused.

use std::io::Write;

use super::*;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(content, 1).unwrap()
}

fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Made by `xz -c`, of "a\nb\n".
const XZ: &[u8] = include_bytes!("tests.xz");

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, content) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Gives a few bytes at a time, as a slow pipe does.
struct Slow(io::Cursor<Vec<u8>>, usize);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(self.1);
        self.0.read(&mut buffer[..n])
    }
}

fn records(content: Content, keep: usize) -> io::Result<Vec<(String, Option<u64>)>> {
    let mut records = Records::new(content);
    let (mut record, mut all) = (Record::new(keep), Vec::new());
    while records.read(&mut record)? {
        let text = String::from_utf8_lossy(&record.bytes).into_owned();
        all.push((text, record.oversize.as_ref().map(|o| o.bytes)));
    }
    Ok(all)
}

fn read(bytes: &[u8]) -> io::Result<Vec<String>> {
    let mut first = None;
    for step in [1, 7, 1 << 20] {
        let progress = Progress::default();
        let content = stream(Slow(io::Cursor::new(bytes.to_vec()), step), progress)?;
        let found = records(content, 1000)?.into_iter().map(|(text, _)| text).collect::<Vec<_>>();
        assert_eq!(*first.get_or_insert_with(|| found.clone()), found, "steps of {step}");
    }
    Ok(first.unwrap_or_default())
}

fn read_file(bytes: &[u8]) -> io::Result<Vec<String>> {
    let path = std::env::temp_dir().join(format!("tidemark-file-{}", Uuid::new_v4()));
    std::fs::write(&path, bytes)?;
    let found = open(&path, Progress::default()).and_then(|content| records(content, 1000));
    std::fs::remove_file(&path)?;
    Ok(found?.into_iter().map(|(text, _)| text).collect())
}

fn error(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

#[test]
fn every_line_end_is_understood() {
    assert_eq!(read(b"{}\r\n\n{\xff\n\r\n{last").unwrap(), ["{}", "", "{\u{fffd}", "", "{last"]);
    assert_eq!(read(b"").unwrap(), [""; 0]);
    assert_eq!(read(b"\n").unwrap(), [""]);
    assert_eq!(read(b"{}\n").unwrap(), ["{}"]);
    assert_eq!(read(b"no event\n{}\n").unwrap(), ["no event", "{}"]);
}

#[test]
fn byte_order_marks_are_taken_off_where_texts_begin() {
    assert_eq!(
        read(b"\xef\xbb\xbf{}\n{\xef\xbb\xbf}\n\xef\xbb\xbf{1}").unwrap(),
        ["{}", "{\u{feff}}", "{1}"]
    );
    assert_eq!(read(b"\xef\xbb\xbf[1]").unwrap(), ["1"]);
}

#[test]
fn long_records_are_cut_and_measured() {
    let lines = b"{2345\n{23456\n{2345\r\n{234567890123\n{";
    let found = records(stream(io::Cursor::new(lines), Progress::default()).unwrap(), 5).unwrap();
    let cut: Vec<(&str, Option<u64>)> = found.iter().map(|(text, size)| (text.as_str(), *size)).collect();
    assert_eq!(cut, [("{2345", None), ("{2345", Some(6)), ("{2345", None), ("{2345", Some(13)), ("{", None)]);
    let values = b"[\"abc\", \"abcd\"]";
    let found = records(stream(io::Cursor::new(values), Progress::default()).unwrap(), 5).unwrap();
    assert_eq!(found, [("\"abc\"".into(), None), ("\"abcd".into(), Some(6))]);
}

#[test]
fn an_array_and_objects_over_several_lines_are_records() {
    let array = b"[{\"a\": \"x,]\\\"}\"},\n {\"b\": [1, {\"c\": 2}]} , 3,\"t\" ]\n";
    assert_eq!(read(array).unwrap(), [r#"{"a": "x,]\"}"}"#, r#"{"b": [1, {"c": 2}]}"#, "3", "\"t\""]);
    assert_eq!(
        read(b"{\n  \"a\": 1\n}\n{\n  \"a\": 2\n}\n").unwrap(),
        ["{\n  \"a\": 1\n}", "{\n  \"a\": 2\n}"]
    );
    assert_eq!(read(b"[]").unwrap(), [""; 0]);
    assert_eq!(read(b"[{\"a\":1},{\"a\":2}]\n[{\"a\":3}]\n").unwrap().len(), 3);
    // An array among lines is a line, wherever it stands.
    assert_eq!(read(b"[{\"a\":1},{\"a\":2}]\n{\"a\":3}\n").unwrap().len(), 2);
}

#[test]
fn json_that_breaks_off_is_an_error_with_its_place() {
    assert_eq!(error(b"[{}, {"), "its JSON ends in the middle of record 2");
    assert_eq!(error(b"[{}, {}"), "its JSON ends before record 3");
    assert_eq!(error(b"[{} {}]"), "its JSON has neither a comma nor ] before record 2");
    assert_eq!(error(b"[{}]]"), "its JSON has a ] without a beginning before record 2");
    // Lines that are broken are records, and will be dead letters.
    assert_eq!(read(b"{\"a\":\n{\"b\": 1}\n").unwrap(), ["{\"a\":", "{\"b\": 1}"]);
}

#[test]
fn rows_of_a_table_are_objects_of_its_columns() {
    let csv = b"id,\"name\",time\n1,\"a, \"\"b\"\"\nc\",2026-01-01\n2,,x\n3,too,many,columns\n";
    let rows = [
        r#"{"id":"1","name":"a, \"b\"\nc","time":"2026-01-01"}"#,
        r#"{"id":"2","time":"x"}"#,
        "3,too,many,columns",
    ];
    assert_eq!(read(csv).unwrap(), rows);
    assert_eq!(read(b"id\tname\r\n1\t\"a\r\n").unwrap(), [r#"{"id":"1","name":"\"a"}"#]);
    assert_eq!(read(b"a;b\n1;\xff\n").unwrap(), ["1;\u{fffd}"]);
    assert_eq!(read(b"a,b\n").unwrap(), [""; 0]);
}

#[test]
fn what_holds_no_events_is_refused_with_what_to_do() {
    let utf16: Vec<u8> = "{\"a\": 1}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(error(&utf16).contains("iconv -f UTF-16"));
    assert!(error(&[b"\xff\xfe".as_slice(), &utf16].concat()).contains("iconv -f UTF-16"));
    for text in [b"hello\n".as_slice(), b"1,2,3\n4,5,6\n", b"a,a\n", b"\x7fELF\x02\x01", b"a, b\x00\n1,2\n"] {
        assert!(error(text).contains("holds no events"), "{text:?}");
    }
}

#[test]
fn what_wraps_events_leaves_no_trace() {
    let (one, two) = (b"{\"a\":1}\n".as_slice(), b"[{\"a\":2},{\"a\":3}]".as_slice());
    let all = ["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"];
    for wrapped in [gzip(one), zstd(one), bzip2(one), gzip(&zstd(one))] {
        assert_eq!(read(&wrapped).unwrap(), all[..1]);
    }
    assert_eq!(read(XZ).unwrap(), ["{}", "{}"]);
    let beside = b"not events".as_slice();
    let members =
        [("a.json", one), ("__MACOSX/._a.json", beside), ("in/.DS_Store", beside), ("b.json", &gzip(two))];
    for wrapped in [tar(&members), gzip(&tar(&members)), bzip2(&tar(&members))] {
        assert_eq!(read(&wrapped).unwrap(), all);
    }
    assert_eq!(read_file(&zip(&members)).unwrap(), all);
    assert_eq!(read_file(&gzip(one)).unwrap(), all[..1]);
    assert!(error(&zip(&members)).contains("unpack it"));
    let wrong = read_file(&zip(&[("a.json", one), ("README", b"hello\n")])).unwrap_err().to_string();
    assert!(wrong.contains("README holds no events"), "{wrong}");
}

#[test]
fn members_and_frames_follow_each_other() {
    let parts = [gzip(b"{\"a\":1}\n{"), gzip(b""), gzip(b"}\n")].concat();
    assert_eq!(read(&parts).unwrap(), ["{\"a\":1}", "{}"]);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
    let frames = [skippable.as_slice(), &zstd(b"{}\n"), &skippable, &zstd(b"{1}\n")].concat();
    assert_eq!(read(&frames).unwrap(), ["{}", "{1}"]);
}

#[test]
fn what_was_cut_short_or_damaged_is_an_error() {
    let content = "{\"some\": \"content\"}\n".repeat(100);
    let content = content.as_bytes();
    for (whole, name) in [(gzip(content), "gzip"), (zstd(content), "zstd"), (bzip2(content), "bzip2")] {
        for len in [5, whole.len() / 2, whole.len() - 1] {
            let error = error(&whole[..len]);
            assert!(error.contains(name) && error.contains("cut short"), "{len}: {error}");
        }
        let mut damaged = whole.clone();
        damaged[whole.len() - 6] ^= 0xff;
        let error = read(&damaged).err().map(|e| e.to_string());
        assert!(name == "zstd" || error.is_some_and(|e| e.contains("damaged")), "{name}");
    }
    assert!(error(&XZ[..XZ.len() - 5]).contains("xz"));
}

#[test]
fn identity_is_of_the_content_and_counts_its_records() {
    let of = |bytes: &[u8]| {
        identify(stream(io::Cursor::new(bytes.to_vec()), Progress::default()).unwrap()).unwrap()
    };
    // Of rows and of lines of a log no record is made for it.
    let log = b"h - - [02/Oct/2026:08:15:22 +0000] \"GET / HTTP/1.1\" 200 1\nnone\n";
    let table = b"a,b\n1,2\n3\n";
    for input in
        [b"".as_slice(), b"\n", b"{}", b"{}\n", b"{}\n{", b"{}\n\n{}\n", b"[{}, {},\n{}]", table, log]
    {
        let identity = of(input);
        assert_eq!(identity.records, read(input).unwrap().len() as u64, "{input:?}");
        assert_eq!((identity.bytes, &identity), (input.len() as u64, &of(&gzip(input))));
        assert_eq!(identity.sha256, sha256(input).iter().map(|b| format!("{b:02x}")).collect::<String>());
    }
    assert_ne!(of(b"{}\n").sha256, of(b"{}").sha256);
}

#[test]
fn lines_of_enriched_events_are_known_by_their_columns() {
    let mut cells = vec!["".to_owned(); 131];
    cells[6] = "018f2f0e-0000-4000-8000-000000000001".to_owned();
    let line = cells.join("\t");
    let two = format!("{line}\n{line}\n");
    assert_eq!(read(two.as_bytes()).unwrap(), [line.as_str(), line.as_str()]);
    cells[6] = "x".to_owned();
    for other in [cells.join("\t"), line.replacen('\t', "", 1)] {
        assert!(error(format!("{other}\n").as_bytes()).contains("holds no events"), "{other}");
    }
}

#[test]
fn json_in_a_column_is_json() {
    let table = "a,b\n\"{\"\"x\"\": [1]}\",[1\n\"[{}]\",{}\n";
    assert_eq!(read(table.as_bytes()).unwrap(), [r#"{"a":{"x":[1]},"b":"[1"}"#, r#"{"a":[{}],"b":{}}"#]);
}
