//! Every stored type with bytes that were tampered with: whatever way they come in, they are refused alike or are a
//! value that all functions can take.

use std::error::Error;

use postgres::types::private::BytesMut;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tidemark_tests::cluster::Database;

use crate::report::{Outcome, Report, Session};
use crate::share_out;

/// Bytes as the binary form of any type.
#[derive(Debug)]
struct Raw(Vec<u8>);

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Values to begin with.
const VALUES: [(&str, &str); 12] = [
    ("tidemark.hll", "tidemark.hll_empty()"),
    ("tidemark.hll", "(SELECT tidemark.hll_agg(n) FROM generate_series(1, 5) AS n)"),
    ("tidemark.hll", "(SELECT tidemark.hll_agg(n, 11) FROM generate_series(1, 200) AS n)"),
    ("tidemark.hll", "(SELECT tidemark.hll_agg(n, 11) FROM generate_series(1, 50000) AS n)"),
    ("tidemark.ddsketch", "(SELECT tidemark.ddsketch_agg(n - 2) FROM generate_series(1, 5) AS n)"),
    ("tidemark.ddsketch", "(SELECT tidemark.ddsketch_agg(power(-7, n), 0.1) FROM generate_series(1, 99) AS n)"),
    ("tidemark.ddsketch", "(SELECT tidemark.ddsketch_agg(n) FROM (SELECT 1 WHERE false) AS q(n))"),
    ("tidemark.funnel_stats", "(SELECT tidemark.funnel_stats('{}'::timestamptz[], 2))"),
    (
        "tidemark.funnel_stats",
        "(SELECT tidemark.funnel_stats(ARRAY['2026-01-01Z', '2026-01-01Z'::timestamptz + n * n * interval '1 s'], 3)
            FROM generate_series(1, 50) AS n)",
    ),
    ("tidemark.funnel_stats", "(SELECT tidemark.funnel_stats(array_fill(now(), '{32}'), 32))"),
    // A slice of nine events of three persons, and their codes of a property.
    (
        "tidemark.timeline",
        "'\\x0174020309000000030000003f8c285480bbed300000000016f05dae5ce2fb6febf70a16b7e7a482d7cf\
         ac85341ea6a749000000000000003c000000780000002c010000000000003c000000f000000078000000b400\
         000068010000dc000000000000008a010000000000002100000000000000'",
    ),
    ("tidemark.timeline", "'\\x01700200090000003f8c2854b7d4865e38000000000000000700000000000000'"),
];

/// The bytes with one of them changed, at most 120 places, cut off, and longer.
fn tampered(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![vec![], [bytes, &[0]].concat(), [bytes, bytes].concat(), vec![0xff; 40]];
    let every = (bytes.len() / 100).max(1);
    for at in (0..bytes.len()).filter(|at| *at < 20 || at % every == 0) {
        all.push(bytes[..at].to_vec());
        for change in [0x00, 0x7f, 0xff, bytes[at] ^ 1] {
            let mut changed = bytes.to_vec();
            changed[at] = change;
            all.push(changed);
        }
    }
    all
}

pub fn walk(database: &Database<'_>, report: &Report) {
    let types = database.column(
        "SELECT format_type(casttarget, NULL) FROM pg_cast JOIN pg_type t ON t.oid = casttarget
          WHERE castsource = 'bytea'::regtype AND t.typnamespace = 'tidemark'::regnamespace",
    );
    for name in &types {
        assert!(
            VALUES.iter().any(|(known, _)| known == name),
            "the test does not know a value of type {name}, which has a cast from bytea: add some to VALUES here"
        );
    }
    share_out(VALUES.to_vec(), |(name, value)| tamper(database, report, name, value));
}

fn tamper(database: &Database<'_>, report: &Report, name: &str, value: &str) {
    let mut session = Session::new(report, database, &["57"]);
    session.client.batch_execute("SET statement_timeout = '1s'").unwrap();
    session.who = format!("type {name}");
    // Whatever takes a value of the type, its aggregates among them; other arguments are NULL.
    let calls = database.value(&format!(
        "SELECT string_agg(DISTINCT format('(SELECT %s.%I(%s)::text FROM v)',
                                           p.pronamespace::regnamespace, p.proname, given.arguments), ', ')
           FROM pg_proc p
          CROSS JOIN LATERAL (
                SELECT string_agg(CASE a.t WHEN '{name}'::regtype THEN 'x' ELSE format('NULL::%s', a.t::regtype) END,
                                  ', ' ORDER BY a.nr)
                  FROM unnest(p.proargtypes) WITH ORDINALITY AS a(t, nr)) AS given(arguments)
          WHERE '{name}'::regtype = ANY (p.proargtypes::oid[]) AND p.prokind IN ('a', 'f') AND NOT p.proretset
            AND 'internal'::regtype <> ALL (p.proargtypes::oid[]) AND p.prorettype <> 'internal'::regtype"
    ));
    let bytes: Vec<u8> = session.client.query_one(&format!("SELECT {value}::bytea"), &[]).unwrap().get(0);
    let receive = session.client.prepare(&format!("SELECT $1::{name}::bytea")).unwrap();
    for bytes in tampered(&bytes) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        session.input = hex.chars().take(400).collect();
        let cast = session.ask("cast", &format!("SELECT '\\x{hex}'::bytea::{name}::bytea"));
        let text = session.ask("text", &format!("SELECT '\\x{hex}'::{name}::bytea"));
        let received = session.client.query_one(&receive, &[&Raw(bytes)]);
        let binary = match received {
            Ok(row) => {
                let hex: String = row.get::<_, Vec<u8>>(0).iter().map(|byte| format!("{byte:02x}")).collect();
                Outcome::Answer(format!("\\x{hex}"))
            }
            Err(error) => {
                Outcome::Error(error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()))
            }
        };
        let refused = [&cast, &text, &binary].map(|outcome| match outcome {
            Outcome::Error(code) => Outcome::Error(code.replace("22P02", "22P03")),
            other => other.clone(),
        });
        if refused[0] != refused[1] || refused[0] != refused[2] {
            session.fail("cast", &format!("{cast}, as text {text}, received {binary}"), "");
        }
        if let Outcome::Answer(_) = cast {
            let from = format!("WITH v AS MATERIALIZED (SELECT '\\x{hex}'::{name} AS x)");
            session.ask("taken", &format!("{from} SELECT concat({calls})"));
        }
    }
}
