//! Funnel figures: the numbers, the NULL rules, canonical bytes under any merge tree, refusal of malformed bytes.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tidemark_core::funnel::stats::{EXACT_LIMIT, FunnelStats, StatsError, StepRow};
use tidemark_core::{AVec, Global};

type Stats = FunnelStats<Global>;

fn of(steps: i64, chains: &[Vec<i64>]) -> Stats {
    let whole: Vec<Vec<Option<i64>>> =
        chains.iter().map(|chain| chain.iter().copied().map(Some).collect()).collect();
    with_gaps(steps, &whole)
}

fn with_gaps(steps: i64, chains: &[Vec<Option<i64>>]) -> Stats {
    let mut stats = FunnelStats::new_in(steps, Global).unwrap();
    chains.iter().for_each(|chain| stats.push(chain).unwrap());
    stats
}

fn bytes(stats: &Stats) -> Vec<u8> {
    let mut out = AVec::new();
    stats.encode(&mut out);
    out.to_vec()
}

fn rows(stats: &Stats) -> Vec<StepRow> {
    stats.rows().collect()
}

/// `n` persons who all reach step 2, after 1, 2, ... `n` seconds.
fn ramp(n: i64) -> Vec<Vec<i64>> {
    (1..=n).map(|i| vec![0, i * 1_000_000]).collect()
}

#[test]
fn a_chain_counts_for_every_step_it_reached() {
    let chains = [vec![0, 2_000_000, 5_000_000], vec![10, 4_000_010], vec![7], vec![], vec![100]];
    let row = |step, entered, first, previous, median, avg| StepRow {
        step,
        entered,
        pct_of_first: first,
        pct_of_previous: previous,
        median_seconds: median,
        avg_seconds: avg,
    };
    let expected = [
        row(1, 4, Some(100.0), None, None, None),
        row(2, 2, Some(50.0), Some(50.0), Some(3.0), Some(3.0)),
        row(3, 1, Some(25.0), Some(50.0), Some(3.0), Some(3.0)),
        row(4, 0, Some(0.0), Some(0.0), None, None),
        row(5, 0, Some(0.0), None, None, None),
    ];
    assert_eq!(rows(&of(5, &chains)), expected);
}

#[test]
fn a_step_left_out_is_not_entered_and_the_next_counts_from_the_step_before_it() {
    let chains = [vec![Some(0), None, Some(3_000_000)], vec![Some(0), Some(1_000_000), Some(2_000_000)]];
    let rows = rows(&with_gaps(3, &chains));
    assert_eq!(rows.iter().map(|row| row.entered).collect::<Vec<_>>(), [2, 1, 2]);
    assert_eq!((rows[2].pct_of_first, rows[2].pct_of_previous), (Some(100.0), Some(200.0)));
    assert_eq!((rows[1].avg_seconds, rows[2].avg_seconds), (Some(1.0), Some(2.0)));
    assert_eq!(rows[2].median_seconds, Some(2.0));
}

#[test]
fn an_empty_funnel_has_no_percentages_and_no_times() {
    for row in rows(&of(3, &[vec![]])) {
        assert_eq!(row.entered, 0);
        assert_eq!((row.pct_of_first, row.pct_of_previous), (None, None));
        assert_eq!((row.median_seconds, row.avg_seconds), (None, None));
    }
}

#[test]
fn a_quantile_lies_between_two_durations_and_totals_count_from_the_first_step() {
    let stats = of(2, &[vec![0, 65_000_000], vec![0, 65_131_000], vec![0]]);
    assert_eq!(stats.quantile_seconds(1, 0.5), Some(65.0655), "rounded once, as the mean of microseconds is");
    assert_eq!(stats.quantile_seconds(1, 0.5), rows(&stats)[1].median_seconds);
    let at = |share| of(2, &ramp(5)).quantile_seconds(1, share);
    assert_eq!([0.0, 0.25, 0.9, 1.0].map(at), [Some(1.0), Some(2.0), Some(4.6), Some(5.0)]);
    assert_eq!((stats.quantile_seconds(0, 0.5), stats.quantile_seconds(2, 0.5)), (None, None));
    let mut total: Stats = FunnelStats::new_in(4, Global).unwrap();
    total.push_since_first(&[Some(1_000_000), None, Some(4_000_000), Some(11_000_000)]).unwrap();
    let median: Vec<_> = total.rows().map(|row| row.median_seconds).collect();
    assert_eq!(median, [None, None, Some(3.0), Some(10.0)], "over steps left out");
}

