//! What a secondary is told of its primary's domain, in [`DomainSpec::config`](crate::domain::DomainSpec::config): a line of words, and
//! then libxl's JSON.
//!
//! ```text
//! colo-xen 1 cards=backend twin=yes
//! {"c_info":{...},"b_info":{...},...}
//! ```
//!
//! ```
//! use colo_core::xen::plan::DomainPlan;
//! use colo_core::xen::toolstack::DomainConfig;
//!
//! let json = br#"{ "c_info": { "type": "pvh", "name": "web", "uuid": "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e" },
//!     "b_info": { "max_vcpus": 2, "max_memkb": 131072, "target_memkb": 131072 } }"#;
//! let plan = DomainPlan { config: DomainConfig::parse(json)?, has_emulated_cards: false, is_twin: true };
//! assert_eq!(DomainPlan::parse(&plan.to_bytes()).unwrap(), plan);
//! # Ok::<(), colo_core::xen::toolstack::ConfigError>(())
//! ```

use super::toolstack::{ConfigError, DomainConfig};

/// See the module.
#[derive(Clone, PartialEq, Debug)]
pub struct DomainPlan {
    /// What the toolstack builds the domain after.
    pub config: DomainConfig,
    /// Whether the guest uses the emulated network cards, not the backends beside them: an HVM guest without PV drivers.
    pub has_emulated_cards: bool,
    /// Whether the domain will run beside its primary, and be given its state again and again.
    pub is_twin: bool,
}

/// Why there is no plan in some bytes.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum PlanError {
    /// The first line is not what it should be: another version of colo, or no colo.
    #[error("the domain's description is not of this version of colo")]
    Title,
    /// The rest is no configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

const TITLE: &str = "colo-xen 1";
/// The longest title.
const MAX_TITLE_BYTES: usize = 64;

impl DomainPlan {
    /// For the specification.
    pub fn to_bytes(&self) -> Vec<u8> {
        let cards = if self.has_emulated_cards { "emulated" } else { "backend" };
        let twin = if self.is_twin { "yes" } else { "no" };
        [format!("{TITLE} cards={cards} twin={twin}\n").as_bytes(), &self.config.to_json()].concat()
    }

    /// From a specification.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn parse(bytes: &[u8]) -> Result<DomainPlan, PlanError> {
        let end = bytes.iter().take(MAX_TITLE_BYTES).position(|byte| *byte == b'\n').ok_or(PlanError::Title)?;
        let (title, json) = (&bytes[..end], &bytes[end + 1..]);
        let words = std::str::from_utf8(title).ok().and_then(|title| title.strip_prefix(TITLE));
        let (has_emulated_cards, is_twin) = match words {
            Some(" cards=backend twin=no") => (false, false),
            Some(" cards=backend twin=yes") => (false, true),
            Some(" cards=emulated twin=no") => (true, false),
            Some(" cards=emulated twin=yes") => (true, true),
            _ => return Err(PlanError::Title),
        };
        Ok(DomainPlan { config: DomainConfig::parse(json)?, has_emulated_cards, is_twin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plan_is_told() {
        assert!(matches!(DomainPlan::parse(b"{}"), Err(PlanError::Title)));
        for title in ["colo-xen 2 cards=backend twin=no\n{}", "colo-xen 1 cards=backend\n{}", "\n{}"] {
            assert!(matches!(DomainPlan::parse(title.as_bytes()), Err(PlanError::Title)), "{title}");
        }
        assert!(matches!(DomainPlan::parse(b"colo-xen 1 cards=backend twin=no\n{}"), Err(PlanError::Config(_))));
    }

    #[test]
    fn every_plan_is_read_as_it_was_written() {
        let json = br#"{ "c_info": { "type": "pv", "name": "web", "uuid": "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e" },
            "b_info": { "max_memkb": 131072, "target_memkb": 131072 } }"#;
        let config = DomainConfig::parse(json).unwrap();
        for (has_emulated_cards, is_twin) in [(false, false), (false, true), (true, false), (true, true)] {
            let plan = DomainPlan { config: config.clone(), has_emulated_cards, is_twin };
            assert_eq!(DomainPlan::parse(&plan.to_bytes()).unwrap(), plan);
        }
    }
}
