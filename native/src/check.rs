//! The check of a piece of a manifest: `checked` of `shared.tree.manifest`.
//!
//! A hostile agent may have made the manifest, so this accepts nothing that Python would refuse. It
//! accepts only plain lines, without any escape, so there is one way to read them.

use crate::entry::{Entry, Kind, parse};
use crate::odd::{Odd, without_lock};
use crate::plan::{Part, part};
use pyo3::Python;
use std::collections::HashSet;

const MAX_ENTRIES: u64 = 50_000_000;
const MAX_PATH: usize = 16 * 1024;
const MAX_DEPTH: usize = 256;
const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4095;

/// Number, path and type (whether it is a folder) of the entries before a piece: how many there
/// are, and the last one. An empty path if there is none.
type Place = (u64, Vec<u8>, bool);

/// What a reader of the manifest wants to see: symlinks that lead out of a folder whose path has so
/// many names, and the entries at these paths.
type Watch = (usize, Vec<Vec<u8>>);

/// Where a line begins, and where it ends.
type Line = (usize, usize);

/// Check `lines`, which come after `place`, of the library `root`; plan them as [`crate::plan`] does.
///
/// Return what the piece adds to the plan, the place after it, and where the lines are that a reader
/// has to see: those that it watches, and each that is the first of its kind or the most in
/// anything. None for lines that Python has to check.
#[pyo3::pyfunction]
pub fn check(
    py: Python<'_>,
    lines: &[u8],
    place: Place,
    root: &[u8],
    packed: Option<u64>,
    watch: Option<Watch>,
) -> Option<(Part, Place, Vec<Line>)> {
    without_lock(py, || {
        if lines.contains(&b'\\') {
            return Err(Odd);
        }
        let entries = parse(lines)?;
        let (number, path, is_folder) = place;
        if (number == 0) != path.is_empty() {
            return Err(Odd);
        }
        let mut checker = Checker { root, number, path: &path, is_folder };
        for entry in &entries {
            checker.add(entry)?;
        }
        let after = (checker.number, checker.path.to_vec(), checker.is_folder);
        let seen = watch.map(|watch| seen(lines, &entries, &watch));
        Ok((part(&entries, packed)?, after, seen.unwrap_or_default()))
    })
}

/// What is known of the entries before the next one. All folders above the last one are entries, too,
/// because the order is depth first.
struct Checker<'piece> {
    root: &'piece [u8],
    number: u64,
    path: &'piece [u8],
    is_folder: bool,
}

impl<'piece> Checker<'piece> {
    fn add(&mut self, entry: &'piece Entry) -> Result<(), Odd> {
        let path = entry.path.as_bytes();
        let (parent, name) = split(path);
        let depth = entry.path.matches('/').count();
        let is_in_place = if self.number == 0 {
            path == self.root && parent.is_empty() && depth == 0 && entry.kind == Kind::Folder
        } else {
            self.has_open(parent) && is_later(path, self.path)
        };
        let is_legal = is_in_place
            && self.number < MAX_ENTRIES
            && path.len() <= MAX_PATH
            && depth < MAX_DEPTH
            && is_name(name)
            && has_legal_link(entry);
        if !is_legal {
            return Err(Odd);
        }
        self.number = self.number.checked_add(1).ok_or(Odd)?;
        (self.path, self.is_folder) = (path, entry.kind == Kind::Folder);
        Ok(())
    }

    /// Return whether the next entry can be in the folder `path`: the last one, or one above it.
    fn has_open(&self, path: &[u8]) -> bool {
        let last = if self.is_folder { self.path } else { split(self.path).0 };
        let is_end = |rest: &[u8]| rest.first().is_none_or(|byte| *byte == b'/');
        !path.is_empty() && last.strip_prefix(path).is_some_and(is_end)
    }
}

/// Return the path above `path`, empty if there is none, and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let cut = path.iter().rposition(|byte| *byte == b'/');
    match cut.and_then(|cut| path.split_at_checked(cut)) {
        Some((parent, rest)) => (parent, rest.strip_prefix(b"/").unwrap_or(rest)),
        None => (b"", path),
    }
}

