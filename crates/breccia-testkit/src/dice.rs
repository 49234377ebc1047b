//! Numbers that decide what a test does, and that a seed gives again.
//!
//! Not for secrets. Invariant: the same seed gives the same numbers.

/// A sequence of numbers that a seed gives; the seed is printed, and shown when a test fails.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Of this seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }

    /// Of this moment, and printed.
    pub fn printed() -> Dice {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Dice::given(now.map_or(7, |now| now.subsec_nanos().into()))
    }

    /// Of `BRECCIA_TEST_SEED`, or else this one; printed.
    pub fn given(seed: u64) -> Dice {
        let given = std::env::var("BRECCIA_TEST_SEED").ok();
        let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or(seed);
        println!("BRECCIA_TEST_SEED={seed}");
        Dice::new(seed)
    }

    /// One of some.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        let at = usize::try_from(self.roll(all.len() as u64)).unwrap_or(0);
        all.get(at).copied().expect("some to pick from")
    }

    /// A number under `below`.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}
