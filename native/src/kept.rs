//! Entries that a delta keeps: the usual case of `initpuller.volume.reuse.matching`.

use crate::entry::{Entry, Kind, parse_line};
use crate::odd::without_lock;
use pyo3::Python;
use std::borrow::Cow;

const DIGEST: usize = 32;

/// Pairs of entries, bytes of their lines in the older and the newer manifest, and the folders that
/// the last one is in, if they are among the pairs, or is: number of the pair, and where the line
/// begins and ends.
type Kept = (usize, usize, usize, Vec<(usize, usize, usize)>);

/// Return for how many lines `older` and `newer` have the same entries, all of them kept.
///
/// `digests` has 32 bytes for each older entry. An older entry that was kept and whose file has no
/// digest ends the run: it may be damaged. So does a line that Python has to judge.
#[pyo3::pyfunction]
pub fn kept(py: Python<'_>, older: &[u8], newer: &[u8], digests: &[u8]) -> Option<Kept> {
    without_lock(py, || Ok(run(older, newer, digests)))
}

fn run(older: &[u8], newer: &[u8], digests: &[u8]) -> Kept {
    let (digests, _) = digests.as_chunks::<DIGEST>();
    let lines = |text| <[u8]>::split_inclusive(text, |byte: &u8| *byte == b'\n');
    let (mut count, mut ends) = (0_usize, (0_usize, 0_usize));
    let mut above: Vec<(Cow<'_, str>, (usize, usize, usize))> = Vec::new();
    for ((old, new), digest) in lines(older).zip(lines(newer)).zip(digests) {
        let Some(entry) = kept_entry(old, new, digest) else {
            break;
        };
        let start = ends.1;
        ends = (ends.0.saturating_add(old.len()), start.saturating_add(new.len()));
        while let Some((folder, _)) = above.last()
            && !is_below(&entry.path, folder)
        {
            above.pop();
        }
        if entry.kind == Kind::Folder {
            above.push((entry.path, (count, start, ends.1)));
        }
        count = count.saturating_add(1);
    }
    let folders = above.into_iter().map(|(_, folder)| folder).collect();
    (count, ends.0, ends.1, folders)
}

/// Return the newer entry if it is kept, and the volume has it as an unchanged older one.
fn kept_entry<'line>(
    older: &[u8],
    newer: &'line [u8],
    digest: &[u8; DIGEST],
) -> Option<Entry<'line>> {
    let old = parse_line(older.strip_suffix(b"\n")?).ok()?;
    let new = parse_line(newer.strip_suffix(b"\n")?).ok()?;
    let may_be_damaged = new.kind == Kind::File && old.kept && digest == &[0; DIGEST];
    (new.kept && !may_be_damaged && is_same(&old, &new)).then_some(new)
}

fn is_same(old: &Entry, new: &Entry) -> bool {
    old.path == new.path
        && old.kind == new.kind
        && old.mode == new.mode
        && (old.uid, old.gid) == (new.uid, new.gid)
        && (old.mtime_ns, old.ctime_ns) == (new.mtime_ns, new.ctime_ns)
        && old.inode == new.inode
        && old.size == new.size
        && old.link == new.link
}

fn is_below(path: &str, folder: &str) -> bool {
    let below = path.strip_prefix(folder);
    below.is_some_and(|rest| rest.starts_with('/'))
}
