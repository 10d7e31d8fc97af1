//! The command line, one argument a line.
#![no_main]

use clap::Parser;
use libfuzzer_sys::fuzz_target;
use tidemark_cli::Cli;
use tidemark_fuzz::seeds;

const EXAMPLES: [&str; 8] = [
    "dead-letters\nlist\n--letter\nfile:abc:0:17\n--since\n2h\n--event-date=2026-09-01",
    "dead-letters\nreplay\n--reason\ninvalid_event_time\n--until=2026-09-01T08:00:00Z\n--envelope\nuser_id=/who",
    "run\n--topic\nevents\n--kafka-config\nsocket.timeout.ms=30000\n--late-policy=divert\n--lanes=2",
    "load\n--into=bronze.other\n--event-time-floor\n2024-01-01\n--fingerprint-exclude\n/etl_tstamp\nfile.ndjson",
    "offsets\nset\n--partition\n3\n--to-offset\n7",
    "replay\n--topic\nevents\n--from-time\n7d\n--to-offset\n9",
    "generate\n--events\n10\n--start=2026-09-01\n--late\n0.5\n--id-version=7",
    "produce\n--partitions\n4\n--mapping\nsnowplow",
];

fuzz_target!(init: seeds(EXAMPLES), |text: &str| {
    if let Err(error) = Cli::try_parse_from(std::iter::once("tidemark").chain(text.split('\n'))) {
        assert!(!error.to_string().is_empty());
    }
});
