//! Who visits: habits, devices, where they came from, whether they sign in, and when in the week they come.
//! Everything about one shopper follows from the seed and the shopper's number.

use super::calendar::{DAY_MS, Date};
use super::catalog::{CHANNELS, COUNTRIES, DEVICES, DIRECT};
use super::rng::Rng;
use super::timeline::purpose;
use super::visit::SignIn;

/// How a shopper becomes a known user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// Has an account and is signed in on the main device from the start.
    Member,
    /// Browses without a name at first, then signs up or logs in.
    Converting(SignIn),
    /// Never says a name.
    Anonymous,
}

/// A device of a shopper: an index into [`DEVICES`], and whether the shopper is signed in there.
#[derive(Debug, Clone, Copy)]
struct OwnDevice {
    class: u8,
    known: bool,
}

/// The days a shopper is active in: `from..until`, days since the first day of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Active {
    from: u64,
    until: u64,
    /// Loses interest: most visits soon after the first one.
    fading: bool,
}

impl Active {
    /// The active days of a user within `days` days: two in three were customers before, the others arrive day by day,
    /// and half of those lose interest.
    pub(super) fn of(seed: u64, user: u32, days: u64) -> Self {
        let mut rng = Rng::new(seed, purpose::ARRIVAL, u64::from(user));
        let established = rng.chance(660);
        let from = if established { 0 } else { rng.below(days) };
        Active { from, until: days, fading: !established && rng.chance(500) }
    }
}

/// One shopper.
#[derive(Debug)]
pub(super) struct Shopper {
    pub(super) country: u8,
    /// Inclination to buy in percent of the average.
    pub(super) keenness: u64,
    identity: Identity,
    devices: Vec<OwnDevice>,
    channel: u8,
    campaign: u8,
    active: Active,
    visits: u32,
    signed_up: bool,
}

/// What is settled before a visit begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) device: u8,
    pub(super) device_class: u8,
    pub(super) channel: u8,
    pub(super) campaign: u8,
    pub(super) known: bool,
    pub(super) sign_in: SignIn,
}

/// Share of visits by local hour, on working days and at weekends.
const HOURS: [[u32; 24]; 2] = [
    [12, 6, 3, 2, 2, 4, 14, 30, 42, 46, 46, 48, 58, 50, 44, 44, 48, 56, 66, 82, 96, 92, 64, 30],
    [22, 12, 7, 4, 3, 3, 6, 14, 30, 52, 68, 74, 72, 70, 70, 70, 68, 66, 68, 76, 84, 78, 58, 34],
];
/// Share of visits by weekday, Monday first.
const WEEKDAYS: [u64; 7] = [104, 100, 98, 96, 90, 112, 126];

impl Shopper {
    /// A shopper who comes on the days of `active`.
    pub(super) fn new(rng: &mut Rng, active: Active) -> Self {
        let country = rng.weighted(COUNTRIES.iter().map(|c| c.weight)) as u8;
        let identity = match rng.weighted([44, 20, 12, 24]) {
            0 => Identity::Member,
            1 => Identity::Converting(SignIn::SignUp),
            2 => Identity::Converting(SignIn::LogIn),
            _ => Identity::Anonymous,
        };
        let count = 1 + rng.weighted([68, 26, 6]);
        let devices = (0..count)
            .map(|number| OwnDevice {
                class: rng.weighted(DEVICES.iter().map(|d| d.weight)) as u8,
                known: number == 0 && identity == Identity::Member,
            })
            .collect();
        let (channel, campaign) = any_channel(rng);
        Shopper {
            country,
            keenness: [25, 80, 130, 260][rng.weighted([30, 40, 20, 10])],
            identity,
            devices,
            channel,
            campaign,
            active,
            visits: 0,
            signed_up: false,
        }
    }

