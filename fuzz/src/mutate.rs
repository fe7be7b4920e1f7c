/// Makes inputs from good ones, the same from the same seed.
pub(crate) struct Mutator(u64);

/// Numbers at which lengths and counts go wrong.
const EDGES: [u64; 10] = [0, 1, 0x7F, 0xFF, 0xFFFF, 1024, 1025, 8 << 20, u32::MAX as u64, u64::MAX];

impl Mutator {
    pub(crate) fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    /// One of the seeds, changed in one to eight places.
    pub(crate) fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut input, seeds);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(6) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.next() as u8,
            2 => self.overwrite_number(input, at),
            3 => input.truncate(at),
            4 => {
                let end = at + self.below(input.len() - at + 1).min(64);
                input.drain(at..end);
            }
            _ => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len() + 1);
                let to = from + self.below(other.len() - from + 1).min(256);
                input.splice(at..at, other[from..to].iter().copied());
            }
        }
    }

    /// Writes a number at which things go wrong, of one to eight bytes, as far as there is room.
    fn overwrite_number(&mut self, input: &mut [u8], at: usize) {
        let number = EDGES[self.below(EDGES.len())].wrapping_add(self.below(3) as u64).wrapping_sub(1);
        let width = 1 << self.below(4);
        for (byte, value) in input[at..].iter_mut().zip(&number.to_le_bytes()[..width]) {
            *byte = *value;
        }
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
