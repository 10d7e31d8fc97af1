//! What one visitor does in one visit: which pages, products, searches, carts and orders, with think time between.
//! Knows neither dates nor people; times are milliseconds since the start of the visit.

use super::catalog::{CATEGORIES, FAMILIES, PRODUCTS, SEARCHES, VARIANTS, page};
use super::rng::Rng;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    PageViewed,
    ProductViewed,
    SearchPerformed,
    ProductAdded,
    CheckoutStarted,
    PurchaseCompleted,
    SignedUp,
    LoggedIn,
}

/// One event of a visit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) at_ms: u64,
    pub(super) kind: Kind,
    pub(super) page: u16,
    pub(super) previous: u16,
    /// For events about a cart: where its lines stand in [`Carts`].
    pub(super) cart: u32,
    /// The visitor is signed in (from the event of signing in on).
    pub(super) known: bool,
}

/// Lines of carts as they were when an event happened, in one arena to keep events small: a count, then as many
/// lines of product (low half) and quantity (high half).
#[derive(Debug, Default)]
pub(super) struct Carts(Vec<u32>);

impl Carts {
    fn keep(&mut self, lines: &[(u16, u16)]) -> u32 {
        let at = self.0.len() as u32;
        self.0.push(lines.len() as u32);
        self.0
            .extend(lines.iter().map(|&(product, quantity)| u32::from(product) | u32::from(quantity) << 16));
        at
    }

    /// (product, quantity) of each line; the one added last is last.
    pub(super) fn lines(&self, at: u32) -> impl Iterator<Item = (u16, u16)> + Clone {
        let at = at as usize;
        let count = self.0[at] as usize;
        self.0[at + 1..=at + count].iter().map(|&line| (line as u16, (line >> 16) as u16))
    }
}

/// How the visitor becomes known in this visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignIn {
    /// Signed in before, or never.
    No,
    SignUp,
    LogIn,
}

/// Longest think time: below the session gap of 30 minutes, so that a visit stays one session.
const LONGEST_PAUSE_MS: u64 = 25 * 60_000;
/// A visit takes no new page after this long.
const LONGEST_VISIT_MS: u64 = 3 * 3_600_000;

struct Visit<'a> {
    rng: &'a mut Rng,
    steps: &'a mut Vec<Step>,
    carts: &'a mut Carts,
    now_ms: u64,
    page: u16,
    previous: u16,
    known: bool,
    sign_in: SignIn,
    cart: Vec<(u16, u16)>,
    /// Inclination to buy, in percent of the average.
    keenness: u64,
}

/// Appends the events of one visit to `steps` (at least one), in order of time. `keenness` is the visitor's inclination
/// to buy in percent of the average; `from_ad` visits land on a product or category more often.
pub(super) fn visit(
    rng: &mut Rng,
    steps: &mut Vec<Step>,
    carts: &mut Carts,
    (known, sign_in): (bool, SignIn),
    keenness: u64,
    from_ad: bool,
) {
    let mut visit = Visit {
        rng,
        steps,
        carts,
        now_ms: 0,
        page: page::OUTSIDE,
        previous: page::OUTSIDE,
        known,
        sign_in,
        cart: Vec::new(),
        keenness,
    };
    let landing = match visit.rng.weighted(if from_ad { [15, 25, 60] } else { [55, 20, 25] }) {
        0 => page::HOME,
        1 => visit.category(),
        _ => visit.product(),
    };
    visit.open(landing);
    if sign_in == SignIn::No && visit.rng.chance(360) {
        return; // a bounce
    }
    visit.wander();
}

