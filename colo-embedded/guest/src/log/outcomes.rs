use alloc::collections::VecDeque;

use crate::{
    disk::{DiskFailed, Outcome},
    receipt::Receipt,
};

/// The outcomes of several requests.
#[derive(Default)]
pub(super) struct Outcomes(VecDeque<Receipt<Outcome>>);

impl Outcomes {
    pub(super) fn push(&mut self, receipt: Receipt<Outcome>) {
        self.0.push_back(receipt);
    }

    /// `None` while there are some to come; the first failure, if there is one.
    pub(super) fn poll(&mut self) -> Option<Result<(), DiskFailed>> {
        while let Some(receipt) = self.0.front() {
            let outcome = receipt.take()?;
            self.0.pop_front();
            if outcome.is_err() {
                return Some(Err(DiskFailed));
            }
        }
        Some(Ok(()))
    }
}
