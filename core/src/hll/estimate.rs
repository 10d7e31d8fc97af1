//! Ertl's improved raw estimator (O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017,
//! arXiv 1702.01284, section 4): no tables, no switch between regimes, a function of the register histogram.

use super::config::Config;

/// How many registers have each value; no value exceeds 60 (the bits of a hash less the least `log2m`).
///
/// Four tables, summed at the end, so that equal neighbours do not wait for each other's increment.
pub(super) struct Histogram {
    tables: [[u32; 64]; 4],
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { tables: [[0; 64]; 4] }
    }

    #[inline]
    pub(super) fn add(&mut self, value: u8) {
        self.tables[0][usize::from(value & 63)] += 1;
    }

    /// Adds registers, whose number is a multiple of four.
    pub(super) fn add_all(&mut self, registers: &[u8]) {
        for four in registers.as_chunks::<4>().0 {
            for (table, &value) in self.tables.iter_mut().zip(four) {
                table[usize::from(value & 63)] += 1;
            }
        }
    }

    /// How many registers have value `k`; those that were not added are zeros.
    fn counts(&self, config: Config) -> [u32; 64] {
        let mut counts: [u32; 64] = std::array::from_fn(|k| self.tables.iter().map(|table| table[k]).sum());
        let seen: u32 = counts.iter().sum();
        counts[0] += (config.registers() as u32).saturating_sub(seen);
        counts
    }

    pub(super) fn estimate(&self, config: Config) -> f64 {
        let m = config.registers() as f64;
        let counts = self.counts(config);
        let count = |k: usize| f64::from(counts.get(k).copied().unwrap_or(0));
        // Values 0..=q are exact, q + 1 means "q + 1 or more".
        let q = ((1usize << config.regwidth()) - 2).min(64 - usize::from(config.log2m()));
        let mut z = m * tau(1.0 - count(q + 1) / m);
        for k in (1..=q).rev() {
            z = 0.5 * (z + count(k));
        }
        z += m * sigma(count(0) / m);
        m * m / (2.0 * std::f64::consts::LN_2) / z
    }
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let mut y = 1.0;
    let mut z = x;
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let mut y = 1.0;
    let mut z = 1.0 - x;
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}
