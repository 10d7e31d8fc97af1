//! Names that options and configuration give: pointers into events, members, settings of Kafka, tables.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_fuzz::{bounded, seeds};
use tidemark_loader::config::keys::reserved;
use tidemark_loader::event::dedupe::Dedupe;
use tidemark_loader::event::envelope::mapping::parse_part;
use tidemark_loader::event::envelope::pointer::Pointer;
use tidemark_loader::event::fingerprint::member;
use tidemark_loader::kafka::parse_setting;
use tidemark_loader::postgres::target::Target;

const EXAMPLES: [&str; 9] = [
    "/a~1b/~0/0/",
    "user_id=/who/0",
    "received_at=/receivedAt",
    "event_time=/a:b/at:Europe/Berlin",
    "/etl_tstamp",
    "socket.timeout.ms=30000",
    "enable.auto.commit=true",
    "bronze.events",
    "bronze.\"events",
];

fuzz_target!(init: seeds(EXAMPLES), |text: &str| {
    bounded(text.len(), 64, || check(text));
});

fn check(text: &str) {
    if let Ok(pointer) = Pointer::new(text) {
        assert_eq!(pointer.to_string(), text);
    }
    if let Ok((_, pointer)) = parse_part(text) {
        assert!(text.ends_with(&pointer.to_string()));
    }
    if let Ok(name) = member(text) {
        assert!(!name.is_empty());
        assert!(Pointer::new(text).is_ok(), "a member is a pointer of one step");
    }
    if let Ok((key, value)) = parse_setting(text) {
        assert_eq!(format!("{key}={value}"), text);
        assert_eq!(reserved(&key), None);
    }
    if let Ok(target) = Target::new(text, Dedupe::default(), 1) {
        assert_eq!(target.name(), text);
        let (schema, table) = text.split_once('.').expect("both parts");
        assert_eq!(target.table(), format!("\"{schema}\".\"{table}\""));
        assert!(!schema.contains('"') && !table.contains('"'));
    }
}
