//! What a CPU can do, in Xen's own short form.

use crate::stream::CpuidLeaf;
use std::fmt;
use std::str::FromStr;

/// A host's CPU.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuFacts {
    /// As CPUID has it: "GenuineIntel".
    pub vendor: String,
    /// Family and model, as Linux counts them.
    pub family_model: (u32, u32),
    /// What its maker calls it.
    pub name: String,
    /// What the hypervisor uses of it.
    pub features: Features,
}

/// Features of a CPU, as the first eight words of Xen's feature sets (`xen/include/public/arch-x86/cpufeatureset.h`); `xl info` prints
/// them as `hw_caps`.
///
/// ```
/// use colo_core::xen::check::Features;
///
/// let older: Features = "00000000:02000000:00000000:00000000:00000000:00000000:00000000:00000000".parse()?;
/// let newer: Features = "00000000:12000000:00000000:00000000:00000000:00000020:00000000:00000000".parse()?;
/// assert_eq!(newer.without(older).to_names(), ["avx", "avx2"]);
/// # Ok::<(), colo_core::xen::check::FeaturesError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Features([u32; WORDS]);

/// Text that is no feature set.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no feature set: eight words of eight hexadecimal digits")]
pub struct FeaturesError(pub String);

const WORDS: usize = 8;
/// What each word is called, and which register of which leaf and subleaf it is (0 to 3: EAX to EDX).
const PLACES: [(&str, u32, Option<u32>, usize); WORDS] = [
    ("1d", 1, None, 3),
    ("1c", 1, None, 2),
    ("e1d", 0x8000_0001, None, 3),
    ("e1c", 0x8000_0001, None, 2),
    ("Da1", 0xd, Some(1), 0),
    ("7b0", 7, Some(0), 1),
    ("7c0", 7, Some(0), 2),
    ("e7d", 0x8000_0007, None, 3),
];
/// The names of those features that guests use, by word and bit, as `xl.cfg`'s `cpuid` has them.
const NAMES: &[(usize, u32, &str)] = &[
    (1, 0, "sse3"),
    (1, 1, "pclmulqdq"),
    (1, 9, "ssse3"),
    (1, 12, "fma"),
    (1, 13, "cmpxchg16"),
    (1, 19, "sse4_1"),
    (1, 20, "sse4_2"),
    (1, 21, "x2apic"),
    (1, 22, "movbe"),
    (1, 23, "popcnt"),
    (1, 25, "aes"),
    (1, 26, "xsave"),
    (1, 28, "avx"),
    (1, 29, "f16c"),
    (1, 30, "rdrand"),
    (2, 11, "syscall"),
    (2, 20, "nx"),
    (2, 22, "mmxext"),
    (2, 25, "ffxsr"),
    (2, 26, "page1gb"),
    (2, 27, "rdtscp"),
    (2, 29, "lm"),
    (3, 0, "lahfsahf"),
    (3, 2, "svm"),
    (3, 5, "abm"),
    (3, 6, "sse4a"),
    (3, 11, "xop"),
    (3, 16, "fma4"),
    (4, 0, "xsaveopt"),
    (4, 1, "xsavec"),
    (4, 2, "xgetbv1"),
    (4, 3, "xsaves"),
    (5, 0, "fsgsbase"),
    (5, 3, "bmi1"),
    (5, 4, "hle"),
    (5, 5, "avx2"),
    (5, 7, "smep"),
    (5, 8, "bmi2"),
    (5, 9, "erms"),
    (5, 10, "invpcid"),
    (5, 11, "rtm"),
    (5, 16, "avx512f"),
    (5, 18, "rdseed"),
    (5, 19, "adx"),
    (5, 20, "smap"),
    (5, 23, "clflushopt"),
    (5, 29, "sha"),
    (6, 2, "umip"),
    (6, 3, "pku"),
    (6, 9, "vaes"),
    (6, 10, "vpclmulqdq"),
    (6, 22, "rdpid"),
    (7, 8, "itsc"),
];

impl Features {
    /// What a domain is told that its CPU can do, from its policy.
    pub fn of_policy(leaves: &[CpuidLeaf]) -> Features {
        let word = |(_, leaf, subleaf, register): (&str, u32, Option<u32>, usize)| {
            let found = leaves.iter().find(|found| found.leaf == leaf && found.subleaf == subleaf);
            found.map_or(0, |found| [found.eax, found.ebx, found.ecx, found.edx][register])
        };
        Features(PLACES.map(word))
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(self, other: Features) -> Features {
        Features(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// Those that the other has not.
    #[must_use]
    pub fn without(self, other: Features) -> Features {
        Features(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// A name for each, in the order of Xen's feature sets; of those that few guests know, word and bit: "7c0:4".
    pub fn to_names(self) -> Vec<String> {
        let bits = (0..WORDS).flat_map(|word| (0..u32::BITS).map(move |bit| (word, bit)));
        let there = bits.filter(|(word, bit)| self.0[*word] & 1 << bit != 0);
        let name = |(word, bit): (usize, u32)| {
            let known = NAMES.iter().find(|known| (known.0, known.1) == (word, bit));
            known.map_or_else(|| format!("{}:{bit}", PLACES[word].0), |known| known.2.to_owned())
        };
        there.map(name).collect()
    }
}

impl FromStr for Features {
    type Err = FeaturesError;

    fn from_str(text: &str) -> Result<Features, FeaturesError> {
        let wrong = || FeaturesError(text.to_owned());
        let word = |word: &str| match word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => u32::from_str_radix(word, 16).map_err(|_| wrong()),
            false => Err(wrong()),
        };
        let words: Vec<u32> = text.split(':').map(word).collect::<Result<_, _>>()?;
        words.try_into().map(Features).map_err(|_| wrong())
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.map(|word| format!("{word:08x}"));
        f.write_str(&words.join(":"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(leaf: u32, subleaf: Option<u32>, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidLeaf {
        CpuidLeaf { leaf, subleaf, eax, ebx, ecx, edx }
    }

    #[test]
    fn a_policy_is_read_where_its_features_stand() {
        let leaves = [
            leaf(1, None, [9, 9, 0x11, 0x22]),
            leaf(7, Some(1), [9, 9, 9, 9]),
            leaf(7, Some(0), [9, 0x33, 0x44, 9]),
            leaf(0xd, Some(1), [0x55, 9, 9, 9]),
            leaf(0x8000_0001, None, [9, 9, 0x66, 0x77]),
            leaf(0x8000_0007, None, [9, 9, 9, 0x88]),
        ];
        let text = "00000022:00000011:00000077:00000066:00000055:00000033:00000044:00000088";
        assert_eq!(Features::of_policy(&leaves).to_string(), text);
        assert_eq!(text.parse(), Ok(Features::of_policy(&leaves)));
    }

    #[test]
    fn unknown_features_have_names_too() {
        let one: Features = "00000001:00000000:00000000:00000000:00000000:00000000:00000010:00000000".parse().unwrap();
        assert_eq!(one.to_names(), ["1d:0", "7c0:4"]);
    }

    #[test]
    fn what_is_no_feature_set() {
        for bad in ["", "0:0:0:0:0:0:0:0", "00000000", &format!("+0000000{}", ":00000000".repeat(7))] {
            assert_eq!(bad.parse::<Features>(), Err(FeaturesError(bad.to_owned())));
        }
    }
}