    /// Settles the next visit; call [`Shopper::after`] with its outcome before the one after it.
    pub(super) fn plan(&mut self, rng: &mut Rng) -> Plan {
        let first = self.visits == 0;
        self.visits += 1;
        let device = if self.devices.len() > 1 && rng.chance(300) {
            1 + rng.below(self.devices.len() as u64 - 1) as usize
        } else {
            0
        };
        let OwnDevice { class, known } = self.devices[device];
        let has_account = self.signed_up || self.identity == Identity::Member;
        let sign_in = match self.identity {
            _ if known || first => SignIn::No,
            Identity::Anonymous => SignIn::No,
            _ if has_account && rng.chance(550) => SignIn::LogIn,
            Identity::Converting(how) if !has_account && rng.chance(400) => how,
            _ => SignIn::No,
        };
        // Sometimes a session on the server has run out and a known visitor logs in again.
        let sign_in = if known && rng.chance(40) { SignIn::LogIn } else { sign_in };
        let (channel, campaign) = match rng.weighted([40, 32, 28]) {
            _ if first => (self.channel, self.campaign),
            0 => (DIRECT, 0),
            1 => (self.channel, self.campaign),
            _ => any_channel(rng),
        };
        Plan { device: device as u8 + 1, device_class: class, channel, campaign, known, sign_in }
    }

    /// Remembers how the planned visit ended: `known` is whether its last event was that of a known user.
    pub(super) fn after(&mut self, plan: &Plan, known: bool) {
        self.devices[usize::from(plan.device) - 1].known = known;
        self.signed_up |= known;
    }

    /// A start for a visit of `length_ms`, in milliseconds since the first day of the file, so that the visit ends
    /// within its `days` days: weekday and hour of day follow the habits of the shopper's country.
    pub(super) fn start(&self, rng: &mut Rng, first_day: Date, days: u64, length_ms: u64) -> u64 {
        let Active { from, until, fading } = self.active;
        let span = until - from;
        let mut day = from;
        // Rejection against the busiest weekday; the bound on tries only guards against a bad table.
        for _ in 0..64 {
            let in_span = rng.below(span);
            day = from + if fading { in_span.min(rng.below(span)).min(rng.below(span)) } else { in_span };
            if rng.below(126) < WEEKDAYS[Date::weekday(first_day.days() + day)] {
                break;
            }
        }
        let weekend = usize::from(Date::weekday(first_day.days() + day) >= 5);
        let hour = rng.weighted(HOURS[weekend]) as u64;
        let local = (day * DAY_MS + hour * 3_600_000 + rng.below(3_600_000)) as i64;
        let offset = COUNTRIES[usize::from(self.country)].offset_minutes * 60_000;
        // Where the local day sticks out of the file, the visit moves by a day, which keeps its hour.
        let total = (days * DAY_MS) as i64;
        let start = (local - offset).rem_euclid(total) as u64;
        let last_start = (total as u64).saturating_sub(length_ms + 1);
        if start <= last_start {
            start
        } else if days > 1 {
            start - DAY_MS
        } else {
            rng.below(last_start + 1)
        }
    }
}

fn any_channel(rng: &mut Rng) -> (u8, u8) {
    let channel = rng.weighted(CHANNELS.iter().map(|c| c.weight));
    (channel as u8, rng.below(CHANNELS[channel].campaigns.len() as u64) as u8)
}

/// How busy each user is compared with the others: a Zipf-Mandelbrot law times the days each is active. The ranks are
/// scattered over the user numbers. At least 1, below 2^45.
pub(super) fn weights(seed: u64, users: u32, days: u64) -> Vec<u64> {
    let mut rng = Rng::new(seed, purpose::ACTIVITY, 0);
    let mut ranks: Vec<u32> = (0..users).collect();
    for last in (1..ranks.len()).rev() {
        ranks.swap(last, rng.below(last as u64 + 1) as usize);
    }
    let flat = 4 + u64::from(users) / 50;
    (0u32..)
        .zip(ranks)
        .map(|(user, rank)| {
            let Active { from, until, .. } = Active::of(seed, user, days);
            (1 << 32) / (u64::from(rank) + flat) * (until - from)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_tenth_of_the_users_does_about_half() {
        let mut weights = weights(1, 1_000, 14);
        weights.sort_unstable_by(|a, b| b.cmp(a));
        let (top, all): (u64, u64) = (weights[..100].iter().sum(), weights.iter().sum());
        assert!((35..60).contains(&(top * 100 / all)), "busiest tenth: {top} of {all}");
    }

    #[test]
    fn visits_start_and_end_within_the_days_asked_for() {
        let first_day: Date = "2026-09-01".parse().unwrap();
        for days in [1, 2, 30] {
            for number in 0..300 {
                let mut rng = Rng::new(3, 3, number.into());
                let shopper = Shopper::new(&mut rng, Active::of(3, number, days));
                let start = shopper.start(&mut rng, first_day, days, 3_000_000);
                assert!(start + 3_000_000 < days * DAY_MS);
            }
        }
    }
}
