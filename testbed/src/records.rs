//! Where the records of an image are, as `colo inspect --records --json` says it.

use anyhow::{Context, Result};

/// The records of one image, in their order.
pub(crate) struct Records(Vec<serde_json::Value>);

impl Records {
    /// What `colo` has said.
    pub(crate) fn parse(said: &str) -> Result<Records> {
        let lines = said.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        Ok(Records(lines.context("colo's JSON")?))
    }

    /// Where the first of this name is, in bytes from the beginning.
    pub(crate) fn first(&self, layer: &str, name: &str) -> Result<u64> {
        self.offsets(layer, name).next().with_context(|| format!("no record {name} of {layer}"))
    }

    /// Where the last one is.
    pub(crate) fn last(&self, layer: &str, name: &str) -> Result<u64> {
        self.offsets(layer, name).next_back().with_context(|| format!("no record {name} of {layer}"))
    }

    /// Where one of libxc's is that has as many before it as after it.
    pub(crate) fn middle(&self, name: &str) -> Result<u64> {
        let offsets: Vec<u64> = self.offsets("libxc", name).collect();
        offsets.get(offsets.len() / 2).copied().with_context(|| format!("no record {name}"))
    }

    fn offsets<'a>(&'a self, layer: &'a str, name: &'a str) -> impl DoubleEndedIterator<Item = u64> + 'a {
        let found = self.0.iter().filter(move |record| record["layer"] == layer && record["record"] == name);
        found.filter_map(|record| record["offset"].as_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_records() {
        let line = |offset, layer, name| {
            serde_json::json!({"offset": offset, "layer": layer, "record": name, "bytes": 8}).to_string()
        };
        let said = [(0, "xl", "header"), (8, "libxc", "P"), (16, "libxc", "P"), (24, "libxc", "P"), (32, "libxl", "P")];
        let said = said.map(|(offset, layer, name)| line(offset, layer, name)).join("\n");
        let records = Records::parse(&said).unwrap();
        assert_eq!(records.first("libxc", "P").unwrap(), 8);
        assert_eq!(records.middle("P").unwrap(), 16);
        assert_eq!(records.last("libxc", "P").unwrap(), 24);
        assert_eq!(records.last("libxl", "P").unwrap(), 32);
        assert!(records.first("libxc", "Q").is_err() && records.middle("Q").is_err());
        assert!(Records::parse("no JSON").is_err());
    }
}
