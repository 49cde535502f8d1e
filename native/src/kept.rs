//! Entries that a delta keeps: the usual case of `agent.snapshots.delta`, and of
//! `initpuller.volume.reuse.matching`.

use crate::entry::{Entry, Kind, parse_line};
use crate::odd::without_lock;
use pyo3::prelude::*;
use std::borrow::Cow;

const DIGEST: usize = 32;
/// In place of a digest: `initpuller.volume.reuse.recorded.DAMAGED`.
const DAMAGED: [u8; DIGEST] = [0xff; DIGEST];
const MARK: &[u8] = br#","kept":true"#;

/// Pairs of entries, bytes of their lines in the older and the newer manifest, and the folders that
/// the last one is in, if they are among the pairs, or is: number of the pair, and where the line
/// begins and ends.
type Kept = (usize, usize, usize, Vec<(usize, usize, usize)>);

/// Return for how many lines `older` and `newer` have the same entries, all of them kept.
///
/// `digests` has 32 bytes for each older entry. An older entry that was kept and whose file was found
/// damaged ends the run. So does a line that Python has to judge.
#[pyfunction]
pub fn kept(py: Python<'_>, older: &[u8], newer: &[u8], digests: &[u8]) -> Option<Kept> {
    without_lock(py, || Ok(run(older, newer, digests)))
}

/// Return bytes of lines of a new walk and of an older one that have seen the same entries, and the
/// older lines, marked as kept.
///
/// Targets, holes and xattrs are not in the new lines. With `steady_before`, in nanoseconds, an entry
/// must be of an older time, small, and no database. Lines that Python has to judge end the run.
#[pyfunction]
pub fn unchanged(
    py: Python<'_>,
    older: &[u8],
    newer: &[u8],
    steady_before: Option<i64>,
) -> Option<(usize, usize, Vec<u8>)> {
    without_lock(py, || {
        let (mut ends, mut marked) = ((0_usize, 0_usize), Vec::new());
        for (old, new) in lines(older).zip(lines(newer)) {
            let Some(line) = marked_line(old, new, steady_before) else { break };
            ends = (ends.0.saturating_add(old.len()), ends.1.saturating_add(new.len()));
            if steady_before.is_some() {
                marked.extend([line, MARK, b"}\n"].concat());
            }
        }
        Ok((ends.0, ends.1, marked))
    })
}

fn marked_line<'line>(older: &'line [u8], newer: &[u8], time: Option<i64>) -> Option<&'line [u8]> {
    let (old, new) = (entry(older)?, entry(newer)?);
    let is_steady = |time| new.ctime_ns < time && !new.is_large() && !new.path.contains(".db");
    let is_kept = new.looks_like(&old) && new.kind != Kind::Hardlink && time.is_none_or(is_steady);
    let line = older.strip_suffix(b"}\n").filter(|_| is_kept)?;
    Some(line.strip_suffix(MARK).unwrap_or(line))
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

fn entry(line: &[u8]) -> Option<Entry<'_>> {
    parse_line(line.strip_suffix(b"\n")?).ok()
}

fn run(older: &[u8], newer: &[u8], digests: &[u8]) -> Kept {
    let (digests, _) = digests.as_chunks::<DIGEST>();
    let (mut count, mut ends) = (0_usize, (0_usize, 0_usize));
    let mut above: Vec<(Cow<'_, str>, (usize, usize, usize))> = Vec::new();
    for ((old, new), digest) in lines(older).zip(lines(newer)).zip(digests) {
        let Some(entry) = kept_entry(old, new, digest) else { break };
        let start = ends.1;
        ends = (ends.0.saturating_add(old.len()), start.saturating_add(new.len()));
        while above.pop_if(|(folder, _)| !is_below(&entry.path, folder)).is_some() {}
        if entry.kind == Kind::Folder {
            above.push((entry.path, (count, start, ends.1)));
        }
        count = count.saturating_add(1);
    }
    let folders = above.into_iter().map(|(_, folder)| folder).collect();
    (count, ends.0, ends.1, folders)
}

/// Return the newer entry if it is kept, and the volume has it as an unchanged older one.
fn kept_entry<'line>(older: &[u8], newer: &'line [u8], digest: &[u8]) -> Option<Entry<'line>> {
    let (old, new) = (entry(older)?, entry(newer)?);
    let is_damaged = new.kind == Kind::File && old.kept && digest == DAMAGED;
    let is_same = new.looks_like(&old) && new.link == old.link;
    (new.kept && !is_damaged && is_same).then_some(new)
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}
