//! What is promised now and known later.

use alloc::rc::Rc;
use core::cell::RefCell;

/// For whoever waits for an outcome.
///
/// ```
/// let (promise, receipt) = colo_guest::receipt::promise();
/// assert_eq!(receipt.take(), None);
/// promise.keep(7);
/// assert_eq!(receipt.take(), Some(7));
/// ```
pub struct Receipt<T>(Rc<RefCell<Option<T>>>);

/// For whoever brings it about. Nobody may be waiting any more: then the outcome is forgotten.
pub struct Promise<T>(Rc<RefCell<Option<T>>>);

/// Both ends.
pub fn promise<T>() -> (Promise<T>, Receipt<T>) {
    let place = Rc::new(RefCell::new(None));
    (Promise(place.clone()), Receipt(place))
}

impl<T> Receipt<T> {
    /// The outcome, once it is there, and once only.
    pub fn take(&self) -> Option<T> {
        self.0.borrow_mut().take()
    }
}

impl<T> Promise<T> {
    /// Here it is.
    pub fn keep(self, outcome: T) {
        *self.0.borrow_mut() = Some(outcome);
    }
}