#[test]
fn the_median_is_exact_up_to_the_limit_and_within_one_percent_beyond() {
    let limit = EXACT_LIMIT as i64;
    assert_eq!(rows(&of(2, &ramp(limit)))[1].median_seconds, Some(500.5));
    assert_eq!(rows(&of(2, &ramp(limit - 1)))[1].median_seconds, Some(500.0));
    for n in [limit + 1, 50_000] {
        let row = rows(&of(2, &ramp(n)))[1];
        let exact = (n + 1) as f64 / 2.0;
        let median = row.median_seconds.unwrap();
        assert!((median / exact - 1.0).abs() <= 0.01 + 1e-9, "{median} for {exact}");
        assert_eq!(row.avg_seconds, Some(exact));
    }
}

#[test]
fn times_that_descend_or_overflow_are_counted() {
    let stats = of(2, &[vec![5_000_000, 1_000_000], vec![i64::MIN, i64::MAX], vec![i64::MAX, i64::MIN]]);
    assert_eq!(rows(&stats)[1].median_seconds, Some(-4.0));
    assert_eq!(bytes(&FunnelStats::decode_in(&bytes(&stats), Global).unwrap()), bytes(&stats));
}

#[test]
fn what_does_not_fit_is_refused() {
    assert_eq!(FunnelStats::new_in(0, Global).err(), Some(StatsError::Steps(0)));
    assert_eq!(FunnelStats::new_in(33, Global).err(), Some(StatsError::Steps(33)));
    assert!(FunnelStats::new_in(32, Global).is_ok());
    let mut stats = of(2, &[]);
    assert_eq!(stats.push(&[None, Some(2)]), Err(StatsError::NoFirst));
    assert_eq!(stats.push(&[Some(1), Some(2), Some(3)]), Err(StatsError::Chain { found: 3, steps: 2 }));
    assert_eq!(stats.merge(&of(3, &[])), Err(StatsError::Mismatch { ours: 2, theirs: 3 }));
    assert_eq!(bytes(&stats), bytes(&of(2, &[])));
}

#[test]
fn the_stored_form_is_as_documented() {
    // Durations of step 2: -1 (zigzag 1), 300 (distance 301 = 0xad 0x02); of step 3: 64 (zigzag 128 = 0x80 0x01).
    let stats = of(3, &[vec![0, 300, 364], vec![1, 0], vec![9]]);
    assert_eq!(bytes(&stats), [1, 3, 3, 2, 1, 0xad, 0x02, 1, 0x80, 0x01]);
    assert_eq!(bytes(&of(2, &[])), [1, 2, 0, 0]);
    // Beyond the limit: 1001 durations (0xe9 0x07) of 1 s are their sum, 1001000000 = 0x3baa0c40, and a sketch.
    let many = of(2, &vec![vec![0, 1_000_000]; EXACT_LIMIT + 1]);
    let expected = [
        &[1, 2, 0xe9, 0x07, 0xe9, 0x07, 0x40, 0x0c, 0xaa, 0x3b][..],
        &[0; 12],
        &[10, 0, 0, 0, 1, 0, 0xe9, 0x07],
        &1.0_f64.to_le_bytes(),
        &1.0_f64.to_le_bytes(),
    ];
    assert_eq!(bytes(&many), expected.concat());
}

fn chain() -> impl Strategy<Value = Vec<i64>> {
    prop_oneof![
        8 => prop::collection::vec(-50_000_000..50_000_000i64, 0..=4),
        1 => prop::collection::vec(any::<i64>(), 0..=4),
    ]
}

/// A chain that may leave out any step but the first.
fn gapped() -> impl Strategy<Value = Vec<Option<i64>>> {
    prop::collection::vec(prop::option::of(-50_000_000..50_000_000i64), 0..=4).prop_map(|mut chain| {
        if let Some(first) = chain.first_mut() {
            first.get_or_insert(0);
        }
        chain
    })
}

