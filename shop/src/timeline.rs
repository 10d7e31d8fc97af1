//! Puts visits on the clock: when each starts, when each event reaches the broker (at once, or late from a device that
//! was offline), and the order of the file. Decides nothing about what a visit contains or how a line looks.

use std::collections::BTreeSet;

use super::calendar::DAY_MS;
use super::rng::{Rng, mix};
use super::shopper::{Active, Plan, Shopper, weights};
use super::visit::{Carts, Kind, Step, visit};
use super::{Args, catalog};

/// An event is late when it reaches the broker this long after it happened, or longer.
pub(super) const LATE_MS: u64 = 3_600_000;
/// No event is later than this: below 7 days, the lateness that a loader accepts by default.
pub(super) const LATEST_MS: u64 = 6 * DAY_MS;
/// A longer pause than this ends a session.
const SESSION_GAP_MS: u64 = 30 * 60_000;

/// One event, packed: the line is written from this, the visit's record and the event's own stream of random numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    /// Milliseconds since 1970 at which the broker receives it; the file is ordered by this.
    pub(super) received_ms: u64,
    /// Received minus happened.
    pub(super) delay_ms: u32,
    /// Index into [`Timeline::visits`].
    pub(super) visit: u32,
    /// Number of the event among those of its shopper: with the shopper's number this makes the message id.
    pub(super) number: u32,
    pub(super) cart: u32,
    pub(super) page: u16,
    pub(super) previous: u16,
    pub(super) kind: Kind,
    pub(super) known: bool,
}

impl Event {
    /// Milliseconds since 1970 at which it happened.
    pub(super) fn happened_ms(&self) -> u64 {
        self.received_ms - u64::from(self.delay_ms)
    }
}

/// What the events of one visit share.
#[derive(Debug, Clone, Copy)]
pub(super) struct VisitRecord {
    pub(super) user: u32,
    /// Random bits of this visit, for example for the click id.
    pub(super) salt: u64,
    pub(super) country: u8,
    /// 1 for the shopper's first device.
    pub(super) device: u8,
    pub(super) device_class: u8,
    pub(super) channel: u8,
    pub(super) campaign: u8,
}

/// All events in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub(super) events: Vec<Event>,
    pub(super) visits: Vec<VisitRecord>,
    pub(super) carts: Carts,
    pub(super) late: u64,
    /// Sessions of persons at a gap of 30 minutes.
    pub(super) sessions: u64,
    /// Persons that can be told apart once it is known who logged in where.
    pub(super) persons: u64,
}

/// Streams of random numbers by purpose; changing a number changes every file.
pub(super) mod purpose {
    pub(crate) const ACTIVITY: u64 = 1;
    pub(crate) const SHOPPER: u64 = 2;
    pub(crate) const DUPLICATES: u64 = 3;
    pub(crate) const MALFORMED: u64 = 4;
    pub(crate) const LINE: u64 = 5;
    pub(crate) const ARRIVAL: u64 = 6;
}

struct Planned {
    plan: Plan,
    /// Range of its steps.
    steps: std::ops::Range<usize>,
    length_ms: u64,
}