/// Return whether `path` comes after `other` in a manifest: `/` sorts before all else.
fn is_later(path: &[u8], other: &[u8]) -> bool {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    path.iter().map(key).gt(other.iter().map(key))
}

fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && name.len() <= MAX_NAME && !name.contains(&0)
}

fn has_legal_link(entry: &Entry) -> bool {
    let target = entry.link.as_bytes();
    match entry.kind {
        Kind::Symlink => !target.is_empty() && target.len() <= MAX_TARGET && !target.contains(&0),
        Kind::Hardlink => false, // Python checks its target
        Kind::Folder | Kind::File => target.is_empty(),
    }
}

/// Return where the lines are that a reader has to see.
fn seen(lines: &[u8], entries: &[Entry], (above, paths): &Watch) -> Vec<Line> {
    let paths: HashSet<&[u8]> = paths.iter().map(Vec::as_slice).collect();
    let mut firsts = [Firsts::default(), Firsts::default()]; // a reader may skip what is kept
    let mut end = 0_usize;
    let mut found = Vec::new();
    for (line, entry) in lines.split_inclusive(|byte| *byte == b'\n').zip(entries) {
        let start = end;
        end = end.saturating_add(line.len());
        let [taken, kept] = &mut firsts;
        let is_first = if entry.kept { kept } else { taken }.add(entry);
        let is_watched = paths.contains(entry.path.as_bytes()) || leads_out(entry, *above);
        if is_first || is_watched {
            found.push((start, end));
        }
    }
    found
}

/// Return whether a symlink's target, taken literally, is outside a folder `above` names deep.
fn leads_out(entry: &Entry, above: usize) -> bool {
    if entry.kind != Kind::Symlink || entry.link.starts_with('/') {
        return entry.kind == Kind::Symlink;
    }
    let mut depth = entry.path.matches('/').count();
    for name in entry.link.split('/') {
        match name {
            "" | "." => {}
            ".." if depth <= above => return true,
            ".." => depth = depth.saturating_sub(1),
            _ => depth = depth.saturating_add(1),
        }
    }
    false
}

/// The attributes of a piece's entries so far.
#[derive(Default)]
struct Firsts {
    attributes: HashSet<(u8, u32, u32, u32, bool)>,
    times: Option<(i64, i64)>,
    size: u64,
    path: usize,
    name: usize,
    link: usize,
}

impl Firsts {
    /// Return whether `entry` has something that no entry before it had, or has an odd name.
    fn add(&mut self, entry: &Entry) -> bool {
        let is_sparse = entry.data.is_some();
        let key = (entry.kind as u8, entry.mode, entry.uid, entry.gid, is_sparse);
        let (_, name) = split(entry.path.as_bytes());
        let (earliest, latest) = self.times.unwrap_or((entry.mtime_ns, entry.mtime_ns));
        let is_beyond = !(earliest..=latest).contains(&entry.mtime_ns);
        self.times = Some((earliest.min(entry.mtime_ns), latest.max(entry.mtime_ns)));
        let is_new = self.attributes.insert(key);
        let is_largest = entry.size > self.size;
        self.size = self.size.max(entry.size);
        is_new
            | is_beyond
            | is_largest
            | is_longer(&mut self.path, entry.path.len())
            | is_longer(&mut self.name, name.len())
            | is_longer(&mut self.link, entry.link.len())
            | is_odd(name)
    }
}

fn is_longer(longest: &mut usize, length: usize) -> bool {
    let is_longer = length > *longest;
    *longest = length.max(*longest);
    is_longer
}

/// Return whether some filesystem may refuse or change `name`.
fn is_odd(name: &[u8]) -> bool {
    let is_usual = |byte: &u8| byte.is_ascii_graphic() && !b"<>:\"|?*\\".contains(byte);
    let has_usual_end = !name.ends_with(b".") && !name.ends_with(b" ");
    !has_usual_end || !name.iter().all(|byte| *byte == b' ' || is_usual(byte))
}
