//! What this crate leaves to Python.

use pyo3::{Python, marker::Ungil};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Something that Python has to do again, and to name: an unusual entry, a changed source, an error
/// of the volume, a forged manifest. It has no details, so there is one text of each message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Odd;

impl From<rustix::io::Errno> for Odd {
    fn from(_: rustix::io::Errno) -> Self {
        Self
    }
}

impl From<std::num::TryFromIntError> for Odd {
    fn from(_: std::num::TryFromIntError) -> Self {
        Self
    }
}

/// Run `work` without the interpreter's lock. Python gets `None` for [`Odd`], and for a panic.
pub fn without_lock<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Odd> + Ungil + Send,
) -> Option<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Odd)).ok())
}