/// Exactly `args.events` events within `args.days` days.
pub(super) fn build(args: &Args) -> Timeline {
    let mut timeline = Timeline { events: Vec::with_capacity(args.events as usize), ..Timeline::default() };
    let weights = weights(args.seed, args.users, args.days);
    let mut weight_left: u128 = weights.iter().copied().map(u128::from).sum();
    let (mut steps, mut planned, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for (user, weight) in (0u32..).zip(weights) {
        let room = args.events - timeline.events.len() as u64;
        if room == 0 {
            break;
        }
        let mut rng = Rng::new(args.seed, purpose::SHOPPER, u64::from(user));
        let mut shopper = Shopper::new(&mut rng, Active::of(args.seed, user, args.days));
        let visits = visits_for(&mut rng, &timeline, room, u128::from(weight), weight_left);
        weight_left -= u128::from(weight);
        // The last shopper makes the number of events exact.
        let at_least = if weight_left == 0 { room } else { 0 };
        steps.clear();
        planned.clear();
        while (planned.len() as u64) < visits || (steps.len() as u64) < at_least {
            let item = plan_visit(&mut rng, &mut shopper, &mut timeline.carts, &mut steps);
            planned.push(item);
        }
        if steps.len() as u64 > room {
            steps.truncate(room as usize);
            planned.retain(|p| p.steps.start < steps.len());
            if let Some(last) = planned.last_mut() {
                last.steps.end = steps.len();
                last.length_ms = steps[steps.len() - 1].at_ms;
            }
        }
        place(&mut rng, &shopper, args, &planned, &mut starts);
        timeline.sessions += count_sessions(&planned, &starts, &steps);
        timeline.persons += count_persons(&planned, &steps);
        let base = args.start.days() * DAY_MS;
        let mut number = 0;
        for (item, &start) in planned.iter().zip(&starts) {
            let index = timeline.visits.len() as u32;
            let plan = &item.plan;
            timeline.visits.push(VisitRecord {
                user,
                salt: mix(rng.next()),
                country: shopper.country,
                device: plan.device,
                device_class: plan.device_class,
                channel: plan.channel,
                campaign: plan.campaign,
            });
            timeline.deliver(
                &mut rng,
                args.late,
                index,
                &steps[item.steps.clone()],
                base + start,
                &mut number,
            );
        }
    }
    timeline.events.sort_unstable_by_key(|event| (event.received_ms, event.visit, event.number));
    timeline
}

/// How many visits a shopper makes of `room` events that this and the following shoppers share by weight.
///
/// A number of visits, not "until there are enough events": that rule would make the last visit of everybody a long one
/// and the last days of every file busy ones. The mean visit so far keeps the sum on course.
fn visits_for(rng: &mut Rng, timeline: &Timeline, room: u64, weight: u128, weight_left: u128) -> u64 {
    // A visit has 7.6 events in the mean; the prior gives way to what is seen.
    let events = 760 + timeline.events.len() as u128;
    let visits = 100 + timeline.visits.len() as u128;
    // Below 2^30 * 2^45 * 2^30 * 2^10.
    let in_thousandths = u128::from(room) * weight * visits * 1_000 / (weight_left * events);
    let (whole, rest) = (in_thousandths / 1_000, in_thousandths % 1_000);
    whole as u64 + u64::from(rng.chance(rest as u64))
}

/// Adds the steps of the shopper's next visit.
fn plan_visit(rng: &mut Rng, shopper: &mut Shopper, carts: &mut Carts, steps: &mut Vec<Step>) -> Planned {
    let plan = shopper.plan(rng);
    let from = steps.len();
    let from_ad = !catalog::CHANNELS[usize::from(plan.channel)].click.is_empty();
    visit(rng, steps, carts, (plan.known, plan.sign_in), shopper.keenness, from_ad);
    let last = &steps[steps.len() - 1];
    shopper.after(&plan, last.known);
    Planned { plan, steps: from..steps.len(), length_ms: last.at_ms }
}

/// Fills `starts` with rising starts for the visits, more than a session gap apart. Where the days are too short for
/// that (few days, few users, many events), the visits overlap instead.
fn place(rng: &mut Rng, shopper: &Shopper, args: &Args, planned: &[Planned], starts: &mut Vec<u64>) {
    let longest = planned.iter().map(|p| p.length_ms).max().unwrap_or(0);
    starts.clear();
    starts.extend(planned.iter().map(|_| shopper.start(rng, args.start, args.days, longest)));
    starts.sort_unstable();
    let overlapping = starts.clone();
    let gap = SESSION_GAP_MS + 60_000 + rng.below(30 * 60_000);
    for next in 1..starts.len() {
        starts[next] = starts[next].max(starts[next - 1] + planned[next - 1].length_ms + gap);
    }
    let mut end = args.days * DAY_MS + gap;
    for index in (0..starts.len()).rev() {
        let Some(latest) = end.checked_sub(gap + planned[index].length_ms + 1) else {
            starts.copy_from_slice(&overlapping);
            return;
        };
        starts[index] = starts[index].min(latest);
        end = starts[index];
    }
}

fn count_sessions(planned: &[Planned], starts: &[u64], steps: &[Step]) -> u64 {
    let apart = planned.iter().zip(starts).zip(&starts[1.min(starts.len())..]);
    if apart.clone().all(|((item, start), next)| start + item.length_ms + SESSION_GAP_MS < *next) {
        return planned.len() as u64;
    }
    let mut times: Vec<u64> = (planned.iter().zip(starts))
        .flat_map(|(item, start)| steps[item.steps.clone()].iter().map(move |step| start + step.at_ms))
        .collect();
    times.sort_unstable();
    1 + times.windows(2).filter(|pair| pair[1] - pair[0] > SESSION_GAP_MS).count() as u64
}

/// A shopper is one person on all devices with a login, and another one on each that has none.
fn count_persons(planned: &[Planned], steps: &[Step]) -> u64 {
    let (mut devices, mut logged_in) = (BTreeSet::new(), BTreeSet::new());
    for item in planned {
        devices.insert(item.plan.device);
        if steps[item.steps.clone()].iter().any(|step| step.known) {
            logged_in.insert(item.plan.device);
        }
    }
    (devices.len() - logged_in.len()) as u64 + u64::from(!logged_in.is_empty())
}

impl Timeline {
    /// Sends the events of one visit to the broker. The share of late events is held by giving way to whatever is
    /// missing so far: a visit of a mobile device goes offline at some event, and the rest arrives together later.
    fn deliver(
        &mut self,
        rng: &mut Rng,
        late_share: f64,
        index: u32,
        steps: &[Step],
        start_ms: u64,
        number: &mut u32,
    ) {
        let after = (self.events.len() + steps.len()) as f64;
        let missing = (late_share * after).round() as u64;
        let missing = missing.saturating_sub(self.late).min(steps.len() as u64) as usize;
        let visit = &self.visits[index as usize];
        let mobile = catalog::DEVICES[usize::from(visit.device_class)].is_mobile();
        let behind = (late_share * after) as u64 > self.late + 40;
        let offline = missing > 0 && (behind || rng.chance(if mobile { 500 } else { 60 }));
        let online_steps = if offline { steps.len() - missing } else { steps.len() };
        let reconnect = match rng.weighted([58, 25, 14, 3]) {
            0 => rng.between(LATE_MS, 6 * 3_600_000),
            1 => rng.between(6 * 3_600_000, DAY_MS),
            2 => rng.between(DAY_MS, 3 * DAY_MS),
            _ => rng.between(3 * DAY_MS, LATEST_MS - DAY_MS),
        };
        let reconnected_ms = start_ms + steps.last().map_or(0, |step| step.at_ms) + reconnect;
        // Apps send in batches: some visits arrive with seconds of delay.
        let batching = rng.chance(80);
        for (position, step) in steps.iter().enumerate() {
            let happened = start_ms + step.at_ms;
            let delay = if position >= online_steps {
                self.late += 1;
                reconnected_ms + (position - online_steps) as u64 * 3 + rng.below(3) - happened
            } else if batching {
                rng.between(1_000, 15_000)
            } else {
                (50 + rng.log_normal(130, 90)).min(2_000)
            };
            self.events.push(Event {
                received_ms: happened + delay,
                delay_ms: delay as u32,
                visit: index,
                number: *number,
                cart: step.cart,
                page: step.page,
                previous: step.previous,
                kind: step.kind,
                known: step.known,
            });
            *number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(events: u64, days: u64, users: u32, late: f64) -> Args {
        Args { events, days, users, late, ..Args::default() }
    }

    #[test]
    fn every_event_happens_within_the_days_and_arrives_within_six_days() {
        for (events, days, users) in [(5_000, 1, 3), (5_000, 7, 400), (20_000, 40, 100), (50, 2, 1_000)] {
            let args = args(events, days, users, 0.1);
            let timeline = build(&args);
            assert_eq!(timeline.events.len() as u64, events);
            let from = args.start.days() * DAY_MS;
            for event in &timeline.events {
                assert!((from..from + days * DAY_MS).contains(&event.happened_ms()), "{event:?}");
                assert!(event.delay_ms >= 50 && u64::from(event.delay_ms) <= LATEST_MS, "{event:?}");
            }
        }
    }

    #[test]
    fn the_late_share_is_met_whatever_it_is() {
        for share in [0.0, 0.001, 0.03, 0.5, 1.0] {
            let timeline = build(&args(20_000, 14, 300, share));
            let late =
                timeline.events.iter().filter(|event| u64::from(event.delay_ms) >= LATE_MS).count() as u64;
            assert_eq!(late, timeline.late);
            let wanted = (share * 20_000.0) as u64;
            assert!(late.abs_diff(wanted) <= 100, "{late} late, {wanted} wanted");
        }
    }

    #[test]
    fn the_number_of_sessions_is_that_of_pauses_over_thirty_minutes() {
        for (days, users) in [(1, 2), (14, 300)] {
            let timeline = build(&args(10_000, days, users, 0.03));
            let mut times: Vec<(u32, u64)> = (timeline.events.iter())
                .map(|event| (timeline.visits[event.visit as usize].user, event.happened_ms()))
                .collect();
            times.sort_unstable();
            let cuts =
                times.windows(2).filter(|p| p[0].0 != p[1].0 || p[1].1 - p[0].1 > SESSION_GAP_MS).count();
            assert_eq!(timeline.sessions, cuts as u64 + 1);
        }
    }
}
