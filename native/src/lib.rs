//! The accelerator of plexodus.
//!
//! Each function does for the usual entries what Python does for all of them. Whatever is unusual, it
//! returns as `None` without an explanation, and the caller has Python do all of it again: Python is
//! the reference, and the only place that decides and explains.

pub mod check;
pub mod entry;
pub mod folders;
pub mod kept;
pub mod layout;
mod odd;
pub mod pack;
pub mod plan;
pub mod sums;
pub mod unpack;
pub mod walk;

pub use odd::{Odd, without_lock};

/// The module, as Python sees it.
#[pyo3::pymodule]
mod plexodus_native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::{
        check::check, kept::kept, kept::unchanged, pack::pack, plan::Part, plan::plan,
        sums::pieces, sums::sums, unpack::unpack, walk::Walk, walk::walk,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
