//! Partial states of attribution, and the text of its model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::Global;
use tidemark_core::attribution::{Journey, Spec};
use tidemark_fuzz::{State, bounded, check_state, joined, parts, read_whole, seeds, written};

struct Log(Journey<Global>);

impl State for Log {
    /// Conversions with what they are worth, and the bits of the weights of their credits.
    type Answer = Vec<(i64, Vec<u8>, Vec<(i64, Vec<u8>, u64)>)>;

    fn decode(bytes: &[u8]) -> Option<Self> {
        read_whole(bytes, |r| Journey::decode_in(r, Global, ())).map(Self)
    }

    fn encode(&mut self) -> Vec<u8> {
        written(|w| self.0.encode(w, ()))
    }

    fn merge(&mut self, other: &Self) -> bool {
        self.0.append(&other.0, ()).is_ok()
    }

    fn answer(&mut self) -> Self::Answer {
        let mut answer = vec![];
        self.0.credits((), |time, worth, credits| {
            let sum: f64 = credits.iter().map(|credit| credit.weight).sum();
            assert!(credits.is_empty() || (sum - 1.0).abs() < 1e-6, "{sum}");
            assert!(credits.iter().all(|credit| credit.time <= time));
            let credits = credits.iter().map(|c| (c.time, c.channel.to_vec(), c.weight.to_bits())).collect();
            answer.push((time, worth.to_vec(), credits));
        });
        answer
    }
}

const DAY: i64 = 86_400_000_000;

fn of(model: &str, touches: &[(i64, &str)]) -> Vec<u8> {
    let mut journey = Journey::new_in(Spec::parse(model, 30 * DAY).expect("valid"), Global);
    touches.iter().for_each(|(time, channel)| journey.touch(*time, channel.as_bytes(), ()));
    journey.convert(9 * DAY, b"10", ());
    Log(journey).encode()
}

fn examples() -> Vec<Vec<u8>> {
    let touches = [(3 * DAY, "Email"), (DAY, "Direct"), (8 * DAY, "Paid Search"), (8 * DAY, "Email")];
    ["first", "last,direct", "linear", "position", "time_decay=3"]
        .map(|model| joined(&[model.as_bytes(), &of(model, &touches), &of(model, &touches[1..2])]))
        .to_vec()
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let [model, rest] = parts(data);
    let model = String::from_utf8_lossy(&model);
    let _ = bounded(model.len(), 4, || Spec::parse(&model, 30 * DAY));
    check_state::<Log>(&rest);
});