impl Visit<'_> {
    fn push(&mut self, kind: Kind) {
        let cart = match kind {
            Kind::ProductAdded | Kind::CheckoutStarted | Kind::PurchaseCompleted => {
                self.carts.keep(&self.cart)
            }
            _ => 0,
        };
        self.steps.push(Step {
            at_ms: self.now_ms,
            kind,
            page: self.page,
            previous: self.previous,
            cart,
            known: self.known,
        });
    }

    fn think(&mut self, median_ms: u64) {
        // Now and then the telephone rings.
        let pause = if self.rng.chance(12) {
            self.rng.between(5 * 60_000, LONGEST_PAUSE_MS)
        } else {
            self.rng.log_normal(median_ms, 105)
        };
        self.now_ms += pause.clamp(900, LONGEST_PAUSE_MS);
    }

    /// What follows a click without thinking: the script on the page sends its event.
    fn moment(&mut self) {
        self.now_ms += self.rng.between(40, 900);
    }

    fn open(&mut self, to: u16) {
        self.previous = self.page;
        self.page = to;
        self.push(Kind::PageViewed);
        if to >= page::PRODUCT {
            self.moment();
            self.push(Kind::ProductViewed);
        } else if to >= page::SEARCH {
            self.moment();
            self.push(Kind::SearchPerformed);
        }
    }

    fn category(&mut self) -> u16 {
        page::CATEGORY + self.rng.below(CATEGORIES.len() as u64) as u16
    }

    fn search(&mut self) -> u16 {
        // The smaller of two draws: a few queries make up most searches.
        let n = SEARCHES.len() as u64;
        page::SEARCH + self.rng.below(n).min(self.rng.below(n)) as u16
    }

    /// Some products sell far better than others; which ones is scattered over the catalog.
    fn product(&mut self) -> u16 {
        let n = u64::from(PRODUCTS);
        let rank = self.rng.below(n).min(self.rng.below(n)).min(self.rng.below(n));
        page::PRODUCT + (rank * 77 % n) as u16
    }

    /// A product of the category on screen.
    fn product_in(&mut self, category: u16) -> u16 {
        let in_category = |f: &usize| FAMILIES[*f].category == usize::from(category);
        let count = (0..FAMILIES.len()).filter(in_category).count() as u64;
        let nth = self.rng.below(count) as usize;
        let family = (0..FAMILIES.len()).filter(in_category).nth(nth).unwrap_or(0);
        let variants = VARIANTS.len();
        let variant = self.rng.below(variants as u64).min(self.rng.below(variants as u64)) as usize;
        page::PRODUCT + (family * variants + variant) as u16
    }

    fn wander(&mut self) {
        let mut pages_left = self.rng.between(2, 28);
        // Visitors who sign in do so early, or at the checkout at the latest.
        let mut until_sign_in = self.rng.below(3);
        while pages_left > 0 && self.now_ms < LONGEST_VISIT_MS {
            pages_left -= 1;
            if self.sign_in != SignIn::No {
                if until_sign_in == 0 {
                    self.sign_in_now();
                    continue;
                }
                until_sign_in -= 1;
            }
            if self.page >= page::PRODUCT && self.rng.chance(60 * self.keenness / 100) {
                self.add_visit_cart();
            }
            if !self.cart.is_empty() && self.rng.chance(260) && self.visit_cart() {
                return;
            }
            if self.rng.chance(115) {
                return;
            }
            self.think(23_000);
            let next = self.next_page();
            self.open(next);
        }
    }

    fn next_page(&mut self) -> u16 {
        let here = self.page;
        // product, category, search, home
        let weights = match here {
            page::HOME => [34, 50, 16, 0],
            h if h >= page::PRODUCT => [40, 35, 9, 16],
            h if h >= page::SEARCH => [72, 12, 16, 0],
            h if h >= page::CATEGORY => [74, 16, 10, 0],
            _ => [30, 40, 10, 20],
        };
        match self.rng.weighted(weights) {
            0 if (page::CATEGORY..page::SEARCH).contains(&here) => self.product_in(here - page::CATEGORY),
            0 => self.product(),
            1 => self.category(),
            2 => self.search(),
            _ => page::HOME,
        }
    }

    fn add_visit_cart(&mut self) {
        let product = self.page - page::PRODUCT;
        if self.cart.iter().any(|line| line.0 == product) || self.cart.len() >= 8 {
            return;
        }
        self.think(12_000);
        let quantity = 1 + self.rng.weighted([86, 10, 3, 1]) as u16;
        self.cart.push((product, quantity));
        self.push(Kind::ProductAdded);
    }

    fn sign_in_now(&mut self) {
        if self.page != page::ACCOUNT {
            self.think(11_000);
            self.open(page::ACCOUNT);
        }
        let (kind, pause) = match self.sign_in {
            SignIn::SignUp => (Kind::SignedUp, 42_000),
            _ => (Kind::LoggedIn, 14_000),
        };
        self.think(pause);
        self.sign_in = SignIn::No;
        self.known = true;
        self.push(kind);
    }

    /// Looks at the cart and perhaps buys; true when the visit is over.
    fn visit_cart(&mut self) -> bool {
        self.think(9_000);
        self.open(page::CART);
        if self.rng.chance(330) {
            return self.rng.chance(350);
        }
        if self.sign_in != SignIn::No {
            self.sign_in_now();
        }
        self.think(10_000);
        self.open(page::CHECKOUT);
        self.moment();
        self.push(Kind::CheckoutStarted);
        if self.rng.chance(360) {
            return self.rng.chance(700);
        }
        self.think(70_000);
        self.push(Kind::PurchaseCompleted);
        self.cart.clear();
        self.moment();
        self.open(page::CONFIRMATION);
        self.rng.chance(750)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits(count: u64, sign_in: SignIn) -> Vec<Vec<Step>> {
        let (mut carts, mut all) = (Carts::default(), Vec::new());
        for number in 0..count {
            let mut steps = Vec::new();
            visit(&mut Rng::new(7, 7, number), &mut steps, &mut carts, (false, sign_in), 100, false);
            all.push(steps);
        }
        all
    }

    #[test]
    fn times_rise_and_no_pause_ends_a_session() {
        for steps in visits(3_000, SignIn::No) {
            assert_eq!(steps[0].at_ms, 0);
            for pair in steps.windows(2) {
                let pause = pair[1].at_ms - pair[0].at_ms;
                assert!(
                    pause > 0 && pause <= LONGEST_PAUSE_MS || pair[0].kind == Kind::PurchaseCompleted,
                    "{pair:?}"
                );
            }
        }
    }

    #[test]
    fn a_purchase_follows_the_steps_of_the_funnel() {
        let mut purchases = 0;
        for steps in visits(5_000, SignIn::No) {
            let first = |kind| steps.iter().position(|step| step.kind == kind);
            if let Some(bought) = first(Kind::PurchaseCompleted) {
                purchases += 1;
                let funnel =
                    [Kind::PageViewed, Kind::ProductViewed, Kind::ProductAdded, Kind::CheckoutStarted];
                let at: Vec<_> = funnel.into_iter().map(first).collect();
                assert!(at.is_sorted() && at.iter().all(|step| step.is_some_and(|s| s < bought)), "{at:?}");
            }
        }
        assert!((100..250).contains(&purchases), "{purchases} of 5000 visits bought: 2 to 5 % expected");
    }

    #[test]
    fn whoever_signs_in_is_known_from_that_event_on() {
        for steps in visits(500, SignIn::SignUp) {
            if let Some(at) = steps.iter().position(|step| step.kind == Kind::SignedUp) {
                assert!(
                    steps[..at].iter().all(|step| !step.known) && steps[at..].iter().all(|step| step.known)
                );
            } else {
                assert!(steps.iter().all(|step| !step.known));
            }
        }
    }
}