/// The same chains as one state, and as parts merged in a chain from either end and in a tree.
fn check_merge_trees(chains: &[Vec<i64>], mut at: Vec<usize>) {
    let serial = bytes(&of(4, chains));
    at.extend([0, chains.len()]);
    at.sort_unstable();
    let mut parts: Vec<Stats> = at.windows(2).map(|w| of(4, &chains[w[0]..w[1]])).collect();
    let merged = |parts: &[Stats]| {
        let mut sum = of(4, &[]);
        parts.iter().for_each(|part| sum.merge(part).unwrap());
        bytes(&sum)
    };
    assert_eq!(merged(&parts), serial);
    parts.reverse();
    assert_eq!(merged(&parts), serial);
    while parts.len() > 1 {
        let last = parts.pop().unwrap();
        let middle = parts.len() / 2;
        let stored = FunnelStats::decode_in(&bytes(&last), Global).unwrap();
        parts[middle].merge(&stored).unwrap();
    }
    assert_eq!(bytes(&parts[0]), serial);
}

proptest! {
    #[test]
    fn any_merge_tree_gives_equal_bytes(
        chains in prop::collection::vec(chain(), 0..60), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)
    ) {
        check_merge_trees(&chains, cuts.iter().map(|cut| cut.index(chains.len() + 1)).collect());
        let mut reversed = chains.clone();
        reversed.reverse();
        prop_assert_eq!(bytes(&of(4, &reversed)), bytes(&of(4, &chains)));
    }

    #[test]
    fn steps_left_out_change_no_law(chains in prop::collection::vec(gapped(), 0..60), cut in any::<prop::sample::Index>()) {
        let serial = with_gaps(4, &chains);
        let cut = cut.index(chains.len() + 1);
        let mut merged = with_gaps(4, &chains[cut..]);
        merged.merge(&with_gaps(4, &chains[..cut])).unwrap();
        prop_assert_eq!(bytes(&merged), bytes(&serial));
        let stored = FunnelStats::decode_in(&bytes(&serial), Global).unwrap();
        prop_assert_eq!(rows(&stored), rows(&serial));
    }

    #[test]
    fn a_state_survives_its_bytes(chains in prop::collection::vec(chain(), 0..60)) {
        let stats = of(4, &chains);
        let again = FunnelStats::decode_in(&bytes(&stats), Global).unwrap();
        prop_assert_eq!(rows(&again), rows(&stats));
        prop_assert_eq!(bytes(&again), bytes(&stats));
    }
}

#[test]
fn any_merge_tree_gives_equal_bytes_around_the_exact_limit() {
    let mut random = SmallRng::seed_from_u64(5);
    for n in [EXACT_LIMIT - 1, EXACT_LIMIT, EXACT_LIMIT + 1, EXACT_LIMIT + 2, 3 * EXACT_LIMIT] {
        let chains: Vec<Vec<i64>> = (0..n)
            .map(|_| {
                (0..random.random_range(2..=4)).map(|_| random.random_range(-9..9_000_000_000)).collect()
            })
            .collect();
        for cuts in [vec![], vec![1], vec![n / 2], vec![n - 1], vec![n / 3, n / 2, n - 1]] {
            check_merge_trees(&chains, cuts);
        }
    }
}

#[test]
fn random_and_mutated_bytes_are_read_or_refused() {
    let mut random = SmallRng::seed_from_u64(9);
    let large = bytes(&of(4, &ramp(EXACT_LIMIT as i64 + 9)));
    let mut valid = 0;
    for round in 0..60_000 {
        let mut stored = if round % 4 == 0 {
            large.clone()
        } else {
            let chains: Vec<Vec<i64>> = (0..random.random_range(0..6))
                .map(|_| (0..random.random_range(0..=4)).map(|_| random.random_range(-9..900)).collect())
                .collect();
            bytes(&of(4, &chains))
        };
        for _ in 0..random.random_range(1..3) {
            let at = random.random_range(0..stored.len().min(80));
            match random.random_range(0..4) {
                0 => stored[at] ^= 1 << random.random_range(0..8),
                1 => stored[at] = random.random(),
                2 => stored.insert(at, random.random()),
                _ => stored.truncate(at.max(1)),
            }
        }
        let Ok(stats) = FunnelStats::decode_in(&stored, Global) else { continue };
        valid += 1;
        assert_eq!(bytes(&stats), stored, "only canonical bytes are accepted");
        assert_eq!(rows(&stats).len(), stats.steps());
        let mut twice = FunnelStats::decode_in(&stored, Global).unwrap();
        twice.merge(&stats).unwrap();
        assert_eq!(rows(&twice)[0].entered, stats.rows().next().unwrap().entered.saturating_mul(2));
    }
    assert!(valid > 1000, "mutations were hardly ever valid: {valid}");
}
