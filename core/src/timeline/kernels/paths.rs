//! Paths: what follows what in the visits of one person.

use crate::timeline::Row;

/// Which part of a visit is a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathRules {
    /// The longest pause inside a visit, inclusive, in microseconds.
    pub gap_us: i64,
    /// Paths begin with this item; what a visit has before its first one is left out, and all of it without one.
    pub start: Option<u32>,
    /// Paths end with this item, the first one behind the start; a visit without it is left out.
    pub end: Option<u32>,
    /// How many items a path has at most: the first ones, or the last ones if there is an end and no start.
    pub items: usize,
}

/// A step from one item of a path to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// Its place in the path, counted from 1.
    pub step: u32,
    /// The item it leaves.
    pub source: u32,
    /// The item it leads to, another one.
    pub target: u32,
    /// Microseconds from the first row of the one item to the first row of the other.
    pub duration_us: i64,
}

/// Calls `each` with the edges of each visit's path; `rows` are those of one person in order, their values the items.
///
/// Equal items in a row are one. Rows of one instant are in the order of their conditions and codes.
pub fn paths(rows: &[Row], rules: PathRules, mut each: impl FnMut(Edge)) {
    let gap = u64::try_from(rules.gap_us).unwrap_or(0);
    let mut items: Vec<Row> = vec![];
    for visit in rows.chunk_by(|a, b| b.time.abs_diff(a.time) <= gap) {
        items.clear();
        items.extend_from_slice(visit);
        items.dedup_by_key(|row| row.value);
        let is = |item: Option<u32>, row: &Row| item.is_none_or(|item| item == row.value);
        let Some(first) = items.iter().position(|row| is(rules.start, row)) else { continue };
        let path = &items[first..];
        // A path from an item to the same one has something between.
        let from = usize::from(rules.start.is_some() && rules.start == rules.end);
        let path = match rules.end {
            Some(_) => match path.iter().skip(from).position(|row| is(rules.end, row)) {
                Some(last) => &path[..=last + from],
                None => continue,
            },
            None => path,
        };
        let left_out = if rules.start.is_none() && rules.end.is_some() {
            path.len().saturating_sub(rules.items)
        } else {
            0
        };
        let path = path.get(left_out..).unwrap_or(&[]);
        for (pair, step) in path.windows(2).zip(1u32..).take(rules.items.saturating_sub(1)) {
            let duration_us = pair[1].time.saturating_sub(pair[0].time);
            each(Edge { step, source: pair[0].value, target: pair[1].value, duration_us });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: i64 = 10;

    fn edges(
        rows: &[(i64, u32)],
        start: Option<u32>,
        end: Option<u32>,
        items: usize,
    ) -> Vec<(u32, u32, u32, i64)> {
        let rows: Vec<_> = rows.iter().map(|&(time, value)| Row { time, conditions: 0, value }).collect();
        let mut edges = vec![];
        let rules = PathRules { gap_us: GAP, start, end, items };
        paths(&rows, rules, |e| edges.push((e.step, e.source, e.target, e.duration_us)));
        edges
    }

    #[test]
    fn a_visit_ends_with_a_pause_and_equal_items_are_one() {
        let rows = [(0, 1), (2, 1), (5, 2), (15, 3), (26, 1), (27, 4)];
        assert_eq!(edges(&rows, None, None, 5), [(1, 1, 2, 5), (2, 2, 3, 10), (1, 1, 4, 1)]);
        assert_eq!(edges(&rows, None, None, 2), [(1, 1, 2, 5), (1, 1, 4, 1)]);
        assert_eq!(edges(&rows, None, None, 0), []);
        assert_eq!(edges(&[], None, None, 5), []);
    }

    #[test]
    fn paths_begin_and_end_where_they_are_told() {
        let rows = [(0, 1), (1, 2), (2, 3), (3, 2), (4, 4)];
        assert_eq!(edges(&rows, Some(3), None, 5), [(1, 3, 2, 1), (2, 2, 4, 1)]);
        assert_eq!(edges(&rows, None, Some(3), 2), [(1, 2, 3, 1)]);
        assert_eq!(edges(&rows, Some(2), Some(2), 5), [(1, 2, 3, 1), (2, 3, 2, 1)]);
        assert_eq!(edges(&rows, Some(2), Some(4), 2), [(1, 2, 3, 1)]);
        assert_eq!(edges(&rows, Some(9), None, 5), []);
        assert_eq!(edges(&rows, None, Some(9), 5), []);
    }
}
