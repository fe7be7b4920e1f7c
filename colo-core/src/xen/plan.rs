//! What a secondary is told of its primary's domain, in [`DomainSpec::config`](crate::domain::DomainSpec::config): a line of words, and
//! then libxl's JSON.
//!
//! ```text
//! colo-xen 1 cards=backend
//! {"c_info":{...},"b_info":{...},...}
//! ```
//!
//! ```
//! use colo_core::xen::plan::DomainPlan;
//! use colo_core::xen::toolstack::DomainConfig;
//!
//! let json = br#"{ "c_info": { "type": "pvh", "name": "web", "uuid": "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e" },
//!     "b_info": { "max_vcpus": 2, "max_memkb": 131072, "target_memkb": 131072 } }"#;
//! let plan = DomainPlan { config: DomainConfig::parse(json)?, has_emulated_cards: false };
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

const BACKEND: &[u8] = b"colo-xen 1 cards=backend\n";
const EMULATED: &[u8] = b"colo-xen 1 cards=emulated\n";

impl DomainPlan {
    /// For the specification.
    pub fn to_bytes(&self) -> Vec<u8> {
        let title = if self.has_emulated_cards { EMULATED } else { BACKEND };
        [title, &self.config.to_json()].concat()
    }

    /// From a specification.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn parse(bytes: &[u8]) -> Result<DomainPlan, PlanError> {
        let (has_emulated_cards, json) = match (bytes.strip_prefix(BACKEND), bytes.strip_prefix(EMULATED)) {
            (Some(json), _) => (false, json),
            (_, Some(json)) => (true, json),
            (None, None) => return Err(PlanError::Title),
        };
        Ok(DomainPlan { config: DomainConfig::parse(json)?, has_emulated_cards })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plan_is_told() {
        assert!(matches!(DomainPlan::parse(b"{}"), Err(PlanError::Title)));
        assert!(matches!(DomainPlan::parse(b"colo-xen 2 cards=backend\n{}"), Err(PlanError::Title)));
        assert!(matches!(DomainPlan::parse(&[BACKEND, b"{}"].concat()), Err(PlanError::Config(_))));
    }
}
