//! Open folders of a tree, reached one name at a time and never through a symlink.
//!
//! This is `shared.tree.dir_stack`, which says why the descriptors stay open.

use crate::odd::Odd;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fstat, mkdirat, open, openat};
use rustix::io::Errno;

/// Flags that open a folder, and nothing else.
pub const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Open the folder that Python knows by `descriptor`, through procfs: that needs no unsafe code.
pub fn reopen(descriptor: u32) -> Result<OwnedFd, Odd> {
    let flags = FOLDER.difference(OFlags::NOFOLLOW);
    Ok(open(format!("/proc/self/fd/{descriptor}"), flags, Mode::empty())?)
}

/// Return `name`, which is one step down.
pub fn plain(name: &str) -> Result<&str, Odd> {
    (!matches!(name, "" | "." | "..")).then_some(name).ok_or(Odd)
}

/// Descriptors of the folders from a base down to the last requested one.
pub struct Folders<'base> {
    base: BorrowedFd<'base>,
    creates: bool,
    path: String,
    open: Vec<(String, OwnedFd)>,
}

impl<'base> Folders<'base> {
    /// Begin at `base`. If it `creates`, missing folders are made (mode 0700).
    pub fn new(base: BorrowedFd<'base>, creates: bool) -> Self {
        Self { base, creates, path: String::new(), open: Vec::new() }
    }

    /// Return a descriptor of the folder `path`, which is relative to the base.
    pub fn folder(&mut self, path: &str) -> Result<BorrowedFd<'_>, Odd> {
        if path != self.path || (path.is_empty() != self.open.is_empty()) {
            self.descend(path)?;
        }
        Ok(self.last())
    }

    fn last(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.base, |(_, folder)| folder.as_fd())
    }

    fn descend(&mut self, path: &str) -> Result<(), Odd> {
        self.path.clear(); // if the descent fails, only the base is known to be right
        let names: Vec<&str> = if path.is_empty() { vec![] } else { path.split('/').collect() };
        let same =
            self.open.iter().zip(&names).take_while(|((mine, _), name)| mine == *name).count();
        self.open.truncate(same);
        for name in names.into_iter().skip(same) {
            let folder = self.enter(plain(name)?)?;
            self.open.push((name.to_owned(), folder));
        }
        path.clone_into(&mut self.path);
        Ok(())
    }

    fn enter(&self, name: &str) -> Result<OwnedFd, Odd> {
        let above = self.last();
        if self.creates {
            match mkdirat(above, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(_) => return Err(Odd),
            }
        }
        let folder = openat(above, name, FOLDER, Mode::empty())?;
        let is_root = rustix::process::geteuid().is_root();
        if self.creates && !is_root {
            let mode = Mode::from_raw_mode(fstat(&folder)?.st_mode);
            if !mode.contains(Mode::RWXU) {
                return Err(Odd); // an earlier run gave it its final mode
            }
        }
        Ok(folder)
    }
}
